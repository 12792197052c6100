"""Restart limits, and how long too few members are borne."""

from __future__ import annotations

import pytest

from heliostat.train.health import Restarts, Shortage


@pytest.mark.parametrize(
    ("at_s", "now_s", "too_many"),
    [
        ([], 0, False),
        ([1, 2], 2, False),
        ([1, 2, 3], 3, True),
        ([1, 2, 3], 11, False),
        ([1, 12, 13], 13, False),
        ([1, 2, 3, 4, 5, 6, 7], 7, True),
        ([1, 2, 3, 4, 5, 6, 7], 17, False),
    ],
)
def test_failures_within_the_window_count(at_s: list[float], now_s: float, too_many: bool) -> None:
    restarts = Restarts(limit=2, window_s=10)
    for one in at_s:
        restarts = restarts.failed(one, f"at {one}")
    assert restarts.too_many(now_s) is too_many
    assert len(restarts.recent) <= 3
    assert restarts.last == (f"at {at_s[-1]}" if at_s else "")


def test_what_fails_together_on_a_node_is_one_and_forgiven_when_the_node_is_gone() -> None:
    restarts = Restarts(limit=1, window_s=10)
    for why in ("one", "two", "three"):
        restarts = restarts.failed(1, why, node_id="a")
    assert not restarts.too_many(1)
    restarts = restarts.failed(1, "elsewhere", node_id="b").failed(2, "again", node_id="b")
    assert restarts.too_many(2)
    assert restarts.forgiven({"a", "b"}) == restarts
    assert not restarts.forgiven({"a"}).too_many(2)


def test_a_limit_of_zero_bears_nothing() -> None:
    assert Restarts(limit=0, window_s=10).failed(1, "x").too_many(1)


def test_a_shortage_begins_with_the_first_look_and_ends_with_enough() -> None:
    shortage = Shortage(timeout_s=60)
    assert shortage.left_s(0) == float("inf")
    shortage = shortage.seen(5, enough=False).seen(20, enough=False)
    assert shortage.left_s(20) == 45
    assert shortage.left_s(70) == -5
    assert shortage.seen(21, enough=True).left_s(99) == float("inf")
