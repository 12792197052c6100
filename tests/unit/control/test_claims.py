"""Claims that could not be deleted are deleted later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from heliostat.control import claims
from heliostat.control.claims import Claims
from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterUnreachable


class Head:
    def __init__(self) -> None:
        self.silent = False
        self.told: list[list[str]] = []

    async def forget(self, instance_ids: Sequence[str]) -> None:
        if self.silent:
            raise ClusterUnreachable("the GCS did not answer within 3 s")
        self.told.append(list(instance_ids))


@pytest.fixture
def head() -> Head:
    return Head()


@pytest.fixture
def kept(head: Head) -> Claims:
    return Claims(cast(Cluster, head))


async def test_a_head_that_answers_is_told_once(head: Head, kept: Claims) -> None:
    await kept.delete(["l1.0"], answers=True)
    await kept.delete([], answers=True)
    assert head.told == [["l1.0"]]


async def test_a_silent_head_is_told_when_it_answers_again(head: Head, kept: Claims) -> None:
    await kept.delete(["l1.0"], answers=False)
    head.silent = True
    await kept.delete(["l2.0"], answers=True)
    head.silent = False
    await kept.delete([], answers=True)
    assert head.told == [["l1.0", "l2.0"]]


async def test_the_latest_are_remembered(head: Head, kept: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEFT_MOST", 2)
    await kept.delete(["l1.0", "l2.0", "l3.0"], answers=False)
    await kept.delete([], answers=True)
    assert head.told == [["l2.0", "l3.0"]]
