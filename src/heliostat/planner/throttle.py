"""Which of the new nodes go out in this round: the soft limits, which delay but never divert."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from heliostat.model.plan import Limiter, Why
from heliostat.planner.limits import FIRST_TRY, SPEED_FLOOR
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement

_ORDER = {Why.MIN_WORKERS: 0, Why.ADDED_BY_HAND: 0, Why.GANG: 1}


@dataclass(frozen=True)
class Withheld:
    """A new node that waits for a later round."""

    new: New
    limiter: Limiter
    text: str


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
        return Throttled((), tuple(Withheld(one, Limiter.PAUSED, text) for one in settlement.new))
    gate = _Gate(scene)
    launched: list[New] = []
    withheld: list[Withheld] = []
    for batch in _batches(settlement):
        stop = gate.check(batch)
        if stop is None:
            gate.pass_through(batch)
            launched += batch
        else:
            withheld += [Withheld(one, *stop) for one in batch]
    return _whole_gangs(settlement, launched, withheld)


class _Gate:
    """Counts what is on its way per type, with what this round lets through."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._coming = Counter(one.node_type for one in scene.coming)
        self._running = Counter(one.node_type for one in scene.running)

    def pass_through(self, batch: list[New]) -> None:
        self._coming.update(one.shape.name for one in batch)

    def check(self, batch: list[New]) -> tuple[Limiter, str] | None:
        for name, count in sorted(Counter(one.shape.name for one in batch).items()):
            stop = self._untried(name, count, gang=batch[0].why is Why.GANG)
            if stop is None and batch[0].why in {Why.DEMAND, Why.CONSTRAINT}:
                stop = self._speed(name, count)
            if stop is not None:
                return stop
        return None

    def _untried(self, name: str, count: int, *, gang: bool) -> tuple[Limiter, str] | None:
        if name in self._scene.history.succeeded or self._running[name]:
            return None
        # A gang can't be tried in part: it goes out whole, when nothing else of the type is out.
        if self._coming[name] + count <= FIRST_TRY or (gang and not self._coming[name]):
            return None
        text = f"{name} never came up yet: {FIRST_TRY} at a time until the first one joins"
        return (Limiter.FIRST_SUCCESS, text)

    def _speed(self, name: str, count: int) -> tuple[Limiter, str] | None:
        speed = self._scene.policy.upscaling_speed
        most = max(SPEED_FLOOR, int(speed * self._running[name]))
        if speed <= 0 or self._coming[name] + count <= most:
            return None
        text = f"{self._coming[name]} of {name} are on their way, at most {most} at once (upscaling_speed)"
        return (Limiter.UPSCALING_SPEED, text)


def _batches(settlement: Settlement) -> list[list[New]]:
    """Return single nodes, and gangs' nodes together, in the order in which they may go."""
    batches: dict[str, list[New]] = {}
    for one in settlement.new:
        batches.setdefault(one.key if one.why is Why.GANG else one.member, []).append(one)
    return sorted(batches.values(), key=lambda batch: _ORDER.get(batch[0].why, 2))


def _whole_gangs(settlement: Settlement, launched: list[New], withheld: list[Withheld]) -> Throttled:
    """Hold back what was meant for a gang that another gang's withheld node was to complete."""
    keys = {gang.wants[0].key for gang in settlement.wants.gangs}
    while True:
        broken = {
            use.want.key: one
            for one in withheld
            for use in settlement.uses.get(one.new.member, ())
            if use.want.key in keys
        }
        drop = {one.member: broken[one.key] for one in launched if one.key in broken}
        if not drop:
            return Throttled(tuple(launched), tuple(withheld))
        withheld += [
            Withheld(one, drop[one.member].limiter, drop[one.member].text)
            for one in launched
            if one.member in drop
        ]
        launched = [one for one in launched if one.member not in drop]
