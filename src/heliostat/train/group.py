"""The group that users hold: a `with` block, `sync` between steps, `map` and `call` for the steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from heliostat.train.cluster import Cluster
from heliostat.train.engine import Engine
from heliostat.train.options import Options, parse
from heliostat.train.procedure import run, run_async
from heliostat.train.target import Target
from heliostat.train.types import Change, Failure, Member, World


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
        """Keep what is wanted, and ask the cluster for nothing yet.

        `actor_class` is a plain class, or one that `ray.remote` has wrapped. Raises TypeError for an unknown
        option and ValueError for what can't be.
        """
        settings = parse(actor_class, options, bundle=bundle, sizes=(min_size, max_size), args=args)
        cluster = options.get("cluster") or _ray_cluster()
        self.engine = Engine(settings, cluster, self)

    # --- What is so ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def world(self) -> World:
        """Who is in the group. It changes in `sync` only (and in a `map` that has lost everybody)."""
        return self.engine.world

    @property
    def members(self) -> tuple[Member, ...]:
        return self.engine.world.members

    @property
    def target(self) -> int:
        """How many were wanted at the last `sync`, within the limits."""
        return self.engine.target

    @target.setter
    def target(self, wanted: Target) -> None:
        """Want another number from the next `sync` on: a number, None, a function, or `Throughput(…)`.

        Raises ValueError for anything else.
        """
        self.engine.want(wanted)

    @property
    def steps(self) -> int:
        """How many `map`, and `call` with an `amount`, have returned their results."""
        return self.engine.steps

    @property
    def waiting(self) -> int:
        """How many bundles are asked for and have no place yet."""
        return self.engine.roster.waiting

    def __len__(self) -> int:
        return len(self.engine.world)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.engine.world)

    def __bool__(self) -> bool:
        """Be true even without members: it is not a list."""
        return True

    # --- The block -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Wait for `min_size` members; raise TooFewMembers, and leave nothing, if they don't come in time."""
        self.engine.begin()
        try:
            run(self.engine.opening())
        except BaseException:
            self.engine.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every actor, and remove every placement group."""
        self.engine.end()

    async def __aenter__(self) -> Self:
        self.engine.begin()
        try:
            await run_async(self.engine.opening())
        except BaseException:
            self.engine.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.engine.end)

    # --- Steps -----------------------------------------------------------------------------

    def sync(self) -> Change:
        """Bring the group up to date between two steps, and return what changed since the last time.

        Adds members that have come up, buries the dead and asks for their successors, lets go who sits on a
        node that drains or is not wanted any more, and calls the hooks. Waits for nothing but `leaving` (at
        most `leave_timeout_s`), unless there are fewer than `min_size`: then it waits for those.

        Raises TooFewMembers, TooManyRestarts, or GroupClosed.
        """
        return run(self.engine.syncing())

    async def async_sync(self) -> Change:
        """Do what `sync` does, without blocking the event loop. Hooks may be async."""
        return await run_async(self.engine.syncing())

    def map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        on_failure: Failure | str = Failure.RETRY,
        timeout_s: float | None = None,
        amount: float | None = None,
    ) -> list[Any]:
        """Call a method with each item, each on one member, and return the results in the order of items.

        The first items go to the ranks in order, the others to whoever is free. Each item's result counts
        once. `on_failure` (a `Failure`, or "retry", "drop", "raise"; anything else is a ValueError) says
        what becomes of the item of a member that is lost; with `RETRY`, one that has
        cost three members raises MemberLost, and when nobody is left, the map waits for successors. Who has
        not answered when the whole map has taken `timeout_s` counts as lost, and what is not done by then is
        dropped, or raises MemberLost. What the method itself raises is raised as Ray gives it.

        `amount` is the work in all of it, in any unit, for the target `Throughput`; the number of items where
        it is None. It must be told where a fixed batch is cut into as many items as there are members.
        """
        return run(
            self.engine.mapping(
                method, list(items), on_failure=on_failure, timeout_s=timeout_s, amount=amount
            )
        )

    async def async_map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        on_failure: Failure | str = Failure.RETRY,
        timeout_s: float | None = None,
        amount: float | None = None,
    ) -> list[Any]:
        """Do what `map` does, without blocking the event loop."""
        return await run_async(
            self.engine.mapping(
                method, list(items), on_failure=on_failure, timeout_s=timeout_s, amount=amount
            )
        )

    def call(
        self, method: str, *args: Any, timeout_s: float | None = None, amount: float | None = None
    ) -> list[Any]:
        """Call a method with the same arguments on every member, and return the results by rank.

        Raises MemberLost as soon as one is lost. What is large is best given as `ray.put(…)`: it then
        travels to each node once.

        With `amount`, it is a step: the work that all have done together, in any unit, for `Throughput`.
        """
        return run(self.engine.calling(method, args, timeout_s=timeout_s, amount=amount))

    async def async_call(
        self, method: str, *args: Any, timeout_s: float | None = None, amount: float | None = None
    ) -> list[Any]:
        """Do what `call` does, without blocking the event loop."""
        return await run_async(self.engine.calling(method, args, timeout_s=timeout_s, amount=amount))


def _ray_cluster() -> Cluster:
    from heliostat.train.ray_cluster import RayCluster

    return RayCluster()
