"""Ray Train's digits without Ray: which steps see which rows, and what is said of a drain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import pytorch

train: Any = pytorch.imported("examples.elastic_ray_train")


def test_it_learns_from_the_same_rows_as_the_elastic_group() -> None:
    group: Any = pytorch.imported("examples.elastic_digits")
    config = train.Config()
    for step in (0, 13, 14, 399):
        rows = train.batch_of(step, rows=1437, config=config).tolist()
        assert rows == group.batch_of(step, rows=1437, size=config.batch, seed=config.seed).tolist()
    mine, labels = train.digits()
    theirs = group.digits(group.torch.device("cpu"))
    assert bool((mine[: -train.TEST_ROWS] == theirs.rows).all())
    assert bool((labels[-train.TEST_ROWS :] == theirs.test_labels).all())


def test_a_drain_is_told_once_for_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [None, ["n1"], ["n1"], ["n1", "n2"], None]
    told = [None if nodes is None else SimpleNamespace(preempted_node_ids=nodes) for nodes in found]
    monkeypatch.setattr(train.ray.train, "get_preemption_info", lambda: told.pop(0), raising=False)
    drains = train.Drains()
    assert [drains.announced() for _ in found] == [False, True, False, True, False]


def test_a_ray_without_a_watcher_tells_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(train.ray.train, "get_preemption_info", raising=False)
    assert not train.Drains().announced()
