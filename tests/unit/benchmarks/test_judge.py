"""The judge finds out a plan that serves less than it says, and lets a true one pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.planner_cases import judge as judging
from benchmarks.planner_cases.cases import shape
from benchmarks.planner_cases.judge import Judged, judge
from benchmarks.planner_cases.placer import unplaced
from benchmarks.planner_cases.spec import Case, Gang, Node, Shape, Type

FOUR = Type("four", {"CPU": 4.0}, 1.0, {"zone": "a"})
GPUS = Type("gpus", {"CPU": 100.0, "GPU": 4.0}, 1.0)


def case(*tasks: tuple[Shape, int], **changed: object) -> Case:
    return replace(Case("T", "a test", (FOUR,), tasks=tasks), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("launched", "unmet"), [(3, 0), (2, 1), (0, 3)])
def test_a_claim_is_held_against_what_was_launched(launched: int, unmet: int) -> None:
    found = judge(case((shape(3), 3)), {"four": launched}, words=0)
    assert (found.unmet, found.unplaced) == (unmet, unmet)


def test_what_a_plan_admits_is_believed() -> None:
    assert judge(case((shape(3), 3)), {"four": 3}, words=2) == Judged(2, 2, 0)


def test_free_room_counts() -> None:
    nodes = (Node(0, FOUR, (("CPU", 3.0),)), Node(1, FOUR, (("CPU", 2.5),)))
    assert unplaced(case((shape(3), 2), nodes=nodes), {}) == 1


def test_labels_are_kept() -> None:
    at_b = shape(1, at=((("zone", "in", ("b",)),),))
    not_b = shape(1, at=((("zone", "not in", ("b",)),),))
    assert unplaced(case((at_b, 1), (not_b, 1)), {"four": 1}) == 1


@pytest.mark.parametrize(("devices", "left"), [(False, 0), (True, 2)])
def test_parts_of_a_gpu_do_not_lie_across_devices(devices: bool, left: int) -> None:
    parts = case((shape(1, 0, 0.6), 6), types=(GPUS,), devices=devices)
    assert unplaced(parts, {"gpus": 1}) == left


def test_a_gang_counts_whole_and_spreads() -> None:
    gang = Gang("g", "STRICT_SPREAD", shape(1), 3)
    assert unplaced(case(gangs=(gang,)), {"four": 2}) == 3
    assert unplaced(case(gangs=(gang,)), {"four": 3}) == 0
    assert unplaced(case(gangs=(replace(gang, strategy="PACK"),)), {"four": 1}) == 0


def test_what_comes_after_the_users_patience_is_no_room() -> None:
    late = replace(FOUR, ready_in_s=3600.0, patience_s=600.0)
    assert unplaced(case((shape(1), 1), types=(late,)), {"four": 1}) == 1


TEN = Type("ten", {"CPU": 10.0}, 1.0)
# 5 + 3 + 2 and 4 + 3 + 3: taking the largest first leaves one over.
TIGHT = case((shape(5), 1), (shape(4), 1), (shape(3), 3), (shape(2), 1), types=(TEN,))


@pytest.mark.parametrize("dives", [0, judging.DIVES])
def test_a_packing_that_no_plain_way_finds_is_found(dives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "DIVES", dives)
    assert unplaced(TIGHT, {"ten": 2}) == 1
    assert judge(TIGHT, {"ten": 2}, words=0) == Judged(0, 0, 0, 0.0)


def test_no_bundle_is_proven_lacking_twice() -> None:
    hopeless = case((shape(1), 1), gangs=gangs(1, 4), types=(BIG,))
    assert judge(hopeless, {"big": 1}, words=0).lacking == 4


ONE, BIG = Type("one", {"CPU": 1.0}, 1.0), Type("big", {"CPU": 100.0}, 1.0)


def gangs(count: int, bundles: int, strategy: str = "STRICT_SPREAD", cpus: float = 1) -> tuple[Gang, ...]:
    return tuple(Gang(f"g{number}", strategy, shape(cpus), bundles) for number in range(count))


@pytest.mark.parametrize(
    ("there", "launched", "words", "unmet"),
    [
        # Eight on one node, which has room for a hundred.
        (gangs(1, 8), {"big": 1}, 0, 8),
        # Each of them needs four nodes; two bundles of the one and two of the other are no gang.
        (gangs(2, 4), {"big": 3}, 2, 8),
        # Room for both, if the large node took two of the same gang.
        (gangs(2, 4), {"one": 4, "big": 1}, 0, 4),
        # Half of a gang is nothing.
        (gangs(2, 8, "PACK", cpus=3), {"four": 12}, 4, 8),
        # A gang and a half.
        ((*gangs(1, 4), *gangs(1, 4, "PACK")), {"one": 6}, 2, 4),
    ],
)
def test_a_lie_about_a_gang_is_found_out(
    there: tuple[Gang, ...], launched: dict[str, int], words: int, unmet: int
) -> None:
    found = judge(case(gangs=there, types=(FOUR, ONE, BIG)), launched, words=words)
    assert (found.unmet, found.unplaced, found.words) == (unmet, unmet, words)


@pytest.mark.parametrize(
    ("there", "launched", "words"),
    [
        (gangs(1, 8), {"one": 8}, 0),
        (gangs(2, 4), {"big": 4}, 0),
        (gangs(2, 8, "PACK", cpus=3), {"four": 12}, 8),
        ((*gangs(1, 4), *gangs(1, 4, "PACK")), {"one": 8}, 0),
    ],
)
def test_a_true_word_about_a_gang_is_believed(
    there: tuple[Gang, ...], launched: dict[str, int], words: int
) -> None:
    assert judge(case(gangs=there, types=(FOUR, ONE, BIG)), launched, words=words).unmet == words


def test_what_no_type_can_hold_is_not_served() -> None:
    assert judge(case((shape(5), 2), (shape(1), 1)), {"four": 1}, words=0).unmet == 2


def test_a_share_of_a_gpu_lies_where_its_label_is() -> None:
    at_b = shape(1, 0, 0.5, at=((("zone", "in", ("b",)),),))
    assert unplaced(case((at_b, 1), types=(GPUS,), devices=True), {"gpus": 1}) == 1
