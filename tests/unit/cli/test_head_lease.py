"""A head that is a job says ahead that it ends: often enough, never late, and as Slurm has it now."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from heliostat.cli.head_lease import LOOK_S, HeadLease, follow
from heliostat.ports.errors import Unavailable

BEGAN_S = 1000.0
NEXT = ", and this cluster with it; `heliostat up --successor FILE` asks for the next one"


async def nothing() -> None: ...


class Site:
    """A Slurm whose answer is `end_s`, and a clock that moves by sleeping only, until `until_s`."""

    def __init__(self, end_s: float | None, *, until_s: float) -> None:
        self.end_s: float | Unavailable | None = end_s
        self.lease = HeadLease(end_s, self.ask, aclose=nothing)
        self.time_s, self.until_s = BEGAN_S, until_s
        self.changes: dict[float, float | Unavailable | None] = {}
        self.looks: list[float] = []
        self.told: list[tuple[float, str]] = []

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        if self.time_s > self.until_s:
            raise asyncio.CancelledError

    async def ask(self) -> float | None:
        self.looks.append(self.time_s)
        for at_s in [one for one in self.changes if one <= self.time_s]:
            self.end_s = self.changes.pop(at_s)
        if isinstance(self.end_s, Unavailable):
            raise self.end_s
        return self.end_s

    async def follow(self) -> list[str]:
        """Return what was told, without its usual end."""
        with contextlib.suppress(asyncio.CancelledError):
            await follow(self.lease, clock=self, tell=lambda text: self.told.append((self.time_s, text)))
        return [
            text.removesuffix(NEXT).removeprefix("the head's Slurm job ends in ") for _, text in self.told
        ]


@pytest.mark.parametrize(
    ("lease_s", "left"),
    [
        (4 * 3600.0, ["4 h", "60 min", "15 min", "5 min"]),
        (1000.0, ["16 min", "15 min", "5 min"]),
        (120.0, ["2 min"]),
    ],
)
async def test_it_is_told_at_once_and_then_ahead(lease_s: float, left: list[str]) -> None:
    site = Site(BEGAN_S + lease_s, until_s=BEGAN_S + lease_s)
    assert await site.follow() == left
    assert site.told[0][1].endswith(NEXT)


async def test_each_is_told_in_its_time_and_slurm_is_asked_seldom() -> None:
    site = Site(BEGAN_S + 7200.0, until_s=BEGAN_S + 7200.0)
    await site.follow()
    assert [at_s - BEGAN_S for at_s, _ in site.told] == [0.0, 3600.0, 6300.0, 6900.0]
    assert len(site.looks) <= 7200.0 / LOOK_S + 3


@pytest.mark.parametrize(("now_s", "left"), [(9400.0, "2 h 30 min"), (2200.0, "30 min")])
async def test_a_time_limit_that_is_changed_is_followed(now_s: float, left: str) -> None:
    site = Site(BEGAN_S + 3600.0, until_s=BEGAN_S + now_s)
    site.changes[BEGAN_S + 350.0] = BEGAN_S + 600.0 + now_s - 400.0
    told = await site.follow()
    assert told[0] == "60 min"
    assert told[1] == f"{left} now that its time limit was changed"
    assert site.lease.now() == BEGAN_S + now_s + 200.0
    assert told[-1] == "5 min"


async def test_a_time_limit_that_is_taken_away_and_set_again() -> None:
    site = Site(BEGAN_S + 7200.0, until_s=BEGAN_S + 3000.0)
    site.changes = {BEGAN_S + 1.0: None, BEGAN_S + 1800.0: BEGAN_S + 5400.0}
    assert await site.follow() == [
        "2 h",
        "the time limit of the head's Slurm job was changed: it has none",
        "60 min now that its time limit was changed",
    ]


async def test_a_head_without_an_end_says_nothing() -> None:
    site = Site(None, until_s=BEGAN_S + 3600.0)
    assert await site.follow() == []
    assert len(site.looks) == 12


async def test_a_slurm_that_is_away_changes_nothing() -> None:
    site = Site(BEGAN_S + 1000.0, until_s=BEGAN_S + 1000.0)
    site.changes[BEGAN_S] = Unavailable("away")
    assert await site.follow() == ["16 min", "15 min", "5 min"]


async def test_a_second_more_or_less_is_no_change() -> None:
    site = Site(BEGAN_S + 7200.0, until_s=BEGAN_S + 1000.0)
    site.changes[BEGAN_S] = BEGAN_S + 7231.0
    assert await site.follow() == ["2 h"]
    assert site.lease.now() == BEGAN_S + 7231.0
