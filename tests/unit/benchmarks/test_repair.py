"""Bundles that plain placing leaves over find a place when others move, and none where there is no room."""

from __future__ import annotations

import pytest

from benchmarks.planner_cases import repair
from benchmarks.planner_cases.cases import shape
from benchmarks.planner_cases.placer import Bins, bins_of
from benchmarks.planner_cases.repair import left_after_moves, shared_out
from benchmarks.planner_cases.spec import Case, Selector, Shape, Type

TEN = Type("ten", {"CPU": 10.0}, 1.0, {"zone": "a"})
OTHER = Type("other", {"CPU": 10.0}, 1.0, {"zone": "b"})
GPUS = Type("gpus", {"CPU": 100.0, "GPU": 2.0}, 1.0)
FIVE, FOUR, THREE, TWO = map(shape, (5, 4, 3, 2))


def filled(case: Case, launched: dict[str, int], *rows: dict[Shape, int]) -> tuple[Bins, Bins]:
    """Return the nodes empty, and with so many of each shape on each."""
    start = bins_of(case, launched)
    packed = start.copy()
    for row, counts in enumerate(rows):
        for one, copies in counts.items():
            packed.take(row, one, copies)
    return start, packed


def test_one_takes_the_place_of_another() -> None:
    # 5 + 4 and 3 + 3 + 3 leave 2; 5 + 3 + 2 and 4 + 3 + 3 leave nothing.
    case = Case("T", "a test", (TEN,), tasks=((FIVE, 1), (FOUR, 1), (THREE, 3), (TWO, 1)))
    start, packed = filled(case, {"ten": 2}, {FIVE: 1, FOUR: 1}, {THREE: 3})
    before = packed.held.tolist()
    assert left_after_moves(start, packed, [0, 0, 0, 1]) == 0
    assert packed.held.tolist() == before


def test_where_there_is_no_room_moving_makes_none() -> None:
    case = Case("T", "a test", (TEN,), tasks=((FIVE, 2), (FOUR, 1), (THREE, 3), (TWO, 1)))
    start, packed = filled(case, {"ten": 2}, {FIVE: 1, FOUR: 1}, {THREE: 3})
    assert left_after_moves(start, packed, [1, 0, 0, 1]) == 1


def test_what_did_not_help_is_taken_back() -> None:
    case = Case("T", "a test", (TEN,), tasks=((FIVE, 1), (THREE, 3), (TWO, 1)))
    start, packed = filled(case, {"ten": 1}, {THREE: 3})
    # Two of the three would have to go for the 5, and nobody takes them.
    assert left_after_moves(start, packed, [1, 0, 1]) == 2


@pytest.mark.parametrize("others", [1, 2])
def test_nobody_goes_to_where_a_label_keeps_it_out(others: int) -> None:
    only_a: Selector = (("zone", "in", ("a",)),)
    bound = shape(6, at=(only_a,))
    case = Case("T", "a test", (TEN, OTHER), tasks=((bound, 2), (FOUR, others)))
    start, packed = filled(case, {"ten": 1, "other": 1}, {bound: 1}, {FOUR: others})
    assert left_after_moves(start, packed, [1, 0]) == 1


def test_shares_of_gpus_stay_within_one_device() -> None:
    large, small = shape(1, 0, 0.6), shape(1, 0, 0.4)
    case = Case("T", "a test", (GPUS,), tasks=((large, 3), (small, 2)), devices=True)
    start, packed = filled(case, {"gpus": 1}, {small: 2})
    assert left_after_moves(start, packed, [2, 0]) == 0
    start, packed = filled(case, {"gpus": 1}, {large: 1})
    assert left_after_moves(start, packed, [2, 0]) == 1


def test_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "STEPS", 0)
    case = Case("T", "a test", (TEN,), tasks=((FIVE, 1), (FOUR, 1), (THREE, 3), (TWO, 1)))
    start, packed = filled(case, {"ten": 2}, {FIVE: 1, FOUR: 1}, {THREE: 3})
    assert left_after_moves(start, packed, [0, 0, 0, 1]) == 1


@pytest.mark.parametrize(
    ("parts", "devices", "possible"),
    [
        ((), 0, True),
        ((), -1, False),
        ((6000, 6000), 2, True),
        ((6000, 6000, 6000), 2, False),
        ((6000, 6000, 4000, 4000), 2, True),
        # The tightest device first would leave the last one out.
        ((5000, 4000, 3000, 3000, 3000, 2000), 2, True),
        ((2500,) * 8, 2, True),
        ((2500,) * 9, 2, False),
    ],
)
def test_shares_on_devices(parts: tuple[int, ...], devices: int, possible: bool) -> None:
    assert shared_out(parts, devices) is possible
