"""The states of nodes as a table: one row for all nodes in one state, in arrays that grow.

Nothing is decided here; pool.py does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from heliostat.planner.devices import Devices
from heliostat.planner.wants import Labels, Want

Ints = NDArray[np.int64]


class Kind(IntEnum):
    """The order in which room is used.

    What starts comes before what was only asked for, and that before what is new. JUST_JOINED is what is
    already taken on a node that joined a moment ago: demand that is older than the node may be
    the very work that runs there, reported a report late.
    """

    BUSY = 0
    RUNNING = 1
    COMING = 2
    QUEUED = 3
    NEW = 4
    JUST_JOINED = 5


ON_ITS_WAY = (Kind.COMING, Kind.QUEUED, Kind.NEW)


@dataclass(frozen=True)
class Spot:
    """One distinct state of a node; `free` follows the names of the pool's lens.

    `taken` holds the anti-affinity marks on it, `scarce` the devices it has of which any are
    there. `devices` (column, what is free on each) is exact where it is known; `doubted`
    (column, least amount) names shares that the sum has room for and that found no place. Of rooms that
    are alike, the cheaper is used first, so that the dearer may go; of those that come at one price, the
    one with the lower `turn`, which is there sooner. `whole` nodes look as a new one of their type will.
    """

    kind: Kind
    node_type: str
    free: tuple[int, ...]
    labels: Labels = ()
    scarce: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    devices: tuple[tuple[int, Devices], ...] = ()
    doubted: tuple[tuple[int, int], ...] = ()
    joined_s: float = 0.0
    price_usd_per_h: float = 0.0
    turn: int = 0
    whole: bool = False

    def order(self) -> tuple[object, ...]:
        return (
            *(self.kind, self.price_usd_per_h, self.turn, self.node_type, self.labels, self.free),
            *(
                tuple(sorted(self.taken)),
                tuple(sorted(self.scarce)),
                self.devices,
                self.doubted,
                self.joined_s,
            ),
        )


@dataclass(frozen=True)
class Use:
    """`copies` of a want's bundle were placed on a node."""

    want: Want
    copies: int
    kind: Kind


Uses = Mapping[str, tuple[Use, ...]]


@dataclass(frozen=True)
class Row:
    """What a row's arrays do not hold. A value, so that a copy of the table can share it."""

    spot: Spot
    members: tuple[str, ...]
    devices: tuple[tuple[int, Devices], ...]
    uses: tuple[Use, ...] = ()
    marks: frozenset[str] = frozenset()


class Rows:
    """The table. Arrays are views of what is in use; `faces` numbers what nodes look like."""

    def __init__(self, columns: int, expected: int) -> None:
        self.rows: list[Row] = []
        self.faces: dict[tuple[Labels, frozenset[str]], int] = {}
        size = max(16, 2 * expected)
        self._free: Ints = np.zeros((size, columns), dtype=np.int64)
        self._facts: Ints = np.zeros((size, 6), dtype=np.int64)
        self._joined: NDArray[np.float64] = np.zeros(size)

    def copy(self) -> Rows:
        other = Rows.__new__(Rows)
        other.rows = list(self.rows)
        other.faces = dict(self.faces)
        other._free, other._facts = self._free.copy(), self._facts.copy()
        other._joined = self._joined.copy()
        return other

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def free(self) -> Ints:
        """Rows × resources: what one node of the row has left, in 1/10000."""
        return self._free[: len(self.rows)]

    @property
    def counts(self) -> Ints:
        return self._facts[: len(self.rows), 0]

    @property
    def kinds(self) -> Ints:
        return self._facts[: len(self.rows), 1]

    @property
    def looks(self) -> Ints:
        """The number of each row's face."""
        return self._facts[: len(self.rows), 2]

    @property
    def ranks(self) -> Ints:
        """The order among rows that are alike in all else; one split off another keeps its rank."""
        return self._facts[: len(self.rows), 3]

    @property
    def used(self) -> Ints:
        """1 where a row's nodes hold something that was placed on them."""
        return self._facts[: len(self.rows), 4]

    @property
    def wholes(self) -> Ints:
        """1 where a row's nodes look as a new one of their type will."""
        return self._facts[: len(self.rows), 5]

    @property
    def joined(self) -> NDArray[np.float64]:
        return self._joined[: len(self.rows)]

    def with_devices(self) -> Iterable[int]:
        """Return the rows of which single devices are known, or doubted."""
        return [index for index, row in enumerate(self.rows) if row.devices or row.spot.doubted]

    def append(self, row: Row, free: Sequence[int], rank: int | None = None) -> int:
        """Add a row; return its number."""
        index, spot = len(self.rows), row.spot
        if index == len(self._facts):
            self._double()
        face = self.faces.setdefault((spot.labels, spot.scarce), len(self.faces))
        self._free[index] = free
        rank = index if rank is None else rank
        self._facts[index] = (len(row.members), spot.kind, face, rank, bool(row.uses), spot.whole)
        self._joined[index] = spot.joined_s
        self.rows.append(row)
        return index

    def keep(self, index: int, members: tuple[str, ...]) -> None:
        """Leave only these members in the row."""
        self.rows[index] = replace(self.rows[index], members=members)
        self._facts[index, 0] = len(members)

    def split(self, index: int, members: tuple[str, ...]) -> int:
        """Give some of a row's members a row of their own, in the same state; return its number."""
        other = replace(self.rows[index], members=members)
        free = tuple(self._free[index].tolist())
        return self.append(other, free, rank=int(self._facts[index, 3]))

    def _double(self) -> None:
        self._free = np.concatenate([self._free, np.zeros_like(self._free)])
        self._facts = np.concatenate([self._facts, np.zeros_like(self._facts)])
        self._joined = np.concatenate([self._joined, np.zeros_like(self._joined)])
