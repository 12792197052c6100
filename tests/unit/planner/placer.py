"""Placing by brute force, with nothing of the planner's own: the judge of what it claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from heliostat.model.demand import Bundle

DEVICE = 10_000
STEPS = 20_000
"""So many tries to place a bundle decide nearly everything; what is open then is taken to fit."""

Block = tuple[Bundle, ...]
"""Bundles that one node must hold together."""

Free = tuple[int, ...]
"""What is free on each of a node's devices, the fullest first; one that is full is left out."""


def whole_devices(amounts: Mapping[str, int]) -> dict[str, Free]:
    """Return the devices of a node that nobody uses."""
    return {name: (DEVICE,) * (n // DEVICE) for name, n in amounts.items() if name == "GPU"}


@dataclass
class Bin:
    """One node: what is free in 1/10000, its labels, and the groups that must not meet there again.

    `devices` says what is free on each single one, where that is known; else the sum counts.
    """

    free: dict[str, int]
    labels: dict[str, str] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)
    devices: dict[str, Free] = field(default_factory=dict)

    def holds(self, bundle: Bundle) -> bool:
        if bundle.anti_affinity in self.marks or not allows(bundle, self.labels):
            return False
        if not all(self.free.get(name, 0) >= amount for name, amount in bundle.resources):
            return False
        return all(
            name not in self.devices or next(shares(self.devices[name], amount), None) is not None
            for name, amount in bundle.resources
        )

    def take(self, bundle: Bundle) -> None:
        """Take the first way, as a scheduler does: each share of a device on the fullest that holds it."""
        for name, amount in bundle.resources:
            self.free[name] -= amount
            if name in self.devices:
                self.devices[name] = next(shares(self.devices[name], amount))
        if bundle.anti_affinity:
            self.marks.add(bundle.anti_affinity)


def allows(bundle: Bundle, labels: Mapping[str, str]) -> bool:
    return not bundle.selectors or any(
        all((labels.get(c.key) in c.values) == (c.operator.value == "in") for c in way)
        for way in bundle.selectors
    )


def shares(devices: Free, amount: int) -> Iterator[Free]:
    """Return in what ways devices may look with an amount on them: whole ones, and a share on one."""
    whole, share = divmod(amount, DEVICE)
    if devices.count(DEVICE) < whole:
        return
    free = devices[: len(devices) - whole]
    for index in range(len(free)) if share else ():
        if free[index] >= share and free[index] not in free[:index]:
            left = [
                *free[:index],
                *free[index + 1 :],
                *([free[index] - share] if free[index] > share else []),
            ]
            yield tuple(sorted(left))
    if not share:
        yield free


def put_somewhere(bins: Sequence[Bin], bundle: Bundle) -> int | None:
    """Take the first bin that holds the bundle, as a scheduler that knows nothing of plans does."""
    for index, one in enumerate(bins):
        if one.holds(bundle):
            one.take(bundle)
            return index
    return None


def all_fit(bins: Sequence[Bin], blocks: Sequence[Block]) -> bool:
    """Say whether some way exists to place all blocks at once, by trying every one that differs."""
    ordered = sorted(blocks, key=_hardness)
    names = tuple(sorted({name for block in blocks for bundle in block for name, _ in bundle.resources}))
    kinds = {block: index for index, block in enumerate(dict.fromkeys(ordered))}
    nodes = tuple(_Node.of(one, names, tuple(kinds)) for one in bins)
    asked = [_asked(block, names) for block in ordered]
    return _Search([(kinds[block], parts) for block, parts in zip(ordered, asked, strict=True)]).finds(nodes)


def _hardness(block: Block) -> tuple[object, ...]:
    amounts: Counter[str] = Counter()
    for bundle in block:
        amounts.update(dict(bundle.resources))
    return (-amounts["GPU"], -len(block), -sum(amounts.values()), str(block))


Part = tuple[Free, str | None]
"""The amounts of one bundle, by column, and its mark."""


def _asked(block: Block, names: Sequence[str]) -> tuple[Part, ...]:
    ordered = sorted(block, key=lambda one: _hardness((one,)))
    return tuple((tuple(one.resources.get(name) for name in names), one.anti_affinity) for one in ordered)


@dataclass(frozen=True)
class _Node:
    """A bin as a value: `suits` says which kinds of block its labels allow."""

    free: Free
    devices: tuple[Free | None, ...]
    marks: frozenset[str]
    suits: tuple[bool, ...]

    @classmethod
    def of(cls, one: Bin, names: Sequence[str], kinds: Sequence[Block]) -> _Node:
        return cls(
            free=tuple(one.free.get(name, 0) for name in names),
            devices=tuple(one.devices.get(name) for name in names),
            marks=frozenset(one.marks),
            suits=tuple(all(allows(bundle, one.labels) for bundle in block) for block in kinds),
        )

    def ways(self, parts: Sequence[Part]) -> Iterator[_Node]:
        """Return how the node may look with all the parts on it."""
        if not parts:
            yield self
            return
        amounts, mark = parts[0]
        free = tuple(room - amount for room, amount in zip(self.free, amounts, strict=True))
        if min(free, default=0) < 0 or mark in self.marks:
            return
        marks = self.marks | {mark} if mark else self.marks
        for devices in self._devices(amounts):
            yield from _Node(free, devices, marks, self.suits).ways(parts[1:])

    def _devices(self, amounts: Free) -> Iterator[tuple[Free | None, ...]]:
        found: list[tuple[Free | None, ...]] = [()]
        for one, amount in zip(self.devices, amounts, strict=True):
            ways = [one] if one is None or not amount else list(shares(one, amount))
            found = [(*before, way) for before in found for way in ways]
        yield from found


class _Search:
    """Depth first; what was found hopeless is not tried again."""

    def __init__(self, asked: Sequence[tuple[int, tuple[Part, ...]]]) -> None:
        self._asked = asked
        self._hopeless: set[object] = set()
        self._steps = 0

    def finds(self, nodes: tuple[_Node, ...], index: int = 0) -> bool:
        if index == len(self._asked):
            return True
        key = (index, frozenset(Counter(nodes).items()))
        if key in self._hopeless:
            return False
        kind, parts = self._asked[index]
        for number, one in enumerate(nodes):
            if not one.suits[kind] or one in nodes[:number]:
                continue
            for after in one.ways(parts):
                self._steps += 1
                if self._steps > STEPS or self.finds(
                    (*nodes[:number], after, *nodes[number + 1 :]), index + 1
                ):
                    return True
        self._hopeless.add(key)
        return False
