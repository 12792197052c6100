"""Which of the new nodes go out in this round: the soft limits, which delay but never divert."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from heliostat.model.instance import InstanceState
from heliostat.model.plan import Limiter, Why
from heliostat.planner.breaker import breaker_text
from heliostat.planner.limits import ENDLESS, FIRST_TRY, SPEED_FLOOR
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement

_ORDER = {Why.MIN_WORKERS: 0, Why.ADDED_BY_HAND: 0, Why.GANG: 1, Why.REPLACEMENT: 3}
_BY_SPEED = frozenset({Why.DEMAND, Why.CONSTRAINT, Why.REPLACEMENT})


@dataclass(frozen=True)
class Stop:
    """How many of a batch go out now, and what holds back the others; `have` of at most `most` are out."""

    passing: int
    limiter: Limiter
    text: str
    have: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Withheld:
    """New nodes that wait for a later round."""

    new: New
    stop: Stop


@dataclass(frozen=True)
class Throttled:
    launched: tuple[New, ...]
    withheld: tuple[Withheld, ...]


def throttle(scene: Scene, settlement: Settlement) -> Throttled:
    """Split new nodes into those that go out now and those that wait; floors first, then gangs.

    A gang's nodes go out together or not at all.
    """
    if scene.operator.paused:
        text = "the cluster is paused; `heliostat pause --off` lets it decide again"
        stop = Stop(0, Limiter.PAUSED, text)
        return Throttled((), tuple(Withheld(one, stop) for one in settlement.new))
    gate = _Gate(scene)
    launched: list[New] = []
    withheld: list[Withheld] = []
    for batch in _batches(settlement):
        stop = gate.check(batch)
        through, held = _cut(batch, stop.passing)
        launched += through
        withheld += [Withheld(one, stop) for one in held]
    return _whole_gangs(settlement, launched, withheld)


def _cut(batch: list[New], count: int) -> tuple[list[New], list[New]]:
    """Return the first `count` nodes of a batch, and the others."""
    through: list[New] = []
    for index, one in enumerate(batch):
        if one.count > count:
            first, rest = one.cut(count)
            return ([*through, first] if count else through), [rest, *batch[index + 1 :]]
        through.append(one)
        count -= one.count
    return through, []


class _Gate:
    """Counts what is on its way per type, with what this round lets through."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._coming = Counter(one.node_type for one in scene.coming)
        self._running = scene.snapshot.counts[InstanceState.RUNNING]
        self._probes = Counter(scene.probes)

    def check(self, batch: list[New]) -> Stop:
        """Return what the tightest limit lets through of a batch, and count that as on its way."""
        counts: Counter[str] = Counter()
        for one in batch:
            counts[one.shape.name] += one.count
        is_gang = batch[0].why is Why.GANG
        stops = [self._untried(name, count, gang=is_gang) for name, count in sorted(counts.items())]
        half_open = self._scene.half_open
        stops += [self._half_open(name) for name in sorted(counts) if self._backend(name) in half_open]
        if batch[0].why in _BY_SPEED:
            stops.append(self._speed(batch[0].shape.name))
        stop = min(stops, key=lambda one: one.passing)
        if is_gang and stop.passing < max(counts.values()):
            return replace(stop, passing=0)
        passing = counts.total() if is_gang else min(counts.total(), max(0, stop.passing))
        for one in _cut(batch, passing)[0]:
            self._coming[one.shape.name] += one.count
            self._probes[self._backend(one.shape.name)] += one.count
        return replace(stop, passing=passing)

    def _untried(self, name: str, count: int, *, gang: bool) -> Stop:
        text = f"{name} never came up yet: {FIRST_TRY} at a time until the first one joins"
        node_type = self._scene.types[name]
        tried = self._scene.history.has_come_up(name, node_type.shape_id)
        # Its backend itself lets the first few go before the others, which keep their place in its queue.
        tried = tried or (not gang and node_type.throttles)
        # A gang can't be tried in part: it goes out whole, when nothing else of the type is out.
        out = self._coming[name] - (self._queueing[name] if node_type.throttles else 0)
        whole = gang and (out <= 0 or out + count <= FIRST_TRY)
        free = ENDLESS if tried or whole else FIRST_TRY - self._coming[name]
        passing = 0 if gang and free < ENDLESS else free
        return Stop(passing, Limiter.FIRST_SUCCESS, text, self._coming[name], FIRST_TRY)

    @cached_property
    def _queueing(self) -> Counter[str]:
        """Count per type what queues and is no gang's.

        It is not tried yet, and may not be for hours: a gang's own place in the queue is not to wait for it.
        But what queues as one starts as one, so of gangs that nobody has tried one queues at a time.
        """
        queued = (one for one in self._scene.coming if one.state is InstanceState.QUEUED)
        return Counter(one.node_type for one in queued if one.row is None or one.row.allocation_id is None)

    def _backend(self, name: str) -> str:
        return self._scene.types[name].backend

    def _half_open(self, name: str) -> Stop:
        """Return how many a backend takes that lets one through, whatever its type."""
        backend = self._backend(name)
        text = breaker_text(backend, self._scene.half_open[backend], self._scene.now_s)
        return Stop(1 - self._probes[backend], Limiter.BREAKER, text, self._probes[backend], 1)

    def _speed(self, name: str) -> Stop:
        speed, coming = self._scene.policy.upscaling_speed, self._coming[name]
        most = max(SPEED_FLOOR, int(speed * self._running[name]))
        text = f"{coming} of {name} are on their way already, at most {most} at once (upscaling_speed)"
        free = most - coming if speed > 0 else ENDLESS
        return Stop(free, Limiter.UPSCALING_SPEED, text, coming, most)


def _batches(settlement: Settlement) -> list[list[New]]:
    """Return new nodes by type and cause, each gang's together, in the order in which they may go."""
    batches: dict[tuple[Why, str], list[New]] = {}
    for one in settlement.new:
        key = one.key if one.why is Why.GANG else one.shape.name
        batches.setdefault((one.why, key), []).append(one)
    return sorted(batches.values(), key=lambda batch: _ORDER.get(batch[0].why, 2))


def _whole_gangs(settlement: Settlement, launched: list[New], withheld: list[Withheld]) -> Throttled:
    """Hold back what was meant for a gang that another gang's withheld node was to complete.

    What a floor asks for goes out all the same: else it would wait for the gang, and the gang of a type
    that never came up for it.
    """
    keys = {gang.wants[0].key for gang in settlement.wants.gangs}
    while True:
        broken = {use.want.key: one for one in withheld for use in one.new.uses if use.want.key in keys}
        drop = {one.members: broken[one.key] for one in launched if one.why is Why.GANG and one.key in broken}
        if not drop:
            return Throttled(tuple(launched), tuple(withheld))
        withheld += [Withheld(one, drop[one.members].stop) for one in launched if one.members in drop]
        launched = [one for one in launched if one.members not in drop]
