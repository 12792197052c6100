"""kill -9 of the controller of a local cluster, wherever it is: nothing leaks, joins twice or is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from heliostat.providers.local.processes import families
from tests.integration.cluster.conftest import CLUSTER
from tests.integration.kills.assault import Tally, full_assault

pytestmark = [pytest.mark.integration, pytest.mark.nightly]


def text(name: str) -> str:
    return CLUSTER.format(name=f"{name}-{os.getpid()}", workers=2, idle_timeout_s=2, orphan_timeout_s=120)


def left(cluster_uid: str) -> Sequence[str]:
    return sorted(families(cluster_uid, {}))


@pytest.mark.timeout(2700)
def test_nothing_leaks_joins_twice_or_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally("local")
    try:
        full_assault(tmp_path, text, tally=tally, left=left)
    finally:
        with capsys.disabled():
            print(tally.text())
    tally.check()
