"""Pack all wants onto supply and new nodes, over and over until the packing agrees with itself.

The last pass packs onto supply plus everything that is to be launched, just as the next
round will. What it does not use is dropped, so that no round launches what the next one
would find needless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from heliostat.model.demand import Bundle
from heliostat.model.plan import Why
from heliostat.planner.choose import Choice, Chooser, Unmet, fits
from heliostat.planner.ledger import Ledger, Room
from heliostat.planner.limits import PASSES
from heliostat.planner.pool import Pool, holds_empty, preference
from heliostat.planner.rows import Uses
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape, living, room, shapes, totals
from heliostat.planner.wants import GangWant, Lens, Want, Wants, wants_of


@dataclass(frozen=True)
class New:
    """One node to be launched: its name in the pools, and what brought it."""

    member: str
    shape: Shape
    why: Why
    key: str = ""


@dataclass(frozen=True)
class Short:
    """A floor that limits do not let us reach."""

    shape: Shape
    count: int
    room: Room


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
    attempt = _Attempt(scene, possible, shapes=kinds, new=new, lens=wants.lens)
    for _ in range(PASSES):
        if not attempt.run():
            break
        attempt = _Attempt(scene, possible, shapes=kinds, new=attempt.new, lens=wants.lens)
    return attempt.settlement(gone, tuple(short))


class _Attempt:
    """One pass of packing; `new` grows by what it finds missing."""

    def __init__(
        self, scene: Scene, wants: Wants, *, shapes: tuple[Shape, ...], new: Sequence[New], lens: Lens
    ) -> None:
        self.scene = scene
        self.wants = wants
        self.lens = lens
        self.shapes = shapes
        self.new = list(new)
        self.ledger = Ledger(scene, (one.shape.name for one in new))
        self.chooser = Chooser(shapes, lens)
        self.pool = room(scene, lens)
        _put(self.pool, new)
        self.kept: Uses = {}
        self.unmet: list[Unmet] = []
        self.constraint_unmet: list[Unmet] = []
        self.gangs_unmet: list[tuple[GangWant, tuple[Room, ...]]] = []

    def run(self) -> bool:
        """Pack once; say whether the next pass may find that more is needed."""
        before = len(self.new)
        for gang in self.wants.gangs:
            self._gang(gang)
        self.unmet, again = self._place(self.pool, self.wants.demands, Why.DEMAND)
        if self.wants.constraint:
            again |= self._constraint()
        return len(self.new) > before and (again or bool(self.wants.gangs))

    def _gang(self, gang: GangWant) -> None:
        """Place the whole gang, or leave everything as it was."""
        pool = self.pool.copy()
        left = pool.place_gang(gang)
        if not left:
            self.pool = pool
            return
        choices, unmet = self.chooser.choose(left, self.ledger)
        if unmet:
            self.gangs_unmet.append((gang, unmet[0].rooms))
            return
        self.pool = pool
        self._add(pool, choices, Why.GANG)

    def _place(self, pool: Pool, wants: Sequence[Want], why: Why) -> tuple[list[Unmet], bool]:
        """Place wants on what is there, on what comes, and on new nodes; return what has no place.

        Also say whether new nodes were added beside others that come: the next pass may see it otherwise.
        """
        left = pool.place_here(wants)
        coming = pool.empty_coming()
        if left and coming:
            left = self._on_the_way(pool, left, coming)
        left = pool.place_all(left)
        if not left:
            return [], False
        choices, unmet = self.chooser.choose(left, self.ledger)
        self._add(pool, choices, why)
        return unmet, bool(coming) or why is Why.CONSTRAINT

    def _on_the_way(self, pool: Pool, left: Sequence[Want], coming: Mapping[str, int]) -> list[Want]:
        """Place wants on what comes, in the way for which it was asked.

        The choice is made anew as if nothing came. While the wants are the same it is the same choice, so
        that what comes is just what it takes. Otherwise what comes is filled as well as may be.
        """
        choices, _ = self.chooser.choose(left, self.ledger.copy(without=coming), coming)
        asked: Counter[str] = Counter()
        for choice in choices:
            asked[choice.shape.name] += choice.count
        if any(asked[name] > coming[name] for name in asked):
            trial = pool.copy()
            if not trial.place_all(left):
                return list(left)
        counts = {want: want.count for want in left}
        free = Counter(coming)
        for choice in choices:
            nodes = min(choice.count, free[choice.shape.name])
            free[choice.shape.name] -= nodes
            pool.assign(choice.shape.name, nodes, choice.contents)
            for want, copies in choice.contents:
                counts[want] -= nodes * copies
        return [replace(want, count=count) for want, count in counts.items() if count > 0]

    def _add(self, pool: Pool, choices: Sequence[Choice], why: Why) -> None:
        for choice in choices:
            first = len(self.new)
            name = choice.shape.name
            added = [
                New(_name(choice.shape, first + index), choice.shape, why, choice.want.key)
                for index in range(choice.count)
            ]
            self.new += added
            self.ledger.add(name, choice.count)
            pool.add_holding(choice.shape.spot, [one.member for one in added], choice.contents)

    def _constraint(self) -> bool:
        used = frozenset(self.pool.uses())
        pool = totals(self.scene, self.lens, used)
        _put(pool, sorted(self.new, key=lambda one: one.member not in used))
        self.constraint_unmet, again = self._place(pool, self.wants.constraint, Why.CONSTRAINT)
        self.kept = pool.uses()
        return again

    def settlement(self, gone: Settlement, short: tuple[Short, ...]) -> Settlement:
        uses, kept = self.pool.uses(), self.kept
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
    return scene.staying_counts[node_type]


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
        holds_empty(bundle, node.total.by_name)
        and preference(bundle, wants.lens.labels(node.labels)) is not None
        for _, node in living(scene)
    )


def _name(shape: Shape, index: int) -> str:
    return f"{shape.name}+{index:06d}"


def _put(pool: Pool, new: Iterable[New]) -> None:
    groups: dict[str, list[str]] = {}
    found: dict[str, Shape] = {}
    for one in new:
        groups.setdefault(one.shape.name, []).append(one.member)
        found[one.shape.name] = one.shape
    for name, members in groups.items():
        pool.add({found[name].spot: members})
