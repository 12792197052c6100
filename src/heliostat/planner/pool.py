"""Room to place bundles in, grouped: nodes in the same state are one row with many members.

Placing costs as many steps as there are distinct states, whatever the number of nodes or tasks,
and the steps of one bundle shape are taken for all rows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heliostat.model.demand import Bundle
from heliostat.model.resources import SCALE
from heliostat.planner.devices import copies_on, fresh, take_parts
from heliostat.planner.limits import ENDLESS, SCARCE
from heliostat.planner.rows import ON_ITS_WAY, Ints, Kind, Row, Rows, Spot, Use, Uses
from heliostat.planner.wants import Labels, Lens, Want, implicit


class Pool:
    """Rows with their members, and what was placed on them. Mutable, private to one planning step.

    `anew`: what runs, is empty and looks as new counts with what comes, whose use is chosen anew.
    """

    def __init__(self, lens: Lens, spots: Mapping[Spot, Sequence[str]], *, anew: bool = False) -> None:
        self._lens = lens
        self._anew = anew
        self._columns = {name: index for index, name in enumerate(lens.names)}
        self._shut: NDArray[np.bool_] | None = None
        self._table = Rows(len(lens.names), len(spots))
        self.add(spots)

    def copy(self) -> Pool:
        other = Pool(self._lens, {}, anew=self._anew)
        other._table = self._table.copy()
        return other

    def __len__(self) -> int:
        return len(self._table)

    def add(self, spots: Mapping[Spot, Sequence[str]]) -> None:
        """Add nodes by state, in an order of its own, whatever the order of `spots`."""
        for spot in sorted(spots, key=Spot.order):
            if spots[spot]:
                self._table.append(Row(spot, tuple(spots[spot]), spot.devices, marks=spot.taken), spot.free)

    def uses(self) -> Uses:
        """Return what was placed on whom, new nodes left out."""
        return {
            member: row.uses
            for row in self._table.rows
            if row.uses and row.spot.kind is not Kind.NEW
            for member in row.members
        }

    def coming_in_use(self) -> Iterator[tuple[str, str]]:
        """Return what is on its way and holds something: the member and its type."""
        for row in self._table.rows:
            if row.uses and row.spot.kind in ON_ITS_WAY:
                yield from ((member, row.spot.node_type) for member in row.members)

    def new(self) -> Iterator[tuple[str, tuple[str, ...], tuple[Use, ...]]]:
        """Return new nodes that hold the same: the type, the members, and what was placed on each."""
        for row in self._table.rows:
            if row.spot.kind is Kind.NEW:
                yield row.spot.node_type, row.members, row.uses

    def place(self, want: Want) -> Want:
        """Place as many of `want` as there is room for; return the want with what is left of it."""
        if want.count <= 0 or not len(self._table):
            return want
        amounts = self._amounts(want.bundle)
        per = self._copies(want, amounts)
        fitting = np.flatnonzero(per > 0)
        if not len(fitting):
            return want
        per = per[fitting]
        order = np.argsort(self._keys(want, fitting, per), kind="stable")
        fitting, per = fitting[order], per[order]
        through = np.cumsum(per * self._table.counts[fitting])
        whole = int(np.searchsorted(through, want.count, side="right"))
        self._fill(fitting[:whole], per[:whole], want=want, amounts=amounts)
        left = want.count - (int(through[whole - 1]) if whole else 0)
        if left and whole < len(fitting):
            self._fill_part(int(fitting[whole]), int(per[whole]), left, want=want, amounts=amounts)
            left = 0
        return replace(want, count=left)

    def place_all(self, wants: Iterable[Want], *, within: frozenset[str] | None = None) -> list[Want]:
        """Place each in turn; return what is left, wants that are wholly placed left out.

        `within` are the types whose nodes may be used beside nodes of no type of the file; None: any.
        """
        return self._place_where(self._others(within), wants)

    def _place_where(self, shut: NDArray[np.bool_] | None, wants: Iterable[Want]) -> list[Want]:
        self._shut = shut
        left = [self.place(want) for want in wants]
        self._shut = None
        return [want for want in left if want.count > 0]

    def _others(self, types: frozenset[str] | None) -> NDArray[np.bool_] | None:
        """Return which rows are of backends' types that are not among `types`."""
        if types is None:
            return None
        names = (row.spot.node_type for row in self._table.rows)
        shut = (name in self._lens.types and name not in types for name in names)
        return np.fromiter(shut, dtype=np.bool_, count=len(self._table))

    def add_holding(self, spot: Spot, members: Sequence[str], contents: Sequence[tuple[Want, int]]) -> None:
        """Add nodes that are to hold `contents` (copies of wants), each of them."""
        if not members:
            return
        index = self._table.append(Row(spot, tuple(members), spot.devices, marks=spot.taken), spot.free)
        self._fill_one(index, contents)

    def place_here(
        self,
        wants: Iterable[Want],
        started: frozenset[str] = frozenset(),
        *,
        within: frozenset[str] | None = None,
    ) -> list[Want]:
        """As `place_all`, but leave alone what is on its way and still empty, and all after it.

        Of the types `started` what starts is used as if it were here.
        """
        kinds = self._table.kinds
        here = (self._table.used > 0) & (kinds <= Kind.NEW)
        if started:
            here[self._of(started, Kind.COMING)] = True
        shut, others = (kinds > Kind.RUNNING) & ~here, self._others(within)
        shut |= self._empty_whole() & ~here
        return self._place_where(shut if others is None else shut | others, wants)

    def waits(self, key: str) -> bool:
        """Say whether some of a want was placed on what is not here yet."""
        coming = (row for row in self._table.rows if row.spot.kind in ON_ITS_WAY)
        return any(use.want.key == key for row in coming for use in row.uses)

    def hedge(self, wants: Iterable[Want]) -> None:
        """Let wants also have what queues too long for them, of each type as much as they take.

        It is kept until they have found their place. Of a type on whose queue they count they have enough.
        """
        for want in (one for one in wants if one.late):
            for name in sorted(want.late - self._queues_of(want.key)):
                shut = np.ones(len(self._table), dtype=np.bool_)
                shut[self._of(frozenset({name}), Kind.QUEUED)] = False
                self._shut = shut
                self.place(replace(want, avoids=frozenset()))
                self._shut = None

    def _queues_of(self, key: str) -> frozenset[str]:
        queued = [row for row in self._table.rows if row.spot.kind is Kind.QUEUED]
        return frozenset(row.spot.node_type for row in queued if any(use.want.key == key for use in row.uses))

    def empty_coming(self, within: frozenset[str] | None = None) -> Counter[str]:
        """Count per node type (of `within`, if given) what is on its way and holds nothing yet.

        The types stand in the order in which their nodes are there.
        """
        counts: Counter[str] = Counter()
        empty = [self._table.rows[index] for index in np.flatnonzero(self._empty_whole())]
        for row in sorted(empty, key=lambda row: (row.spot.kind, row.spot.turn)):
            if within is None or row.spot.node_type in within:
                counts[row.spot.node_type] += len(row.members)
        return counts

    def whole_running(self) -> int:
        """Count what runs and looked as new before anything was placed here."""
        return int(self._table.counts[(self._table.kinds == Kind.RUNNING) & (self._table.wholes > 0)].sum())

    def assign(self, node_type: str, nodes: int, contents: Sequence[tuple[Want, int]]) -> None:
        """Put `contents` (copies of wants) on each of so many empty nodes that are on their way."""
        for index in self._empty(node_type):
            if nodes <= 0:
                return
            members = self._table.rows[index].members
            if nodes < len(members):
                self._table.split(index, members[nodes:])
                self._table.keep(index, members[:nodes])
            nodes -= min(nodes, len(members))
            self._fill_one(index, contents)
        assert nodes <= 0, "the caller has counted the nodes"

    def _empty(self, node_type: str) -> list[int]:
        rows = self._table.rows
        found = [(rows[index].spot.kind, int(index)) for index in np.flatnonzero(self._empty_whole())]
        return [index for _, index in sorted(found) if rows[index].spot.node_type == node_type]

    def _empty_whole(self) -> NDArray[np.bool_]:
        """Say which rows hold nothing yet and look as new: what comes, and if asked what runs."""
        kinds, first = self._table.kinds, Kind.RUNNING if self._anew else Kind.COMING
        coming = (kinds >= first) & (kinds <= Kind.NEW)
        return np.asarray(coming & (self._table.wholes > 0) & (self._table.used == 0), dtype=np.bool_)

    # How much fits where.

    def _amounts(self, bundle: Bundle) -> Ints:
        amounts = np.zeros(len(self._columns), dtype=np.int64)
        for name, amount in bundle.resources:
            amounts[self._columns[name]] = amount
        return amounts

    def _copies(self, want: Want, amounts: Ints) -> Ints:
        table, asked = self._table, np.flatnonzero(amounts)
        per = np.full(len(table), ENDLESS, dtype=np.int64)
        for column in asked:
            np.minimum(per, self._table.free[:, column] // amounts[column], out=per)
        per = np.minimum(per, want.count)
        self._by_device(per, want, amounts)
        bundle = want.bundle
        if bundle.anti_affinity is not None:
            np.minimum(per, 1, out=per)
            for index, row in enumerate(self._table.rows):
                if bundle.anti_affinity in row.marks:
                    per[index] = 0
        liked, _ = self._views(bundle)
        per[liked[self._table.looks] < 0] = 0
        # Room that is taken already is for demand as old as the node.
        late = (self._table.kinds == Kind.JUST_JOINED) & (self._table.joined < want.since_s)
        per[late] = 0
        if self._shut is not None:
            per[: len(self._shut)][self._shut] = 0
        if want.avoids:
            per[self._of(want.avoids, Kind.QUEUED)] = 0
        return per

    def _of(self, types: frozenset[str], kind: Kind) -> list[int]:
        rows = enumerate(self._table.rows)
        return [index for index, row in rows if row.spot.kind is kind and row.spot.node_type in types]

    def _by_device(self, per: Ints, want: Want, amounts: Ints) -> None:
        """Where single devices matter, take the count from them, as far as they are known, or doubted."""
        matter = self._lens.device_columns or self._lens.doubted
        names = enumerate(self._lens.names) if matter else ()
        asked = [
            (column, int(amounts[column])) for column, name in names if name in SCARCE and amounts[column]
        ]
        for index in self._table.with_devices() if asked else ():
            if not per[index]:
                continue
            row = self._table.rows[index]
            devices, doubted = dict(row.devices), row.spot.doubted
            for column, amount in asked:
                if column in devices:
                    per[index] = min(int(per[index]), copies_on(devices[column], amount))
                # Where no device has room for a share, none is whole.
                if any(known == column and amount >= least for known, least in doubted):
                    per[index] = 0

    def _views(self, bundle: Bundle) -> tuple[Ints, Ints]:
        """Return per face which selector likes it (-1: none) and how many unneeded devices it has."""
        needed = bundle.resources.by_name.keys()
        liked = [preference(bundle, labels) for labels, _ in self._table.faces]
        wasted = [len(scarce - needed) for _, scarce in self._table.faces]
        return np.array([-1 if one is None else one for one in liked]), np.array(wasted)

    def _keys(self, want: Want, rows: Ints, per: Ints) -> Ints:
        """Return what the rows are tried by, lowest first.

        Nodes that run before those on their way, preferred labels before fallbacks, nodes without
        an unneeded device before those with one, and then the tightest, so that big rooms stay whole, and
        of those what holds something already, so that empty nodes stay empty.
        """
        liked, wasted = self._views(want.bundle)
        faces = self._table.looks[rows]
        key = self._table.kinds[rows] << 6
        key = (key | liked[faces]) << 4
        key = (key | wasted[faces]) << 22
        key = (key | np.minimum(per, 2**22 - 1)) << 1
        empty = self._table.wholes[rows] & (self._table.used[rows] == 0)
        return np.asarray((key | empty) << 26 | self._table.ranks[rows], dtype=np.int64)

    # Placing.

    def _fill(self, rows: Ints, per: Ints, *, want: Want, amounts: Ints) -> None:
        if not len(rows):
            return
        parts = [(self._amounts(one.bundle), one.count) for one in want.parts] or [(amounts, 1)]
        self._table.free[rows] -= per[:, None] * sum(each * count for each, count in parts)
        self._table.used[rows] = 1
        mark = want.bundle.anti_affinity
        table = self._table.rows
        for index, copies in zip(rows.tolist(), per.tolist(), strict=True):
            row = table[index]
            table[index] = Row(
                spot=row.spot,
                members=row.members,
                devices=tuple(
                    (column, take_parts(known, _of_column(parts, column), int(amounts[column]), copies))
                    for column, known in row.devices
                ),
                uses=(*row.uses, Use(want, copies, row.spot.kind)),
                marks=row.marks if mark is None else row.marks | {mark},
            )

    def _fill_one(self, index: int, contents: Sequence[tuple[Want, int]]) -> None:
        """Put a pattern on a row, what takes most of a device first, as it was counted."""
        columns = list(self._lens.device_columns)
        amounts = [self._amounts(want.bundle) for want, _ in contents]
        order = sorted(range(len(contents)), key=lambda one: tuple(-amounts[one][columns]))
        for each in order:
            want, copies = contents[each]
            self._fill(np.array([index]), np.array([copies]), want=want, amounts=amounts[each])

    def _fill_part(self, index: int, per: int, left: int, *, want: Want, amounts: Ints) -> None:
        """Place `left` on some members of a row that holds more: the others become rows of their own."""
        full, part = divmod(left, per)
        members = self._table.rows[index].members
        if full + bool(part) < len(members):
            self._table.split(index, members[full + bool(part) :])
        if full and part:
            other = self._table.split(index, members[full : full + 1])
            self._fill(np.array([other]), np.array([part]), want=want, amounts=amounts)
        kept = members[:full] or members[:1]
        self._table.keep(index, kept)
        self._fill(np.array([index]), np.array([per if full else part]), want=want, amounts=amounts)


def holds_empty(bundle: Bundle, free: Mapping[str, int]) -> bool:
    """Say whether a node with `free` whole and untouched has room for the bundle, device by device."""
    return all(
        amount <= free.get(name, implicit(name))
        and (name not in SCARCE or amount % SCALE == 0 or copies_on(fresh(free[name]), amount) > 0)
        for name, amount in bundle.resources
    )


def preference(bundle: Bundle, labels: Labels) -> int | None:
    """Return which of the bundle's selectors accepts a node with `labels`; None if none does."""
    if not bundle.selectors:
        return 0
    known = dict(labels)
    holding = (
        index
        for index, selector in enumerate(bundle.selectors)
        if all(constraint.holds(known) for constraint in selector)
    )
    return next(holding, None)


def _of_column(parts: Iterable[tuple[Ints, int]], column: int) -> list[tuple[int, int]]:
    return [(int(amounts[column]), count) for amounts, count in parts if amounts[column]]
