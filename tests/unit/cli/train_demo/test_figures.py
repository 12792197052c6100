"""The figures of a training follow from what its driver told, and from nothing else."""

from __future__ import annotations

import json

import pytest

from heliostat.cli.train_demo.figures import Change, Record, Step, figures, sizes
from tests.unit.cli.train_demo import facts


def test_the_figures_are_those_of_the_steps() -> None:
    assert figures(facts.record()) == {
        "steps": 8,
        "lost_steps": 0,
        "sizes": [1, 2, 3, 2],
        "throughput": {"1": 100.0, "3": 300.0},
        "sync_ms": 5.0,
        "join_to_first_step_s": 3.5,
        "final_accuracy": 0.9711,
        "fixed_accuracy": 0.9689,
    }


def test_what_was_not_seen_is_null() -> None:
    assert json.loads(json.dumps(figures(Record()))) == {
        "steps": 0,
        "lost_steps": 0,
        "sizes": [],
        "throughput": {"1": None, "3": None},
        "sync_ms": None,
        "join_to_first_step_s": None,
        "final_accuracy": None,
        "fixed_accuracy": None,
    }


def test_lost_steps_are_what_the_driver_counted() -> None:
    told = [fact | {"lost": 2} if fact["kind"] == "trained" else fact for fact in facts.TOLD]
    assert figures(facts.record(told))["lost_steps"] == 2


@pytest.mark.parametrize(
    ("of_steps", "found"),
    [([], []), ([1, 1], [1]), ([1, 2, 2, 3, 2], [1, 2, 3, 2]), ([3, 1, 3], [3, 1, 3])],
)
def test_each_size_is_told_once_for_each_change(of_steps: list[int], found: list[int]) -> None:
    steps = [Step(float(n), n, size, 1.0, 1.0, 0.0, quiet=True) for n, size in enumerate(of_steps)]
    assert sizes(steps) == found


def test_news_are_steps_and_changes_with_the_size_after_them() -> None:
    record = Record()
    news = [record.take(fact) for fact in facts.TOLD]
    changes = [one for one in news if isinstance(one, Change)]
    assert [(one.joined, one.size, one.reason) for one in changes] == [
        (True, 1, ""),
        (True, 2, ""),
        (True, 3, ""),
        (False, 2, "drained"),
    ]
    assert sum(isinstance(one, Step) for one in news) == 8
    assert sum(one is None for one in news) == len(news) - 12


def test_steps_are_counted_since_the_last_change() -> None:
    record = Record()
    seen = []
    for fact in facts.TOLD:
        record.take(fact)
        seen.append((record.size, record.steps_at_size))
    assert seen[:5] == [(1, 0), (1, 1), (1, 1), (1, 2), (2, 0)]
    assert seen[-1] == (2, 2)
