"""Several groups on one cluster, each with a role: they divide it by weights and minimums.

`share.divide` says who gets what; here a group that has more than its share gives back between two steps,
and nobody asks for more than its share until those who lack something have it. Beyond that, each asks for
all that it could use, so that an autoscaler brings it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from heliostat.train.cluster import Room
from heliostat.train.engine import Engine
from heliostat.train.group import ElasticGroup
from heliostat.train.procedure import Procedure, run, run_async
from heliostat.train.share import Claim, Share, divide
from heliostat.train.types import Change

SETTLE_S = 30.0
"""How long the others hold back for one that lacks its share. Ray places within seconds, if it can."""
AGAIN_S = 600.0
"""When they do so again for one that could not be placed by then."""
CONFIRM_S = 1.0
"""A member is given back only for what has been lacking so long. Ray's figures of what is free come late."""


LOOK_S = 0.5
"""How old the figure of what there is to divide may be: it takes Ray some milliseconds to tell."""


@dataclass(frozen=True)
class Part:
    """What a role may have in this turn."""

    limit: int
    unwanted: frozenset[str] = frozenset()
    """Seats to give up first: others have a use for just these places."""


@dataclass(frozen=True)
class Lack:
    """A role that has less than its share."""

    since_s: float
    shared_s: float | None = None
    """Since when the others have given back for it, and held back; None before they have."""


@dataclass(frozen=True)
class GivenUp:
    """A role for which the others held back in vain; it holds until one of these is another."""

    at_s: float
    placed: int
    nodes: frozenset[str]


class Roles(Mapping[str, ElasticGroup]):
    """`Roles(trainer=group, generator=group2)`: a mapping of the groups by role.

    As a `with` block it opens the groups that are not open yet, all together, and closes those again. Their
    `min_size` and `weight` count. Then `roles.sync()` takes the place of each group's own.
    """

    def __init__(self, **groups: ElasticGroup) -> None:
        if not groups:
            raise ValueError("no group is given")
        names = [one.name for one in groups.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"groups need names of their own, and these are {', '.join(sorted(names))}")
        self._groups = groups
        self._opened: list[Engine] = []
        self._lacks: dict[str, Lack] = {}
        self._given_up: dict[str, GivenUp] = {}
        self._turned_s = float("-inf")
        """When all have taken their last turn: what is known of their places is of then."""
        self._rooms: list[Room] = []
        self._looked_s = float("-inf")

    def __getitem__(self, role: str) -> ElasticGroup:
        return self._groups[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    # --- The block -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Wait until each group has its `min_size`.

        Raises TooFewMembers if one has it not in time, and leaves nothing then.
        """
        try:
            run(self._opening())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    async def __aenter__(self) -> Self:
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

    def sync(self) -> dict[str, Change]:
        """Do for all groups what `sync` does for one, but divide the cluster first; return each one's change.

        Raises what a group's own `sync` would.
        """
        return run(self._sync())

    async def async_sync(self) -> dict[str, Change]:
        """Do what `sync` does, without blocking the event loop."""
        return await run_async(self._sync())

    # --- How -------------------------------------------------------------------------------

    @property
    def _engines(self) -> list[Engine]:
        return [one.engine for one in self._groups.values()]

    def _opening(self) -> Procedure[None]:
        for engine in self._engines:
            if engine.state == "new":
                engine.begin()
                self._opened.append(engine)
                yield from engine.roster.open()
            else:
                engine.check_open()
        yield from self._settled()

    def _end(self) -> None:
        # Each is ended, whatever comes of ending another.
        with ExitStack() as stack:
            for engine in self._opened:
                stack.callback(engine.end)
        self._opened.clear()

    def _sync(self) -> Procedure[dict[str, Change]]:
        for engine in self._engines:
            engine.check_open()
            engine.measure()
        yield from self._settled()
        return {role: group.engine.report() for role, group in self._groups.items()}

    def _settled(self) -> Procedure[None]:
        entered: list[Engine] = []
        try:
            for engine in self._engines:
                engine.enter()
                entered.append(engine)
            yield from self._settle()
            # A hook may map with a group whose own hooks are through, and lose everybody there.
            while any(engine.unheard for engine in self._engines):
                for engine in self._engines:
                    yield from engine.hooks()
        finally:
            for engine in entered:
                engine.leave()

    def _settle(self) -> Procedure[None]:
        while True:
            parts = yield from self._parts()
            # Who has too much gives back before anyone asks.
            for engine in sorted(self._engines, key=lambda one: parts[one.name].limit - one.roster.placed):
                part = parts[engine.name]
                yield from engine.turn(part.limit, part.unwanted)
            self._turned_s = self._now_s()
            left_s = {engine.name: engine.shortage_left_s() for engine in self._engines}
            shortest = min(self._engines, key=lambda one: left_s[one.name])
            if left_s[shortest.name] == float("inf"):
                return
            yield from shortest.pause(left_s[shortest.name])

    def _parts(self) -> Procedure[dict[str, Part]]:
        """Return what each may have now: its target, unless somebody lacks what is due to it."""
        wishes: dict[str, int] = {}
        for engine in self._engines:
            wishes[engine.name] = yield from engine.wish()
        free_to_ask = {name: Part(wish) for name, wish in wishes.items()}
        if all(engine.roster.placed >= wishes[engine.name] for engine in self._engines):
            self._lacks, self._given_up = {}, {}
            return free_to_ask
        rooms = yield from self._whole()
        share = self._share(rooms, wishes)
        counts = {name: sum(places.values()) for name, places in share.items()}
        if not self._lacks:
            return free_to_ask
        # Who could not be placed waits for what comes, and nobody waits for it.
        parts = {name: free_to_ask[name] for name in self._given_up}
        others = [one for one in self._engines if one.name not in parts]
        if self._now_s() - min(one.since_s for one in self._lacks.values()) < CONFIRM_S:
            return parts | {one.name: Part(max(counts[one.name], one.roster.placed)) for one in others}
        self._share_is_applied()
        return parts | {one.name: Part(counts[one.name], _unwanted(one, share)) for one in others}

    def _share(self, rooms: list[Room], wishes: Mapping[str, int]) -> Share:
        """Divide the rooms, and note who lacks something then; who could not be placed gets what it has."""
        nodes = frozenset(room.node_id for room in rooms)
        self._given_up = {name: one for name, one in self._given_up.items() if self._stands(name, one, nodes)}
        while True:
            share = divide(rooms, [_claim(one, self._useful(wishes)) for one in self._engines])
            lacking = [one for one in self._engines if one.roster.placed < sum(share[one.name].values())]
            now_s = self._now_s()
            self._lacks = {one.name: self._lacks.get(one.name, Lack(now_s)) for one in lacking}
            late = [one for one in lacking if self._is_late(self._lacks[one.name])]
            if not late:
                return share
            for one in late:
                self._given_up[one.name] = GivenUp(now_s, one.roster.placed, nodes)

    def _useful(self, wishes: Mapping[str, int]) -> dict[str, int]:
        return dict(wishes) | {name: min(wishes[name], one.placed) for name, one in self._given_up.items()}

    def _stands(self, name: str, given_up: GivenUp, nodes: frozenset[str]) -> bool:
        """Tell whether it is still in vain to hold back for a role."""
        placed = next(one.roster.placed for one in self._engines if one.name == name)
        fresh = self._now_s() - given_up.at_s < AGAIN_S
        return fresh and (given_up.placed, given_up.nodes) == (placed, nodes)

    def _is_late(self, lack: Lack) -> bool:
        # Not by the time now: after a long step, nobody has looked yet whether it was placed meanwhile.
        return lack.shared_s is not None and self._turned_s - lack.shared_s >= SETTLE_S

    def _share_is_applied(self) -> None:
        now_s = self._now_s()
        for name, one in self._lacks.items():
            self._lacks[name] = Lack(one.since_s, now_s if one.shared_s is None else one.shared_s)

    def _whole(self) -> Procedure[list[Room]]:
        """Return the rooms as if our groups held nothing: that is what is divided."""
        now_s = self._now_s()
        if now_s - self._looked_s >= LOOK_S:
            rooms: tuple[Room, ...] = yield self._engines[0].cluster.rooms
            self._rooms = [_without_groups(room, self._engines) for room in rooms]
            self._looked_s = now_s
        return self._rooms

    def _now_s(self) -> float:
        return self._engines[0].cluster.now_s()


def _claim(engine: Engine, wishes: Mapping[str, int]) -> Claim:
    settings = engine.settings
    return Claim(
        name=engine.name,
        bundle=settings.recipe.bundle,
        want=wishes[engine.name],
        min_size=settings.min_size,
        weight=settings.weight,
        held=engine.roster.held(),
        label_selector=settings.recipe.label_selector,
    )


def _without_groups(room: Room, engines: list[Engine]) -> Room:
    free = dict(room.free)
    for engine in engines:
        for name, amount in engine.settings.recipe.bundle.items():
            free[name] = free.get(name, 0.0) + amount * engine.roster.held().get(room.node_id, 0)
    return Room(room.node_id, free, room.labels)


def _unwanted(engine: Engine, share: Share) -> frozenset[str]:
    """Return the seats on nodes where a group has more than it keeps, the newest first of each."""
    surplus = {node: held - share[engine.name].get(node, 0) for node, held in engine.roster.held().items()}
    return frozenset(
        seat_id
        for node, count in surplus.items()
        if count > 0
        for seat_id in engine.roster.newest(node, count)
    )
