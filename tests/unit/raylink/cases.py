"""A row of the table of Ray's own cases, and how it is checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ray.autoscaler.v2.scheduler import ResourceDemandScheduler

from tests.unit.raylink.asks import IS_RAY_2_60, Brief, Units, ask, brief, scheduler


@dataclass(frozen=True)
class Case:
    """`expected` is our answer; `otherwise` says why Ray's is another one.

    None: as much is placed as in Ray, by whatever choice of types (docs/planner.md).
    """

    name: str
    asked: dict[str, Any]
    expected: Brief | None
    otherwise: str = ""


def case(name: str, asked: dict[str, Any], otherwise: str = "", **expected: Any) -> Case:
    return Case(name, asked, Brief(**expected), otherwise)


def times(count: int, units: Units) -> list[Units]:
    return [units] * count


def check(one: Case) -> None:
    """Ask both schedulers, so that «same» and «otherwise» stay true."""
    ours = brief(scheduler().schedule(ask(**one.asked)))
    rays = brief(ResourceDemandScheduler().schedule(ask(**one.asked)))
    if one.expected is None:
        assert replace(ours, launch={}) == replace(rays, launch={})
        return
    assert ours == one.expected
    if IS_RAY_2_60:
        assert (rays != ours) is bool(one.otherwise), f"Ray says {rays}"
