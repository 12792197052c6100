"""The placer that judges plans is judged itself, since all that it lets pass is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planner.placer import Bin, Block, all_fit, put_somewhere, whole_devices
from tests.unit.planner.world import bundle

UNIT = 10_000


def node(cpus: int = 4, gpus: int = 0, *, exact: bool = True, **labels: str) -> Bin:
    amounts = {"CPU": cpus * UNIT, "GPU": gpus * UNIT}
    return Bin(amounts, labels, devices=whole_devices(amounts) if exact else {})


def alone(count: int, where: str = "", **units: float) -> list[Block]:
    return [(bundle(where, **units),)] * count


def together(count: int, **units: float) -> list[Block]:
    return [(bundle(**units),) * count]


def apart(count: int, **units: float) -> list[Block]:
    return [(replace(bundle(**units), anti_affinity="a"),)] * count


@pytest.mark.parametrize(
    ("bins", "blocks", "fits"),
    [
        ([node()], alone(4, CPU=1), True),
        ([node()], alone(5, CPU=1), False),
        ([node(), node()], [*alone(2, CPU=3), *alone(2, CPU=1)], True),
        ([node(8), node(8)], [*alone(3, "zone=b", CPU=2), *alone(3, CPU=3)], False),
        ([node(8, zone="b"), node(8, zone="b")], [*alone(3, "zone=b", CPU=2), *alone(3, CPU=3)], True),
        ([node(zone="a")], alone(1, "zone!a", CPU=1), False),
        ([node(4, 1)], alone(1, GPU=1), True),
        ([node(4, 2)], alone(3, GPU=0.6), False),
        ([node(4, 2, exact=False)], alone(3, GPU=0.6), True),
        ([node(4, 2)], [*alone(2, GPU=0.6), *alone(2, GPU=0.4)], True),
        ([node(4, 2)], [*alone(2, GPU=0.3), *alone(1, GPU=1)], True),
        ([node(4, 2)], [*alone(2, GPU=0.6), *alone(1, GPU=1)], False),
        ([node(), node()], together(5, CPU=1), False),
        ([node(8)], together(5, CPU=1), True),
        ([node(8, 2), node(8, 2)], together(3, GPU=0.6), False),
        ([node(), node()], apart(2, CPU=1), True),
        ([node(8), node()], apart(3, CPU=1), False),
    ],
)
def test_what_fits(bins: list[Bin], blocks: list[Block], fits: bool) -> None:
    assert all_fit(bins, blocks) is fits
    assert all_fit(bins[::-1], blocks[::-1]) is fits


def test_a_scheduler_takes_the_fullest_device_and_then_no_more() -> None:
    bins = [node(4, 2)]
    for units in ({"GPU": 0.6}, {"GPU": 0.4}, {"GPU": 1}):
        assert put_somewhere(bins, bundle(**units)) == 0
    assert put_somewhere(bins, bundle(GPU=0.1)) is None
