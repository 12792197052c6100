"""What benchmarks/train.py calls a missed target, and what counts as a wait."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import train

MET: dict[str, Any] = {"ratio": 2.9, "sync_ms": 0.6, "lost_per_kill_max": 1, "lost_by_drains": 0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"ratio": 2.6, "sync_ms": 5.0, "lost_per_kill_max": 0}, []),
        ({"ratio": 2.59}, ["ratio 2.59, at least 2.6"]),
        ({"sync_ms": 5.1}, ["sync_ms 5.1, at most 5.0"]),
        ({"lost_per_kill_max": 2}, ["lost_per_kill_max 2, at most 1"]),
        ({"lost_by_drains": 1, "ratio": 1.0}, ["ratio 1.0, at least 2.6", "lost_by_drains 1, must be 0"]),
    ],
)
def test_each_target_that_is_missed_is_told(changed: dict[str, Any], said: list[str]) -> None:
    assert train.missed(MET | changed) == said


def test_a_wait_is_from_a_node_in_ray_to_the_first_step_on_it() -> None:
    joins = train.Joins(
        running_s={"first": 1.0, "a": 10.0, "b": 11.0, "unused": 12.0},
        used_s={"first": 2.0, "a": 14.0, "b": 16.5, "never seen": 20.0},
    )
    assert joins.waits_s(but=["first"]) == [4.0, 5.5]


def test_the_usual_run_is_the_one_that_is_asked_for() -> None:
    asked = train._arguments([])
    assert (asked.kills, asked.drains, asked.syncs, asked.json, asked.check) == (50, 5, 500, False, False)
