"""The group that users hold: a `with` block, `sync` between steps, `map` and `call` for the steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from heliostat.train import mapping
from heliostat.train.cluster import Cluster
from heliostat.train.errors import GroupClosed, GroupError, TooFewMembers, TooManyRestarts
from heliostat.train.health import Shortage
from heliostat.train.options import Options, Settings, parse
from heliostat.train.pace import Pace
from heliostat.train.procedure import Hook, Procedure, run, run_async
from heliostat.train.roster import Roster
from heliostat.train.target import Growth, Target, Throughput, clamp
from heliostat.train.types import Change, Failure, Member, World

POLL_S = 0.25
"""The longest pause between two looks while a group waits for `min_size`."""


class ElasticGroup:
    """Actors, one for each bundle, as many as there is room for, between `min_size` and `max_size`.

    Each sits in a placement group of its own. Those that wait for room are the demand that an autoscaler
    sees; when `target` falls they are withdrawn at once. Nothing exists outside of the `with` block.

    One thread or task at a time; hooks may call `map` and `call`, but not `sync`.
    """

    def __init__(
        self,
        actor_class: Any,
        *,
        bundle: Mapping[str, float],
        min_size: int,
        max_size: int,
        args: tuple[Any, ...] = (),
        **options: Unpack[Options],
    ) -> None:
        """Keep what is wanted, asking the cluster for nothing yet.

        Raises TypeError for an unknown option and ValueError for what can't be.
        """
        self._settings: Settings = parse(
            actor_class, options, bundle=bundle, sizes=(min_size, max_size), args=args
        )
        self._cluster = options.get("cluster") or _ray_cluster()
        self._roster = Roster(self._settings, self._cluster)
        self._shortage = Shortage(min_size, self._settings.timeout_s)
        self._growth = _growth(self._settings.target)
        self._wanted: Target = self._settings.target
        self._target = min_size
        self._state = "new"
        self._unreported: list[Change] = []
        self._steps = 0
        self._meter = self._cluster.meter(self._settings.name)
        self._cap: int | None = None
        self._syncing = False
        self._pace = Pace()

    # --- What is so ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def world(self) -> World:
        """Who is in the group. It changes in `sync` only (and in a `map` that has lost everybody)."""
        return self._roster.world

    @property
    def members(self) -> tuple[Member, ...]:
        return self._roster.world.members

    @property
    def target(self) -> int:
        """How many were wanted at the last `sync`. Set it to a number, a function, … to change the wish."""
        return self._target

    @target.setter
    def target(self, wanted: Target) -> None:
        self._wanted = wanted
        self._growth = _growth(wanted)

    @property
    def steps(self) -> int:
        """How many `map` have returned their results."""
        return self._steps

    @property
    def waiting(self) -> int:
        """How many bundles are asked for and have no place yet."""
        return self._roster.waiting

    def __len__(self) -> int:
        return len(self._roster.world)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._roster.world)

    # --- The block -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Wait for `min_size` members; raise TooFewMembers, and leave nothing, if they don't come in time."""
        self._begin()
        try:
            run(self._opening())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every actor, and remove every placement group."""
        self._end()

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await run_async(self._opening())
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._end)

    # --- Steps -----------------------------------------------------------------------------

    def sync(self) -> Change:
        """Bring the group up to date between two steps, and return what changed since the last time.

        Adds members that have come up, buries the dead and asks for their successors, lets go who sits on a
        node that drains or is not wanted any more, and calls the hooks. Waits for nothing but `leaving` (at
        most `leave_timeout_s`), unless there are fewer than `min_size`: then it waits for those.

        Raises TooFewMembers, TooManyRestarts, or GroupClosed.
        """
        return run(self._sync())

    async def async_sync(self) -> Change:
        """Do what `sync` does, without blocking the event loop. Hooks may be async."""
        return await run_async(self._sync())

    def map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        on_failure: Failure = Failure.RETRY,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """Call a method with each item, each on one member, and return the results in the order of items.

        The first items go to the ranks in order, the others to whoever is free. Each item's result counts
        once. `on_failure` says what becomes of the item of a member that is lost; with `RETRY`, one that has
        cost three members raises MemberLost. Who has not answered after `timeout_s` seconds (of the
        whole map) counts as lost, and what is not done by then is dropped, or raises MemberLost.
        What the method itself raises is raised as Ray gives it.
        """
        return run(self._map(method, items, on_failure, timeout_s))

    async def async_map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        on_failure: Failure = Failure.RETRY,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """Do what `map` does, without blocking the event loop."""
        return await run_async(self._map(method, items, on_failure, timeout_s))

    def call(self, method: str, *args: Any, timeout_s: float | None = None) -> list[Any]:
        """Call a method with the same arguments on every member, and return the results by rank.

        Raises MemberLost as soon as one is lost. What is large is best given as `ray.put(…)`: it then
        travels to each node once.
        """
        return run(self._call(method, args, timeout_s))

    async def async_call(self, method: str, *args: Any, timeout_s: float | None = None) -> list[Any]:
        """Do what `call` does, without blocking the event loop."""
        return await run_async(self._call(method, args, timeout_s))

    # --- How -------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._state != "new":
            raise GroupClosed(f"{self.name}: it was used already; make a new group for another `with`")
        self._state = "open"

    def _end(self) -> None:
        if self._state == "open":
            self._state = "closed"
            self._roster.close()
            self._meter.show("size", 0)

    def _check_open(self) -> None:
        if self._state != "open":
            raise GroupClosed(f"{self.name}: it is not in its `with` block")

    def _opening(self) -> Procedure[None]:
        yield from self._roster.open()
        yield from self._refill()

    def _sync(self) -> Procedure[Change]:
        self._check_open()
        self._measure()
        yield from self._refill()
        return self._report()

    def _refill(self) -> Procedure[None]:
        """Take turns until there are `min_size`, which is usually one turn; then call the hooks."""
        if self._syncing:
            raise GroupError(f"{self.name}: one sync at a time, and none in a hook")
        self._syncing = True
        try:
            before = len(self._unreported)
            yield from self._settle()
            yield from self._call_hooks(self._unreported[before:])
        finally:
            self._syncing = False

    def _settle(self) -> Procedure[None]:
        while True:
            yield from self._turn()
            self._shortage = self._shortage.seen(self._cluster.now_s(), len(self.world))
            left_s = self._shortage.left_s(self._cluster.now_s())
            if left_s == float("inf"):
                return
            self.check_shortage(left_s)
            pause_s = min(POLL_S, left_s)
            yield partial(self._cluster.pause, self._roster.watch(), timeout_s=pause_s)

    def _turn(self) -> Procedure[None]:
        """One look at the cluster, and what follows from it."""
        self._target = yield from self._wish()
        limit = self._target if self._cap is None else min(self._target, self._cap)
        yield from self._roster.turn(limit)
        if self._roster.restarts.too_many(self._cluster.now_s()):
            settings, last = self._settings, self._roster.restarts.last
            raise TooManyRestarts(
                f"{self.name}: more than {settings.max_restarts} failures in "
                f"{settings.restart_window_s:g} s, the last: {last}"
            )
        if change := self._roster.commit():
            self._unreported.append(change)
            self._pace = Pace(spoiled=True)
        self._meter.show("size", len(self.world))
        self._meter.show("target", self._target)

    def _wish(self) -> Procedure[int]:
        """Return how many would help, within the limits."""
        wanted, settings = self._wanted, self._settings
        if isinstance(wanted, Throughput):
            number = self._growth.target(len(self.world), min_size=settings.min_size)
        elif callable(wanted):
            number = yield Hook(partial(wanted, self))
            if not isinstance(number, int):
                raise TypeError(f"{self.name}: target returned {number!r}, which is no whole number")
        else:
            number = settings.max_size if wanted is None else wanted
        return clamp(number, min_size=settings.min_size, max_size=settings.max_size)

    def check_shortage(self, left_s: float) -> None:
        if left_s <= 0:
            settings, waiting = self._settings, self._roster.waiting
            raise TooFewMembers(
                f"{self.name}: {len(self.world)} members, fewer than {settings.min_size}, for "
                f"{settings.timeout_s:g} s; {waiting} × {dict(settings.recipe.bundle)} wait for room"
            )

    def _call_hooks(self, changes: list[Change]) -> Procedure[None]:
        settings = self._settings
        for change in changes:
            for left in change.left if settings.on_leave else ():
                yield Hook(partial(_called(settings.on_leave), left.member, left.reason))
            for member in change.joined if settings.on_join else ():
                yield Hook(partial(_called(settings.on_join), member))
        if changes and settings.on_resize:
            yield Hook(partial(settings.on_resize, self.world))

    def _report(self) -> Change:
        changes, self._unreported = self._unreported, []
        return Change(
            self.world,
            tuple(member for change in changes for member in change.joined),
            tuple(left for change in changes for left in change.left),
        )

    def _map(
        self, method: str, items: Iterable[Any], on_failure: Failure, timeout_s: float | None
    ) -> Procedure[list[Any]]:
        self._check_open()
        job = mapping.Job(method, list(items), on_failure, timeout_s, self._refill)
        task = mapping.Mapping(self._roster, job)
        begun_s = self._cluster.now_s()
        try:
            results = yield from task.run()
        finally:
            self._meter.add("lost_work_s", task.lost_work_s)
        self._steps += 1
        self._meter.add("steps", 1)
        self._note_pace(method, len(results), self._cluster.now_s() - begun_s, clean=task.lost_work_s == 0)
        return results

    def _call(self, method: str, args: tuple[Any, ...], timeout_s: float | None) -> Procedure[list[Any]]:
        self._check_open()
        results: list[Any] = yield from mapping.call_all(self._roster, method, args, timeout_s=timeout_s)
        return results

    # --- What more members would bring -----------------------------------------------------

    def _note_pace(self, method: str, items: int, seconds: float, *, clean: bool) -> None:
        wanted = self._wanted
        if isinstance(wanted, Throughput) and wanted.method in (None, method):
            self._pace = self._pace.mapped(items, seconds, clean=clean)

    def _measure(self) -> None:
        pace, self._pace = self._pace, Pace()
        rate = pace.items_per_s
        if rate is not None and len(self.world):
            cost = sum(self._roster.cost_of(one) for one in self.world)
            self._growth = self._growth.measured(len(self.world), items_per_s=rate, cost=cost)


def _growth(wanted: Target) -> Growth:
    return Growth(wanted.gain if isinstance(wanted, Throughput) else 1.0)


def _called(hook: Callable[..., Any] | None) -> Callable[..., Any]:
    assert hook is not None
    return hook


def _ray_cluster() -> Cluster:
    from heliostat.train.ray_cluster import RayCluster

    return RayCluster()
