"""What stands between a controller and the world: a dead one's calls do nothing, and faults strike here.

Each port is wrapped once. A call says what it is in the trace, is seen by the witness, and may go wrong
in any of the ways of `faults.CALLS` before or after the world has heard of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Change,
    DrainReason,
    LaunchRequest,
    Offer,
    OfferQuery,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import Cluster, DrainReply, RoundReport
from heliostat.ports.errors import (
    ClusterError,
    ClusterUnreachable,
    InsufficientCapacity,
    ProviderError,
    QuotaExceeded,
    Unavailable,
)
from heliostat.ports.provider import Outcome, Provider
from heliostat.sim.faults import Mischief
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.process import Process
from heliostat.sim.trace import Trace
from heliostat.sim.witness import Drained, Witness, lies_of

T = TypeVar("T")

GCS_DEADLINE_S = 3.0
"""As `raylink.channel.CALL_DEADLINE_S`."""

LATE_REQUEST_S = (1.0, 14.0)
"""A request is late, and what came of it in a listing that is behind (`Scenario.lag_s`, 5 s at most), by less
than twice the message timeout (`Timing.message_timeout_s`): later than that nobody can know of it."""

LATE_REPLY_S = (1.0, 150.0)
"""Beyond `Timing.apply_deadline_s`, so that some are cut off."""

STALE_S = 12.0
"""A stale listing is up to so old."""

LEFT_ALONE_S = 30.0
"""A backend that was asked too often wants to be left alone for so long."""

OUTAGE_S = 1.0
"""A backend that is away makes its caller wait so long before it says so."""


def changes_of(backend: str) -> str:
    """Return the name of a backend's ear for changes, in `away`."""
    return f"changes of {backend}"


@dataclass(frozen=True)
class Surroundings:
    """What every membrane needs. `away` holds who answers nobody now: backends, `changes_of` one, «ray».

    `arrive` lets drivers submit more work.
    """

    loop: VirtualLoop
    process: Process
    mischief: Mischief
    witness: Witness
    trace: Trace
    away: set[str]
    arrive: Callable[[], None] = lambda: None

    def enters(self, port: str, call: str, *words: object) -> None:
        """Begin a call: of a dead process it ends here."""
        self.process.check()
        self.witness.called(f"{port}.{call}", self.loop.time())
        self.trace.add(port, call, *words)

    def strikes(self, kind: str, whose: str) -> bool:
        struck = self.mischief.strikes(kind)
        if struck:
            self.trace.add("fault", kind, whose)
            self.witness.troubled(whose, self.loop.time())
        return struck

    def dies(self, kind: str) -> None:
        """Let the process die here and now, if the dice say so."""
        if self.strikes(kind, "controller"):
            self.process.kill()
            self.process.check()


class ProviderMembrane:
    """`ports.provider.Provider` as the controller sees it. `another` makes one more client of the backend."""

    def __init__(self, inner: Provider, around: Surroundings, another: Callable[[], Provider]) -> None:
        self._inner = inner
        self._around = around
        self._another = another
        self._past: deque[tuple[float, Sequence[BackendInstance]]] = deque()

    @property
    def name(self) -> str:
        return self._inner.name

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        self._around.enters(self.name, "offers")
        await self._before()
        return await self._after(await self._inner.offers(queries))

    async def apply(self, change: Change) -> Outcome:
        self._around.enters(self.name, "apply", *_words(change))
        answer: Outcome | ProviderError
        under_way = {key for one in change.launch for key in one.instance_ids}
        self._around.witness.under_way |= under_way
        self._around.witness.sent(change)
        try:
            answer = await self._asked(change)
        except ProviderError as error:
            answer = error
        finally:
            self._around.witness.under_way -= under_way
        self._around.process.check()
        self._around.witness.heard(self.name, change, answer, self._around.loop.time())
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    async def _asked(self, change: Change) -> Outcome:
        if self._around.strikes("late request", self.name):
            self._deliver_late(change)
            raise Unavailable(f"{self.name} did not answer")
        await self._before()
        if changes_of(self.name) in self._around.away:
            self._around.witness.troubled(self.name, self._around.loop.time())
            raise Unavailable(f"{self.name} takes no changes now")
        if self._around.strikes("rate limit", self.name):
            raise QuotaExceeded(f"{self.name} was asked too often", retry_after_s=LEFT_ALONE_S)
        change, refused = self._parted(change)
        outcome = await self._applied(change)
        self._around.dies("crash between call and reply")
        outcome = replace(outcome, failed_instances={**outcome.failed_instances, **refused})
        self._around.witness.refused += len(outcome.failed_instances) + len(outcome.failed_launches)
        return await self._after(outcome)

    async def instances(self) -> Sequence[BackendInstance]:
        self._around.enters(self.name, "instances")
        began_s = self._around.loop.time()
        await self._before()
        rows = await self._after(await self._inner.instances())
        now_s = self._around.loop.time()
        self._past.append((now_s, rows))
        while self._past[0][0] < now_s - STALE_S:
            self._past.popleft()
        told = self._lied(rows)
        if self._around.witness.troubled_at_s.get(lies_of(self.name)) != now_s:
            self._around.witness.listed(self.name, began_s, now_s)
        return told

    # -- what goes wrong ---------------------------------------------------------------

    async def _before(self) -> None:
        around = self._around
        if self.name in around.away:
            around.witness.troubled(self.name, around.loop.time())
            await asyncio.sleep(OUTAGE_S)
            raise Unavailable(f"{self.name} can't be reached")
        if around.strikes("lost request", self.name):
            raise Unavailable(f"{self.name} can't be reached")
        if around.strikes("hung call", self.name):
            with around.witness.waiting(self.name):
                await around.loop.create_future()

    async def _after(self, answer: T) -> T:
        around = self._around
        if around.strikes("lost reply", self.name):
            raise Unavailable(f"{self.name} did not answer")
        if around.strikes("late reply", self.name):
            with around.witness.waiting(self.name):
                await asyncio.sleep(around.mischief.draw("late reply").uniform(*LATE_REPLY_S))
            around.witness.troubled(self.name, around.loop.time())
        return answer

    def _deliver_late(self, change: Change) -> None:
        around = self._around
        delay_s = around.mischief.draw("late request").uniform(*LATE_REQUEST_S)
        around.loop.apart(delay_s, lambda: around.loop.task_apart(self._by_another(change)))

    async def _by_another(self, change: Change) -> None:
        """Carry a change out through a client of its own, whatever becomes of the controller."""
        around = self._around
        around.trace.add(self.name, "gets", *_words(change))
        around.witness.asked(self.name, change, around.loop.time())
        try:
            await self._another().apply(change)
        except ProviderError as error:
            around.trace.add(self.name, "refuses", error)

    async def _applied(self, change: Change) -> Outcome:
        around = self._around
        around.witness.asked(self.name, change, around.loop.time())
        if around.strikes("duplicate", self.name):
            around.loop.task_apart(self._by_another(change))
        return await self._inner.apply(change)

    def _parted(self, change: Change) -> tuple[Change, Mapping[str, ProviderError]]:
        """Take members away from launches that are not a gang's; return what is left, and their refusals."""
        refused: dict[str, ProviderError] = {}
        launches: list[LaunchRequest] = []
        for request in change.launch:
            count, around = request.count, self._around
            # A gang's is all or none at any backend.
            if count > 1 and not request.together and around.strikes("partial launch", self.name):
                count = around.mischief.draw("partial launch").randrange(count)
                error = InsufficientCapacity(f"{self.name} has no machine left")
                refused.update(dict.fromkeys(request.instance_ids[count:], error))
            if count:
                launches.append(replace(request, count=count))
        return replace(change, launch=tuple(launches)), refused

    def _lied(self, rows: Sequence[BackendInstance]) -> Sequence[BackendInstance]:
        around = self._around
        if around.strikes("stale listing", self.name):
            around.witness.troubled(lies_of(self.name), around.loop.time())
            return around.mischief.draw("stale listing").choice(self._past)[1]
        if rows and around.strikes("missing rows", self.name):
            around.witness.troubled(lies_of(self.name), around.loop.time())
            chance = around.mischief.draw("missing rows")
            return [row for row in rows if chance.random() < 0.5]
        if rows and around.strikes("doubled rows", self.name):
            return [*rows, around.mischief.draw("doubled rows").choice(list(rows))]
        if around.strikes("foreign row", self.name):
            number = around.mischief.draw("foreign row").randrange(3)
            kind = rows[0].node_type if rows else "elsewhere"
            row = BackendInstance(f"other{number}.0", f"other-{number}", kind, BackendState.RUNNING)
            return [*rows, row]
        return rows


class ClusterMembrane:
    """`ports.cluster.Cluster` as the controller sees it."""

    def __init__(self, inner: Cluster, around: Surroundings) -> None:
        self._inner = inner
        self._around = around

    async def connect(self) -> None:
        await self._call("connect", self._inner.connect)

    async def state(self) -> RayState:
        return await self._call("state", self._inner.state)

    async def drain(
        self, node_id: str, *, reason: DrainReason, message: str, deadline_s: float | None
    ) -> DrainReply:
        around = self._around

        async def ask() -> DrainReply:
            if reason is DrainReason.IDLE and around.strikes("work at a drain", "drivers"):
                around.arrive()
            reply = await self._inner.drain(node_id, reason=reason, message=message, deadline_s=deadline_s)
            now_s = around.loop.time()
            around.witness.drained(node_id, Drained(now_s, reason, reply.accepted, deadline_s))
            around.trace.add("ray", "says", node_id[:8], "yes" if reply.accepted else f"no: {reply.message}")
            around.dies("crash between drain and reply")
            if around.strikes("lost drain reply", "ray"):
                raise _silent()
            return reply

        return await self._call("drain", ask, node_id[:8], reason.value)

    async def report(self, report: RoundReport) -> None:
        await self._call("report", lambda: self._inner.report(report))

    async def report_config(self, policy: Policy, head_type: NodeType) -> None:
        await self._call("report_config", lambda: self._inner.report_config(policy, head_type))

    async def heartbeat(self) -> None:
        await self._call("heartbeat", self._inner.heartbeat)

    async def drivers(self) -> int:
        return await self._call("drivers", self._inner.drivers)

    async def forget(self, instance_ids: Sequence[str]) -> None:
        await self._call("forget", lambda: self._inner.forget(instance_ids), *instance_ids)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _call(self, name: str, act: Callable[[], Awaitable[T]], *words: object) -> T:
        around = self._around
        around.enters("ray", name, *words)
        if "ray" in around.away:
            around.witness.troubled("ray", around.loop.time())
            await asyncio.sleep(GCS_DEADLINE_S)
            raise _silent()
        slow_s = 0.0
        if around.strikes("slow gcs", "ray"):
            slow_s = around.mischief.draw("slow gcs").uniform(0.1, 2 * GCS_DEADLINE_S)
        try:
            found = await act()
        except ClusterError:
            around.witness.troubled("ray", around.loop.time())
            raise
        if slow_s:
            await asyncio.sleep(min(slow_s, GCS_DEADLINE_S))
            around.witness.troubled("ray", around.loop.time())
        if slow_s > GCS_DEADLINE_S:
            raise _silent()
        return found


def _silent() -> ClusterUnreachable:
    return ClusterUnreachable(f"the GCS did not answer within {GCS_DEADLINE_S:.0f} s")


def _words(change: Change) -> list[str]:
    words = [f"+{one.launch_id}×{one.count} {one.node_type.name}" for one in change.launch]
    return words + [f"-{one}" for one in change.terminate] + [f"free {one}" for one in change.unthrottle]
