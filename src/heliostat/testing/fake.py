"""A provider in memory, with faults on demand and a clock that the test moves.

It keeps the port's contract to the letter (`ProviderConformance` runs against it), so a
test of the control loop may trust it. Instances age by the injected clock alone:
QUEUED for `queue_s`, STARTING for `boot_s`, then RUNNING; STOPPING for `stop_s`, then gone.
With a `lease_s` they end by themselves so long after they left the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Change,
    LaunchRequest,
    Offer,
    OfferQuery,
)
from heliostat.model.node_type import NodeType
from heliostat.ports.clock import Clock
from heliostat.ports.errors import InsufficientCapacity, ProviderError
from heliostat.ports.provider import Outcome

Call = Literal["offers", "apply", "instances", "launch", "terminate"]

OVER = frozenset({BackendState.ENDED, BackendState.FAILED})


@dataclass
class Fault:
    """One thing that goes wrong.

    `call` is the provider's method that raises `error`, or, for `launch` and `terminate`,
    the single ask inside `apply` that is reported as failed in its `Outcome`. `error`
    None hangs the call until it is cancelled. The first `skip` matching calls pass, the
    next `times` (None: all) fail. `acted` True means that the work was done and only the
    reply was lost. A `launch` fault may be narrowed to one `node_type` and to the members
    `indexes`; those members alone then fail.
    """

    call: Call
    error: ProviderError | None = None
    times: int | None = 1
    skip: int = 0
    acted: bool = False
    node_type: str | None = None
    indexes: tuple[int, ...] | None = None

    def strikes(self) -> bool:
        """Count one matching call and say whether it fails."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


@dataclass
class FakeInstance:
    """What the fake backend knows of one instance; `joined` and `over` are set by hooks."""

    request: LaunchRequest
    instance_id: str
    native_id: str
    owner: str
    launched_s: float
    joined: bool = False
    held: bool = False
    stopping_s: float | None = None
    over: BackendState | None = None
    detail: str | None = None
    log: list[str] = field(default_factory=list)


@dataclass
class FakeWorld:
    """The backend behind a `FakeProvider`; a provider made anew with it sees what was there."""

    instances: dict[str, FakeInstance] = field(default_factory=dict)
    made: int = 0
    shown: dict[str, FakeInstance] | None = None

    def lag(self) -> None:
        """List what is there now, whatever is done, until `catch_up()`."""
        self.shown = {key: replace(one) for key, one in self.instances.items()}

    def catch_up(self) -> None:
        self.shown = None


class FakeProvider:
    """See the module. `capacity` is how many instances fit: in all, or per node type (None: no limit).

    For tests to look at: `changes` (every `Change` received), `listings` (how many
    listings were answered), `world`. `on_running` is called once for each instance when a
    call first finds it RUNNING, for instance to put a node into a fake Ray.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        clock: Clock,
        boot_s: float = 1.0,
        capacity: int | Mapping[str, int] | None = None,
        faults: Sequence[Fault] = (),
        world: FakeWorld | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self.boot_s = boot_s
        self.queue_s = 0.0
        self.stop_s = 0.0
        self.lease_s: float | None = None
        self.owner = "cluster"
        self.capacity = capacity
        self.faults = list(faults)
        self.world = world or FakeWorld()
        self.changes: list[Change] = []
        self.listings = 0
        self.closed = False
        self.on_running: Callable[[BackendInstance], None] | None = None
        self._announced: set[str] = set()
        self._terminated: set[str] = set()

    # The port.

    @property
    def name(self) -> str:
        return self._name

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        await self._strike("offers", acted=False)
        ready_at_s = self._clock.now_s() + self.queue_s + self.boot_s
        return tuple(self._offer(query, ready_at_s) for query in queries)

    async def apply(self, change: Change) -> Outcome:
        self.changes.append(change)
        await self._strike("apply", acted=False)
        outcome = self._applied(change)
        await self._strike("apply", acted=True)
        return outcome

    async def instances(self) -> Sequence[BackendInstance]:
        await self._strike("instances", acted=False)
        self.listings += 1
        self._age()
        rows = tuple(self._row(one) for one in self._ours(self.world.shown))
        for row in rows:
            self._announce(row)
        return rows

    async def aclose(self) -> None:
        self.closed = True

    async def last_words(self, instance_id: str, *, lines: int = 20) -> Sequence[str]:
        found = self.world.instances.get(instance_id)
        return tuple(found.log[-lines:]) if found and lines > 0 else ()

    # Hooks: what happens to an instance without anyone asking.

    def join(self, instance_id: str) -> None:
        """Let the instance be RUNNING from now on, however long `boot_s` is."""
        self._existing(instance_id).joined = True

    def end(self, instance_id: str, *, detail: str = "ended by itself") -> None:
        """Let the instance end by itself, without a fault: listed as ENDED until terminated."""
        self._over(instance_id, BackendState.ENDED, detail)

    def fail(self, instance_id: str, *, detail: str = "exit code 1") -> None:
        """Let the instance fail: listed as FAILED, with `detail`, until terminated."""
        self._over(instance_id, BackendState.FAILED, detail)

    def lose(self, instance_id: str) -> None:
        """Let the instance vanish from the backend, as a machine that burnt down."""
        del self.world.instances[self._existing(instance_id).instance_id]

    # Inside.

    def _existing(self, instance_id: str) -> FakeInstance:
        return self.world.instances[instance_id]

    def _over(self, instance_id: str, state: BackendState, detail: str) -> None:
        found = self._existing(instance_id)
        found.over, found.detail = state, detail
        found.log.append(detail)

    def _ours(self, shown: Mapping[str, FakeInstance] | None = None) -> list[FakeInstance]:
        there = self.world.instances if shown is None else shown
        return [one for one in there.values() if one.owner == self.owner]

    async def _strike(self, call: Call, *, acted: bool) -> None:
        await asyncio.sleep(0)  # As on a network, where others come in between.
        for fault in self.faults:
            if fault.call == call and fault.acted is acted and fault.strikes():
                if fault.error is None:
                    await asyncio.get_running_loop().create_future()
                    raise AssertionError("a hanging call is only ever cancelled")
                raise fault.error

    def _applied(self, change: Change) -> Outcome:
        self._age()
        launches: dict[str, ProviderError] = {}
        members: dict[str, ProviderError] = {}
        terminations: dict[str, ProviderError] = {}
        for instance_id in change.terminate:
            fault = self._fault("terminate")
            if fault is None or fault.acted:
                self._terminate(instance_id)
            if fault is not None and fault.error is not None:
                terminations[instance_id] = fault.error
        for found in self._ours():
            found.held = found.held and found.request.node_type.name not in change.unthrottle
        for request in change.launch:
            failed = self._launch(request)
            if len(failed) == request.count and len(set(map(id, failed.values()))) == 1:
                launches[request.launch_id] = failed[request.instance_ids[0]]
            else:
                members.update(failed)
        return Outcome(launches, members, terminations)

    def _fault(self, call: Call, node_type: str | None = None) -> Fault | None:
        """Return the first fault of a single ask that strikes now."""
        for fault in self.faults:
            fits = fault.call == call and fault.node_type in (None, node_type)
            if fits and fault.strikes():
                return fault
        return None

    def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        """Start the members that are not there yet; return those that could not be."""
        fault = self._fault("launch", request.node_type.name)
        failed: dict[str, ProviderError] = {}
        full, left = self._full(request.node_type), self._left(request.node_type)
        new = [one for one in request.instance_ids if one not in self.world.instances]
        if request.together and left is not None and left < len(new):
            return dict.fromkeys(new, full)
        for index, instance_id in enumerate(request.instance_ids):
            struck = fault is not None and (fault.indexes is None or index in fault.indexes)
            if fault is not None and fault.error is not None and struck:
                failed[instance_id] = fault.error
            if instance_id in self.world.instances or (fault and struck and not fault.acted):
                continue
            if self._left(request.node_type) == 0:
                failed[instance_id] = full
            else:
                self._create(request, instance_id)
        return failed

    def _create(self, request: LaunchRequest, instance_id: str) -> None:
        self.world.made += 1
        native_id = f"{self._name}-{self.world.made}"
        index = request.instance_ids.index(instance_id)
        self.world.instances[instance_id] = FakeInstance(
            request,
            instance_id,
            native_id,
            self.owner,
            self._clock.now_s(),
            held=request.at_once is not None and index >= request.at_once,
        )

    def _terminate(self, instance_id: str) -> None:
        self._terminated.add(instance_id)
        found = self.world.instances.get(instance_id)
        if found is None or found.owner != self.owner:
            return
        if found.over or self.stop_s <= 0:
            del self.world.instances[instance_id]
        elif found.stopping_s is None:
            found.stopping_s = self._clock.now_s()

    def _age(self) -> None:
        now_s = self._clock.now_s()
        for found in self._ours():
            if found.stopping_s is not None and now_s >= found.stopping_s + self.stop_s:
                del self.world.instances[found.instance_id]

    def _state(self, found: FakeInstance) -> BackendState:
        age_s = self._clock.now_s() - found.launched_s
        if found.over:
            return found.over
        if found.stopping_s is not None or found.instance_id in self._terminated:
            return BackendState.STOPPING
        if self.lease_s is not None and age_s >= self.queue_s + self.lease_s:
            return BackendState.ENDED
        if found.held:
            return BackendState.QUEUED
        if found.joined or age_s >= self.queue_s + self.boot_s:
            return BackendState.RUNNING
        return BackendState.QUEUED if age_s < self.queue_s else BackendState.STARTING

    def _row(self, found: FakeInstance) -> BackendInstance:
        state = self._state(found)
        begun = state is not BackendState.QUEUED
        started_s = found.launched_s + self.queue_s
        return BackendInstance(
            found.instance_id,
            found.native_id,
            found.request.node_type.name,
            state,
            shape_id=found.request.node_type.shape_id,
            detail=found.detail,
            slot=found.native_id,
            expected_start_s=None if begun else started_s,
            started_at_s=started_s if begun else None,
            expires_at_s=started_s + self.lease_s if begun and self.lease_s is not None else None,
            throttled=found.held,
        )

    def _announce(self, row: BackendInstance) -> None:
        if row.state is BackendState.RUNNING and row.instance_id not in self._announced:
            self._announced.add(row.instance_id)
            if self.on_running is not None:
                self.on_running(row)

    def _left(self, node_type: NodeType) -> int | None:
        if self.capacity is None:
            return None
        holding = [one for one in self.world.instances.values() if one.over is None]
        if isinstance(self.capacity, int):
            return max(0, self.capacity - len(holding))
        limit = self.capacity.get(node_type.name)
        taken = sum(one.request.node_type.name == node_type.name for one in holding)
        return None if limit is None else max(0, limit - taken)

    def _full(self, node_type: NodeType) -> InsufficientCapacity:
        return InsufficientCapacity(f"{self._name} has no machine left for {node_type.name}")

    def _offer(self, query: OfferQuery, ready_at_s: float) -> Offer:
        self._age()
        node_type, left = query.node_type, self._left(query.node_type)
        whole = Offer(
            node_type.name,
            query.count,
            ready_at_s=ready_at_s,
            price_usd_per_h=node_type.price_usd_per_h or None,
            lease_s=self.lease_s,
        )
        if left is None or left >= query.count:
            return whole
        return replace(whole, count=left, why=str(self._full(node_type)))
