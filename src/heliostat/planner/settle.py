"""Pack all wants onto supply and new nodes, over and over until the packing agrees with itself.

The last pass packs onto supply plus everything that is to be launched, just as the next
round will. What it does not use is dropped, so that no round launches what the next one
would find needless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from heliostat.model.demand import Bundle
from heliostat.model.plan import Why
from heliostat.planner.choose import Choice, Chooser, Unmet, fits
from heliostat.planner.ledger import Ledger, Room
from heliostat.planner.limits import GANG_TRIES, PASSES
from heliostat.planner.pool import Pool, Use, copies_in, preference
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape, living, room, shapes, totals
from heliostat.planner.wants import GangWant, Want, Wants, wants_of


@dataclass(frozen=True)
class New:
    """One node to be launched: its name in the pools, and what brought it."""

    member: str
    shape: Shape
    why: Why
    key: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Short:
    """A floor that limits do not let us reach."""

    shape: Shape
    count: int
    room: Room


Uses = Mapping[str, tuple[Use, ...]]


@dataclass(frozen=True)
class Settlement:
    """What goes where, what is to be launched for it, and what has no place.

    `uses` and `constraint_uses` map a member (an instance id, `node/<id>` of a foreign
    node, a new node's name) to what was placed on it.
    """

    wants: Wants
    shapes: tuple[Shape, ...]
    new: tuple[New, ...] = ()
    uses: Uses = field(default_factory=dict)
    constraint_uses: Uses = field(default_factory=dict)
    unmet: tuple[Unmet, ...] = ()
    constraint_unmet: tuple[Unmet, ...] = ()
    gangs_unmet: tuple[tuple[GangWant, tuple[Room, ...]], ...] = ()
    short: tuple[Short, ...] = ()
    impossible: tuple[Want, ...] = ()
    constraint_impossible: tuple[Want, ...] = ()
    gangs_impossible: tuple[tuple[GangWant, Want], ...] = ()

    def used(self, member: str) -> bool:
        return member in self.uses or member in self.constraint_uses


def settle(scene: Scene) -> Settlement:
    """Return where everything goes. Without wants only floors are looked at."""
    wants = wants_of(scene)
    kinds = shapes(scene, wants.lens)
    new, short = _floors(scene, kinds)
    if not wants:
        return Settlement(wants, kinds, tuple(new), short=tuple(short))
    possible, gone = _sifted(scene, wants, kinds)
    attempt = _Attempt(scene, possible, shapes=kinds, new=new)
    for _ in range(PASSES):
        if not attempt.run():
            break
        attempt = _Attempt(scene, possible, shapes=kinds, new=attempt.new)
    return attempt.settlement(gone, tuple(short))


class _Attempt:
    """One pass of packing; `new` grows by what it finds missing."""

    def __init__(self, scene: Scene, wants: Wants, *, shapes: tuple[Shape, ...], new: Sequence[New]) -> None:
        self.scene = scene
        self.wants = wants
        self.shapes = shapes
        self.new = list(new)
        self.ledger = Ledger(scene, (one.shape.name for one in new))
        self.pool = room(scene, wants.lens)
        _put(self.pool, new)
        self.kept = Pool()
        self.unmet: list[Unmet] = []
        self.constraint_unmet: list[Unmet] = []
        self.gangs_unmet: list[tuple[GangWant, tuple[Room, ...]]] = []

    def run(self) -> bool:
        """Pack once; say whether more nodes turned out to be needed."""
        before = len(self.new)
        for gang in self.wants.gangs:
            self._gang(gang)
        self.unmet = self._grow(self.pool, self.pool.place_all(self.wants.demands), Why.DEMAND)
        if self.wants.constraint:
            self._constraint()
        return len(self.new) > before

    def _gang(self, gang: GangWant) -> None:
        """Place the whole gang, or leave everything as it was."""
        pool, ledger, new = self.pool.copy(), self.ledger.copy(), list(self.new)
        left = pool.place_all(gang.wants)
        rooms: tuple[Room, ...] = ()
        for _ in range(GANG_TRIES):
            if not left:
                break
            choices, unmet = Chooser(self.shapes, ledger).choose(left)
            if unmet:
                rooms = unmet[0].rooms
                break
            added = _named(choices, len(new), Why.GANG)
            new += added
            _put(pool, added)
            left = pool.place_all(left)
        if left:
            self.gangs_unmet.append((gang, rooms))
        else:
            self.pool, self.ledger, self.new = pool, ledger, new

    def _grow(self, pool: Pool, left: Sequence[Want], why: Why) -> list[Unmet]:
        if not left:
            return []
        choices, unmet = Chooser(self.shapes, self.ledger).choose(left)
        added = _named(choices, len(self.new), why)
        self.new += added
        _put(pool, added)
        pool.place_all(left)
        return unmet

    def _constraint(self) -> None:
        used = frozenset(_by_member(self.pool.uses))
        self.kept = totals(self.scene, self.wants.lens, used)
        _put(self.kept, sorted(self.new, key=lambda one: one.member not in used))
        left = self.kept.place_all(self.wants.constraint)
        self.constraint_unmet = self._grow(self.kept, left, Why.CONSTRAINT)

    def settlement(self, gone: Settlement, short: tuple[Short, ...]) -> Settlement:
        uses, kept = _by_member(self.pool.uses), _by_member(self.kept.uses)
        keys = frozenset(gang.wants[0].key for gang in self.wants.gangs)
        renamed = (_after_use(one, uses, kept, keys) for one in self.new)
        new = [one for one in renamed if one is not None]
        return Settlement(
            wants=self.wants,
            shapes=self.shapes,
            new=tuple(new),
            uses=uses,
            constraint_uses=kept,
            unmet=tuple(self.unmet),
            constraint_unmet=tuple(self.constraint_unmet),
            gangs_unmet=tuple(self.gangs_unmet),
            short=short,
            impossible=gone.impossible,
            constraint_impossible=gone.constraint_impossible,
            gangs_impossible=gone.gangs_impossible,
        )


def _after_use(one: New, uses: Uses, kept: Uses, gangs: frozenset[str]) -> New | None:
    """Return the node with what needs it in the last pass, whatever first brought it; None if nothing."""
    if one.why is Why.MIN_WORKERS or one.why is Why.ADDED_BY_HAND:
        return one
    found = uses.get(one.member, ())
    for use in found:
        if use.want.key in gangs:
            return replace(one, why=Why.GANG, key=use.want.key)
    if found:
        return one if one.why is Why.DEMAND else replace(one, why=Why.DEMAND, key=found[0].want.key)
    return replace(one, why=Why.CONSTRAINT) if one.member in kept else None


def _floors(scene: Scene, kinds: Iterable[Shape]) -> tuple[list[New], list[Short]]:
    """Bring every type up to its minimum first: what comes anyway is room for demand."""
    ledger = Ledger(scene)
    new: list[New] = []
    short: list[Short] = []
    for shape in kinds:
        lack = scene.floor(shape.node_type) - staying(scene, shape.name)
        if lack <= 0:
            continue
        count = min(lack, ledger.room(shape.node_type).count)
        by_hand = scene.floor(shape.node_type) > shape.node_type.min_workers
        why = Why.ADDED_BY_HAND if by_hand else Why.MIN_WORKERS
        new += [New(_name(shape, len(new) + index), shape, why) for index in range(count)]
        ledger.add(shape.name, count)
        if count < lack:
            short.append(Short(shape, lack - count, ledger.room(shape.node_type)))
    return new, short


def staying(scene: Scene, node_type: str) -> int:
    """Return how many of a type are there or on their way, and not as good as gone."""
    here = [*scene.staying_running, *(one for one in scene.staying_coming if not scene.leaving(one))]
    return sum(1 for one in here if one.node_type == node_type)


def _sifted(scene: Scene, wants: Wants, kinds: Sequence[Shape]) -> tuple[Wants, Settlement]:
    """Take out what can never be placed, so that it costs nothing and stands in nobody's way."""
    verdicts: dict[Bundle, bool] = {}

    def possible(bundle: Bundle) -> bool:
        if bundle not in verdicts:
            verdicts[bundle] = any(fits(shape, bundle) for shape in kinds) or _fits_a_node(
                scene, wants, bundle
            )
        return verdicts[bundle]

    bad = {
        gang.gang.gang_id: want for gang in wants.gangs for want in gang.wants if not possible(want.bundle)
    }
    gone = Settlement(
        wants,
        tuple(kinds),
        impossible=tuple(want for want in wants.demands if not possible(want.bundle)),
        constraint_impossible=tuple(want for want in wants.constraint if not possible(want.bundle)),
        gangs_impossible=tuple(
            (one, bad[one.gang.gang_id]) for one in wants.gangs if one.gang.gang_id in bad
        ),
    )
    left = Wants(
        gangs=tuple(one for one in wants.gangs if one.gang.gang_id not in bad),
        demands=tuple(want for want in wants.demands if possible(want.bundle)),
        constraint=tuple(want for want in wants.constraint if possible(want.bundle)),
    )
    return left, gone


def _fits_a_node(scene: Scene, wants: Wants, bundle: Bundle) -> bool:
    """Say whether a node that is there could hold the bundle when empty; so it may only wait."""
    return any(
        copies_in(node.total, bundle) and preference(bundle, wants.lens.labels(node.labels)) is not None
        for _, node in living(scene)
    )


def _named(choices: Iterable[Choice], start: int, why: Why) -> list[New]:
    added: list[New] = []
    for choice in choices:
        for _ in range(choice.count):
            name = _name(choice.shape, start + len(added))
            added.append(New(name, choice.shape, why, choice.want.key, choice.others))
    return added


def _name(shape: Shape, index: int) -> str:
    return f"{shape.name}+{index:06d}"


def _put(pool: Pool, new: Iterable[New]) -> None:
    groups: dict[str, list[str]] = {}
    found: dict[str, Shape] = {}
    for one in new:
        groups.setdefault(one.shape.name, []).append(one.member)
        found[one.shape.name] = one.shape
    for name, members in groups.items():
        pool.add(found[name].spot, members)


def _by_member(uses: Iterable[Use]) -> dict[str, tuple[Use, ...]]:
    found: dict[str, list[Use]] = {}
    for use in uses:
        for member in use.members:
            found.setdefault(member, []).append(use)
    return {member: tuple(several) for member, several in found.items()}
