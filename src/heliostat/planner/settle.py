"""Pack all wants onto supply and new nodes, over and over until the packing agrees with itself.

The last pass packs onto supply plus everything that is to be launched, just as the next
round will. What it does not use is dropped, so that no round launches what the next one
would find needless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from itertools import chain

from heliostat.model.plan import Why
from heliostat.planner.choose import Choice, Chooser, Unmet
from heliostat.planner.ledger import Ledger, Room
from heliostat.planner.limits import PASSES
from heliostat.planner.pool import Pool
from heliostat.planner.rows import Spot, Use, Uses
from heliostat.planner.scene import Scene
from heliostat.planner.sift import Types, backends_of, sifted
from heliostat.planner.supply import Shape, room, shapes, totals
from heliostat.planner.wants import GangWant, Lens, Want, Wants, wants_of

_ALL_HERE = (0, 0, 0.0)
"""How a packing stands that needs nothing but what is here."""


@dataclass(frozen=True)
class New:
    """Nodes to be launched that are alike: their names in the pools, what brought them, what each is to hold.

    `uses` is waiting work, `kept` what `request_resources` asks to keep there.
    """

    members: tuple[str, ...]
    shape: Shape
    why: Why
    key: str = ""
    uses: tuple[Use, ...] = ()
    kept: tuple[Use, ...] = ()

    @property
    def count(self) -> int:
        return len(self.members)

    def cut(self, count: int) -> tuple[New, New]:
        """Return the first `count` of them, and the others."""
        return (replace(self, members=self.members[:count]), replace(self, members=self.members[count:]))


@dataclass(frozen=True)
class Short:
    """A floor that limits do not let us reach."""

    shape: Shape
    count: int
    room: Room


@dataclass(frozen=True)
class Settlement:
    """What goes where, what is to be launched for it, and what has no place.

    `uses` and `constraint_uses` map a member (an instance id, `node/<id>` of a foreign node) to what
    was placed on it. `held_for` maps one to the gang that would lie there, but for what a backend does not
    launch for it just now, and to what stops that.
    """

    wants: Wants
    shapes: tuple[Shape, ...]
    new: tuple[New, ...] = ()
    uses: Uses = field(default_factory=dict)
    constraint_uses: Uses = field(default_factory=dict)
    unmet: tuple[Unmet, ...] = ()
    constraint_unmet: tuple[Unmet, ...] = ()
    gangs_unmet: tuple[tuple[GangWant, tuple[Room, ...]], ...] = ()
    held_for: Mapping[str, tuple[GangWant, Room]] = field(default_factory=dict)
    short: tuple[Short, ...] = ()
    impossible: tuple[Want, ...] = ()
    constraint_impossible: tuple[Want, ...] = ()
    gangs_impossible: tuple[tuple[GangWant, Want, Types], ...] = ()

    def used(self, member: str) -> bool:
        return member in self.uses or member in self.constraint_uses


def settle(scene: Scene) -> Settlement:
    """Return where everything goes. Without wants only floors are looked at."""
    wants = wants_of(scene)
    kinds = shapes(scene, wants.lens)
    floors, short = _floors(scene, kinds)
    if not wants:
        return Settlement(wants, kinds, floors, short=short)
    possible, never = sifted(scene, wants, kinds)
    gone = Settlement(
        wants,
        kinds,
        impossible=never.demands,
        constraint_impossible=never.constraint,
        gangs_impossible=never.gangs,
    )
    new = {one.shape.name: list(one.members) for one in floors}
    lens = wants.lens
    given = _Given(scene, possible, lens, kinds, room(scene, lens), Chooser(scene, kinds, lens))
    packed = _packed(_Attempt(given, new, Way.APART))
    for way in packed.others():
        packed = min(packed, _packed(_Attempt(given, new, way)), key=_Attempt.standing)
    return packed.settlement(gone, floors, short)


class Way(Enum):
    """How gangs and other work share what comes. Of several ways the one that needs least is taken."""

    APART = "gangs keep to what was asked for on their account"
    MIXED = "gangs take what comes first, be it asked for on the account of other work"
    ANEW = "as APART, and what runs and is empty may be for other work than that which comes by first"


def _packed(attempt: _Attempt) -> _Attempt:
    """Pack until a pass finds that nothing more is needed; return that pass."""
    for _ in range(PASSES - 1):
        if not attempt.run():
            return attempt
        attempt = attempt.next()
    # The last pass counts whatever it finds: what it still adds, the next round will see.
    attempt.run()
    return attempt


@dataclass(frozen=True)
class _Trial:
    """One way to place a gang: the pool with what is there used, and what has to be added to it."""

    pool: Pool
    choices: tuple[Choice, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    standing: tuple[float, int] = (float("-inf"), 0)
    weight: float = 0.0


@dataclass(frozen=True)
class _Given:
    """What is the same for all passes: what is wanted, what may be launched, and what is there or comes."""

    scene: Scene
    wants: Wants
    lens: Lens
    shapes: Sequence[Shape]
    there: Mapping[Spot, Sequence[str]]
    chooser: Chooser


class _Attempt:
    """One pass of packing; `new` grows by what it finds missing."""

    def __init__(self, given: _Given, new: Mapping[str, Sequence[str]], way: Way) -> None:
        self.given = given
        self.way = way
        self.scene, self.wants, self.shapes = given.scene, given.wants, given.shapes
        self.chooser = given.chooser
        self.new = {shape.name: list(new.get(shape.name, ())) for shape in self.shapes}
        self.ledger = Ledger(self.scene)
        for name, members in self.new.items():
            self.ledger.add(name, len(members))
        self.pool = Pool(given.lens, given.there, anew=way is Way.ANEW)
        self._put(self.pool)
        self.kept: Pool | None = None
        self.unmet: list[Unmet] = []
        self.constraint_unmet: list[Unmet] = []
        self.gangs_unmet: list[tuple[GangWant, tuple[Room, ...]]] = []

    def next(self) -> _Attempt:
        """Return the next pass, for which what this one found missing is there."""
        return _Attempt(self.given, self.new, self.way)

    def others(self) -> Iterator[Way]:
        """Return the other ways of packing that may need less than this one."""
        if self.wants.gangs and self.standing() > _ALL_HERE:
            yield Way.MIXED
        if 0 < sum(map(len, self.new.values())) <= self.pool.whole_running():
            yield Way.ANEW

    def standing(self) -> tuple[int, int, float]:
        """Return how much has no place (gangs, bundles), and what those nodes cost that come and are used."""
        unmet = sum(one.want.count for one in (*self.unmet, *self.constraint_unmet))
        uses = dict.fromkeys(chain(self.pool.coming_in_use(), self.kept.coming_in_use() if self.kept else ()))
        costs = self.chooser.costs
        return len(self.gangs_unmet), unmet, sum(costs[node_type] for _, node_type in uses)

    def run(self) -> bool:
        """Pack once; say whether the next pass may find that more is needed."""
        before = self.ledger.added.total()
        for gang in self.wants.gangs:
            self._gang(gang)
        self.unmet, again = self._place(self.pool, self.wants.demands)
        if self.wants.endings:
            unmet, more = self._place(self.pool, self.wants.endings)
            self.unmet += unmet
            again |= more
        if self.wants.constraint:
            again |= self._constraint()
        return self.ledger.added.total() > before and (again or bool(self.wants.gangs))

    def _gang(self, gang: GangWant) -> None:
        """Place the whole gang, or leave everything as it was."""
        hedged = self.chooser.patience.hedged(gang.wants, self.ledger)
        avoided = frozenset[str]().union(*(want.avoids for want in hedged))
        impatient = replace(gang, wants=tuple(hedged), wish=self._hedged_as(gang.wish, hedged))
        best, found = self._best(impatient)
        if avoided and (best is None or any(choice.shape.name in avoided for choice in best.choices)):
            # What would be in time is taken by others, so it is what queues, not one more in the same queue.
            best, found = self._best(gang)
        if best is not None:
            self.pool = best.pool
            self._add(self.pool, best.choices)
            if any(want.late for want in hedged) and self.pool.waits(hedged[0].key):
                self.pool.hedge(hedged)
        else:
            rooms = (room for one in found for room in one.unmet[0].rooms)
            self.gangs_unmet.append((gang, tuple(dict.fromkeys(rooms))))

    def _best(self, gang: GangWant) -> tuple[_Trial | None, list[_Trial]]:
        """Return the best way to place the whole gang, None where there is none, and all that were tried.

        Of several backends, the one that suits it best at the lowest cost; then in the file's order.
        """
        found = [self._try(gang, types) for types in self._within_of(gang)]
        whole = [one for one in found if not one.unmet]
        return min(whole, key=lambda one: (one.standing, one.weight), default=None), found

    def _hedged_as(self, wish: Sequence[Want], hedged: Sequence[Want]) -> tuple[Want, ...]:
        avoids = frozenset[str]().union(*(want.avoids for want in hedged))
        return tuple(replace(want, avoids=avoids) for want in wish) if avoids else tuple(wish)

    def _within_of(self, gang: GangWant) -> Sequence[frozenset[str] | None]:
        """Return the sets of types within which a gang may be placed: where a part of it lies, only those."""
        lies = self._lies.get(gang.gang.mark, frozenset())
        return [types for types in self._within if types and types & lies] or self._within

    @cached_property
    def _within(self) -> Sequence[frozenset[str] | None]:
        return backends_of(self.scene, self.shapes)

    @cached_property
    def _lies(self) -> Mapping[str, frozenset[str]]:
        """Return the types of the nodes on which parts of the gangs lie already, by the gang's mark."""
        marks = {gang.gang.mark for gang in self.wants.gangs}
        found = [
            (mark, node.node_type) for node in self.scene.ray.nodes for mark in marks & node.labels.keys()
        ]
        return {mark: frozenset(name for one, name in found if one == mark) for mark, _ in found}

    def _try(self, gang: GangWant, types: frozenset[str] | None) -> _Trial:
        """Place a gang within these types: as it would like to lie, or else as it may."""
        if gang.wish:
            pool = self.pool.copy()
            if not self._there_or_coming(pool, gang.wish, types):
                return _Trial(pool)
        pool = self.pool.copy()
        left = self._there_or_coming(pool, gang.wants, types)
        if not left:
            return _Trial(pool)
        choices, unmet = self.chooser.choose(left, self.ledger, within=types)
        standing = self.chooser.standing(choices)
        weight = sum(self.chooser.costs[choice.shape.name] * choice.count for choice in choices)
        return _Trial(pool, tuple(choices), tuple(unmet), standing, weight)

    def _place(self, pool: Pool, wants: Sequence[Want]) -> tuple[list[Unmet], bool]:
        """Place wants on what is there, on what comes, and on new nodes; return what has no place.

        Also say whether new nodes were added beside others that come: the next pass may see it otherwise.
        """
        patience = self.chooser.patience
        waiting = patience.hedged(pool.place_here(wants, patience.started(wants)), self.ledger)
        coming = pool.empty_coming()
        left = self._on_the_way(pool, waiting, coming)
        unmet: list[Unmet] = []
        if left:
            choices, unmet = self.chooser.choose(left, self.ledger)
            self._add(pool, choices)
        pool.hedge(waiting)
        return unmet, bool(left and coming)

    def _there_or_coming(self, pool: Pool, wants: Sequence[Want], types: frozenset[str] | None) -> list[Want]:
        if self.way is Way.MIXED:
            return pool.place_all(wants, within=types)
        started = self.chooser.patience.started(wants)
        left = pool.place_here(wants, started, within=types)
        avoided = frozenset[str]().union(*(want.avoids for want in wants))
        coming = pool.empty_coming(types)
        for name in avoided:
            del coming[name]
        return self._on_the_way(pool, left, coming, types)

    def _on_the_way(
        self,
        pool: Pool,
        left: Sequence[Want],
        coming: Mapping[str, int],
        types: frozenset[str] | None = None,
    ) -> list[Want]:
        """Place wants on what comes: in the way for which it was asked, and the rest as well as may be."""
        if left and coming:
            left = self._as_asked(pool, left, coming, types)
        return pool.place_all(left, within=types)

    def _as_asked(
        self, pool: Pool, left: Sequence[Want], coming: Mapping[str, int], types: frozenset[str] | None
    ) -> list[Want]:
        """Place wants on what comes and is still empty, by a choice that is made anew as if nothing came.

        While the wants are the same it is the same choice, so that what comes is just what it takes. Where
        more would be asked for than comes, and all has room there in another way, nothing is placed.
        """
        choices, _ = self.chooser.choose(left, self.ledger.copy(without=coming), coming, within=types)
        asked: Counter[str] = Counter()
        for choice in choices:
            asked[choice.shape.name] += choice.count
        if any(asked[name] > coming[name] for name in asked):
            trial = pool.copy()
            if not trial.place_all(left, within=types):
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

    def _add(self, pool: Pool, choices: Sequence[Choice]) -> None:
        for choice in choices:
            known = self.new[choice.shape.name]
            added = _names(choice.shape.name, len(known), choice.count)
            known += added
            self.ledger.add(choice.shape.name, choice.count)
            pool.add_holding(choice.shape.spot, added, choice.contents)

    def _put(self, pool: Pool, used: frozenset[str] = frozenset()) -> None:
        """Add the new nodes as such, those first that are used already.

        All in one go, so that they stand in the order in which they will stand when they come.
        """
        named = {shape.spot: self.new[shape.name] for shape in self.shapes}
        pool.add({spot: sorted(each, key=lambda one: one not in used) for spot, each in named.items()})

    def _constraint(self) -> bool:
        held = {member for _, members, uses in self.pool.new() if uses for member in members}
        used = frozenset(self.pool.uses()) | held
        self.kept = totals(self.scene, self.given.lens, used)
        self._put(self.kept, used)
        self.constraint_unmet, _ = self._place(self.kept, self.wants.constraint)
        return True

    def settlement(self, gone: Settlement, floors: Sequence[New], short: tuple[Short, ...]) -> Settlement:
        return replace(
            gone,
            new=tuple(self._new(floors)),
            uses=self.pool.uses(),
            constraint_uses=self.kept.uses() if self.kept else {},
            unmet=tuple(self.unmet),
            constraint_unmet=tuple(self.constraint_unmet),
            gangs_unmet=tuple(self.gangs_unmet),
            held_for=self._held_for() if self.gangs_unmet else {},
            short=short,
        )

    def _held_for(self) -> Mapping[str, tuple[GangWant, Room]]:
        """Return where gangs would lie that lack what is not launched just now, beside what has its place."""
        stops: dict[str, tuple[GangWant, Room]] = {}
        later = copy(self)
        later.pool, later.ledger = self.pool.copy(), self.ledger.copy(later=True)
        later.new = {name: list(known) for name, known in self.new.items()}
        for gang, rooms in self.gangs_unmet:
            if not any(room.passing for room in rooms):
                continue
            best, _ = later._best(gang)
            if best is not None:
                asked = [self.ledger.type_room(choice.shape.node_type) for choice in best.choices]
                stop = next(room for room in (*asked, *rooms) if room.passing)
                later.pool = best.pool
                later._add(later.pool, best.choices)
                stops[gang.wants[0].key] = (gang, stop)
        found: dict[str, tuple[GangWant, Room]] = {}
        for member, uses in later.pool.uses().items() if stops else ():
            mine = [stops[use.want.key] for use in uses if use.want.key in stops]
            if mine:
                found[member] = mine[0]
        return found

    def _new(self, floors: Sequence[New]) -> Iterator[New]:
        """Return the new nodes by what they hold in the last pass; what nothing needs is left out."""
        shapes = {shape.name: shape for shape in self.shapes}
        keys = frozenset(gang.wants[0].key for gang in self.wants.gangs)
        floor = {member: one.why for one in floors for member in one.members}
        kept = {m: uses for _, members, uses in self.kept.new() for m in members} if self.kept else {}
        known = list(self.pool.new())
        # What only the constraint brought is not in the pool of demand.
        there = {member for _, members, _ in known for member in members} if kept else frozenset[str]()
        for name, each in self.new.items() if kept else ():
            known += [(name, (member,), ()) for member in each if member not in there]
        for name, members, uses in known:
            for group, why, held in _alike(members, floor, kept):
                one = _after_use(New(group, shapes[name], why or Why.DEMAND, "", uses, held), keys)
                if why is not None or uses or held:
                    yield one if why is None else replace(one, why=why)


def _alike(
    members: tuple[str, ...], floor: Mapping[str, Why], kept: Mapping[str, tuple[Use, ...]]
) -> Iterator[tuple[tuple[str, ...], Why | None, tuple[Use, ...]]]:
    """Split members by the floor that wants them and by what a constraint holds on them."""
    if not floor and not kept:
        yield members, None, ()
        return
    groups: dict[tuple[Why | None, tuple[Use, ...]], list[str]] = {}
    for member in members:
        groups.setdefault((floor.get(member), kept.get(member, ())), []).append(member)
    for (why, held), several in groups.items():
        yield tuple(several), why, held


def _after_use(new: New, gangs: frozenset[str]) -> New:
    """Return the nodes with what needs them in the last pass, whatever first brought them."""
    for use in new.uses:
        if use.want.key in gangs:
            return replace(new, why=Why.GANG, key=use.want.key)
    if new.uses:
        why = Why.REPLACEMENT if all(use.want.replaces for use in new.uses) else Why.DEMAND
        return replace(new, why=why, key=new.uses[0].want.key)
    return replace(new, why=Why.CONSTRAINT, key=new.kept[0].want.key if new.kept else "")


def _floors(scene: Scene, kinds: Iterable[Shape]) -> tuple[tuple[New, ...], tuple[Short, ...]]:
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
        if count:
            why = Why.ADDED_BY_HAND if by_hand else Why.MIN_WORKERS
            new.append(New(tuple(_names(shape.name, 0, count)), shape, why))
        ledger.add(shape.name, count)
        if count < lack:
            short.append(Short(shape, lack - count, ledger.room(shape.node_type)))
    return tuple(new), tuple(short)


def staying(scene: Scene, node_type: str) -> int:
    """Return how many of a type are there or on their way, and not as good as gone."""
    return scene.staying_counts[node_type]


def _names(node_type: str, first: int, count: int) -> list[str]:
    # Numbers of as many digits sort as text, and are quicker than padded ones.
    return [f"{node_type}+{index}" for index in range(1_000_000 + first, 1_000_000 + first + count)]
