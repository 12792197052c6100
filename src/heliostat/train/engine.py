"""What a group does, as procedures: `ElasticGroup` runs them, in a thread or beside an event loop."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from heliostat.train import mapping
from heliostat.train.cluster import Cluster
from heliostat.train.errors import GroupClosed, GroupError, MemberLost, TooFewMembers, TooManyRestarts
from heliostat.train.health import Shortage
from heliostat.train.options import Settings, wrong_target
from heliostat.train.pace import Gaps, Pace
from heliostat.train.procedure import Hook, Procedure
from heliostat.train.roster import Roster
from heliostat.train.target import Growth, Target, Throughput, clamp, whole
from heliostat.train.types import Change, Failure, Member, World

POLL_S = 0.25
"""The longest pause between two looks while a group waits for members."""


class Engine:
    """One group's state. `group` is what a target that is a function gets."""

    def __init__(self, settings: Settings, cluster: Cluster, group: Any) -> None:
        self.settings = settings
        self.cluster = cluster
        self.roster = Roster(settings, cluster)
        self.target = settings.min_size
        self.steps = 0
        self.state = "new"
        self._group = group
        self._wanted: Target = None
        self._growth = _growth(None)
        self.want(settings.target)
        self._shortage = Shortage(settings.timeout_s)
        self._pace = Pace()
        self._gaps = Gaps()
        self._synced_s: float | None = None
        self._meter = cluster.meter(settings.name)
        self._changes: list[Change] = []
        self._hooked = 0
        self._busy = False

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def world(self) -> World:
        return self.roster.world

    def want(self, target: Target) -> None:
        """Take another wish, or raise ValueError; what was measured for the old one is forgotten."""
        if wrong := wrong_target(target):
            raise ValueError(f"{self.name}: {wrong[0]}")
        self._wanted, self._growth = target, _growth(target)
        self.roster.cost_of = _cost_of(target)

    # --- Begin and end ---------------------------------------------------------------------

    def begin(self) -> None:
        if self.state != "new":
            raise GroupClosed(f"{self.name}: it was used already; make a new group for another `with`")
        self.state = "open"

    def end(self) -> None:
        """End every actor, and remove every placement group. Blocks; a second time is nothing."""
        if self.state in ("open", "closing"):
            # What a Ctrl-C cuts off here, the next call does.
            self.state = "closing"
            self.roster.close()
            self._meter.show("size", 0)
            self._meter.show("target", 0)
            self.state = "closed"

    def check_open(self) -> None:
        if self.state != "open":
            raise GroupClosed(f"{self.name}: it is not in its `with` block")

    def opening(self) -> Procedure[None]:
        yield from self.roster.open()
        yield from self.settled()

    # --- Membership ------------------------------------------------------------------------

    def syncing(self) -> Procedure[Change]:
        self.check_open()
        self.measure()
        yield from self.settled()
        return self.report()

    def settled(self) -> Procedure[None]:
        """Take turns until there are `min_size`, which is usually one turn; call the hooks."""
        self.enter()
        try:
            yield from self._settle()
            yield from self.hooks()
        finally:
            self.leave()

    def refilling(self, until_s: float) -> Procedure[None]:
        """Wait for somebody again, and for `min_size`, because a `map` has lost everybody; but no longer.

        In a hook's `map` this happens within that hook's sync, which calls the hooks for it afterwards.
        """
        if self._busy:
            yield from self._refill(until_s)
            return
        self.enter()
        try:
            yield from self._refill(until_s)
            yield from self.hooks()
        finally:
            self.leave()

    def _refill(self, until_s: float) -> Procedure[None]:
        # For no more than there were: in `Roles`, what is beyond that may be another's.
        limit = max(1, self.settings.min_size, min(self.target, self.roster.seats))
        while True:
            yield from self.turn(limit)
            left_s, until_left_s = self.shortage_left_s(least=1), until_s - self.cluster.now_s()
            if left_s == float("inf") or until_left_s <= 0:
                return
            yield from self.pause(min(left_s, until_left_s))

    def enter(self) -> None:
        if self._busy:
            raise GroupError(f"{self.name}: one sync at a time, and none in a hook")
        self._busy = True
        if self._synced_s is not None:
            self._gaps = self._gaps.seen(self.cluster.now_s() - self._synced_s)

    def leave(self) -> None:
        self._busy = False
        self._synced_s = self.cluster.now_s()

    def _settle(self) -> Procedure[None]:
        while True:
            wish = yield from self.wish()
            yield from self.turn(wish)
            left_s = self.shortage_left_s()
            if left_s == float("inf"):
                return
            yield from self.pause(left_s)

    def pause(self, left_s: float) -> Procedure[None]:
        """Wait until something of this group moves, for a moment at most; raise TooFewMembers in the end."""
        if left_s <= 0:
            settings, waiting = self.settings, self.roster.waiting
            # Who bears it and tries again gets the whole time again.
            self._shortage = Shortage(settings.timeout_s)
            raise TooFewMembers(
                f"{self.name}: {len(self.world)} members, fewer than {max(1, settings.min_size)}, for "
                f"{settings.timeout_s:g} s; {waiting} × {dict(settings.recipe.bundle)} wait for room"
            )
        yield partial(self.cluster.pause, self.roster.watch(), timeout_s=min(POLL_S, left_s))

    def shortage_left_s(self, least: int = 0) -> float:
        """Return how long it is still borne that there are so few; infinity if there are enough."""
        now_s, size = self.cluster.now_s(), len(self.world)
        enough = size >= max(least, self.settings.min_size)
        self._shortage = self._shortage.seen(now_s, enough=enough)
        return self._shortage.left_s(now_s)

    def wish(self) -> Procedure[int]:
        """Return how many would help, within the limits."""
        wanted, settings = self._wanted, self.settings
        if isinstance(wanted, Throughput):
            number = self._growth.target(len(self.world), min_size=settings.min_size)
        elif callable(wanted):
            returned = yield Hook(partial(wanted, self._group))
            found = whole(returned)
            if found is None:
                raise TypeError(f"{self.name}: target returned {returned!r}, which is no whole number")
            number = found
        else:
            number = settings.max_size if wanted is None else operator.index(wanted)
        self.target = clamp(number, min_size=settings.min_size, max_size=settings.max_size)
        self._meter.show("target", self.target)
        return self.target

    def turn(self, limit: int, unwanted: frozenset[str] = frozenset()) -> Procedure[None]:
        """One look at the cluster and what follows from it, for at most `limit` members."""
        yield from self.roster.turn(limit, unwanted, step_s=self._gaps.longest_s)
        yield from self._check_restarts()
        if change := self.roster.commit():
            self._changes.append(change)
            self._pace = Pace(spoiled=True)
        self._meter.show("size", len(self.world))

    def _check_restarts(self) -> Procedure[None]:
        if not self.roster.restarts.too_many(self.cluster.now_s()):
            return
        alive = yield self.cluster.alive
        self.roster.restarts = restarts = self.roster.restarts.forgiven(alive)
        if restarts.too_many(self.cluster.now_s()):
            raise TooManyRestarts(
                f"{self.name}: more than {restarts.limit} failures in {restarts.window_s:g} s, "
                f"the last: {restarts.last}"
            )

    @property
    def unheard(self) -> bool:
        """Whether something has changed of which the hooks have not heard."""
        return len(self._changes) > self._hooked

    def hooks(self) -> Procedure[None]:
        """Call the hooks for what has changed since they were called last, and while they ran."""
        while self.unheard:
            changes, self._hooked = self._changes[self._hooked :], len(self._changes)
            for hook in _hooks(self.settings, changes, self.world):
                yield Hook(hook)

    def report(self) -> Change:
        """Return what changed since the last report."""
        changes, self._changes, self._hooked = self._changes, [], 0
        return Change(
            self.world,
            tuple(member for change in changes for member in change.joined),
            tuple(left for change in changes for left in change.left),
        )

    # --- Work ------------------------------------------------------------------------------

    def mapping(
        self,
        method: str,
        items: Sequence[Any],
        *,
        on_failure: Failure | str,
        timeout_s: float | None,
        amount: float | None,
    ) -> Procedure[list[Any]]:
        self.check_open()
        amount = len(items) if amount is None else _amount(amount)
        job = mapping.Job(method, items, Failure(on_failure), timeout_s, self.refilling)
        task = mapping.Mapping(self.roster, job)
        begun_s = self.cluster.now_s()
        try:
            results = yield from task.run()
        finally:
            self._meter.add("lost_work_s", task.lost_work_s)
        self._note_work(method, amount, self.cluster.now_s() - begun_s, clean=task.lost_work_s == 0)
        return results

    def calling(
        self, method: str, args: tuple[Any, ...], *, timeout_s: float | None, amount: float | None
    ) -> Procedure[list[Any]]:
        self.check_open()
        amount = None if amount is None else _amount(amount)
        begun_s = self.cluster.now_s()
        try:
            results: list[Any] = yield from mapping.call_all(self.roster, method, args, timeout_s=timeout_s)
        except MemberLost:
            # What all have done together counts for nothing.
            self._meter.add("lost_work_s", (self.cluster.now_s() - begun_s) * len(self.world))
            raise
        if amount is not None:
            self._note_work(method, amount, self.cluster.now_s() - begun_s, clean=True)
        return results

    def _note_work(self, method: str, amount: float, seconds: float, *, clean: bool) -> None:
        """Count a step, and what was done in it."""
        self.steps += 1
        self._meter.add("steps", 1)
        wanted = self._wanted
        if isinstance(wanted, Throughput) and wanted.method in (None, method):
            self._pace = self._pace.worked(amount, seconds, clean=clean)

    def measure(self) -> None:
        """Take what was done since the last sync as a measurement of the present size."""
        pace, self._pace = self._pace, Pace()
        rate = pace.per_s
        if rate is not None and len(self.world):
            cost = sum(self.roster.cost_of(one) for one in self.world)
            self._growth = self._growth.measured(len(self.world), items_per_s=rate, cost=cost)


def _amount(amount: float) -> float:
    if not 0 <= amount < float("inf"):
        raise ValueError(f"amount is {amount}: it must be 0 or more, and finite")
    return amount


def _growth(wanted: Target) -> Growth:
    return Growth(wanted.gain if isinstance(wanted, Throughput) else 1.0)


def _cost_of(wanted: Target) -> Callable[[Member], float]:
    """Return what a member costs; the function raises ValueError for what is no cost."""
    told = wanted.cost if isinstance(wanted, Throughput) else None
    if told is None:
        return lambda _: 1.0

    def cost(member: Member) -> float:
        amount = float(told(member))
        if not 0 <= amount < float("inf"):
            raise ValueError(f"cost of {member.id} is {amount:g}: it must be 0 or more, and finite")
        return amount

    return cost


def _hooks(settings: Settings, changes: list[Change], world: World) -> list[Callable[[], Any]]:
    calls: list[Callable[[], Any]] = []
    for change in changes:
        if settings.on_leave is not None:
            calls += [partial(settings.on_leave, one.member, one.reason) for one in change.left]
        if settings.on_join is not None:
            calls += [partial(settings.on_join, member) for member in change.joined]
    if changes and settings.on_resize is not None:
        calls.append(partial(settings.on_resize, world))
    return calls
