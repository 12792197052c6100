"""The cases A to I and the curve, made from a seed: the same seed gives the same case.

Sizes and prices are of the kind that clouds have: 2 to 8 GiB a CPU, prices by CPU, memory and GPU with
a spread of 8 percent. A running node is partly used, so that what is free is splinters of all sizes:
that is why work waits. Every node also has what is its own: `node:<ip>`, `ray.io/node-id`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from benchmarks.planner_cases.spec import GIB, Case, Gang, Node, Selector, Shape, Type

TITLES = {
    "A": "1,000 tasks, 10 shapes, 5 types, empty cluster",
    "B": "10,000 tasks, 10 shapes, 5 types, 1,000 nodes in 1,000 states",
    "C": "10,000 tasks, 50 shapes, 10 types, 1,000 nodes in 1,000 states",
    "D": "2,000 tasks with parts of GPUs and whole ones, 3 types of 8 GPUs, empty cluster",
    "E": "200 gangs of 8 STRICT_SPREAD, 200 of 8 PACK, 2,000 nodes half full in 1,000 states",
    "F": "1,000,000 tasks, 100 shapes, 20 types, 10,000 nodes in 2,500 states",
    "G": "3,000 labelled tasks with fallbacks, 6 types, 100 nodes",
    "H": "nothing waits, 10,000 nodes in 1,000 states, 500 of them idle",
    "I": "2,000 tasks, a free backend with a queue of 6 h (patience 600 s) and a paid one, 200 nodes",
}

# CPUs, GiB, GPUs; the first five and ten are the sets of the smaller cases.
SIZES = (
    *((8, 32, 0), (16, 64, 0), (64, 256, 0), (16, 128, 0), (16, 64, 4)),
    *((4, 16, 0), (32, 128, 0), (48, 96, 0), (32, 256, 0), (32, 128, 2)),
    *((8, 16, 0), (8, 64, 0), (16, 32, 0), (32, 64, 0), (64, 128, 0)),
    *((64, 512, 0), (96, 384, 0), (8, 32, 1), (48, 192, 4), (64, 256, 8)),
)
CPUS = (0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 6.0, 8.0, 12.0, 16.0)
GIB_PER_CPU = (0, 0, 1, 2, 4, 6)
LARGEST_GIB = 64


def price(rng: Random, cpus: float, gib: float, gpus: float) -> float:
    return round((0.034 * cpus + 0.0035 * gib + 0.95 * gpus) * rng.uniform(0.92, 1.08), 4)


def amounts(cpus: float, gib: float = 0, gpus: float = 0) -> dict[str, float]:
    asked = {"CPU": float(cpus), "memory": gib * GIB, "GPU": float(gpus)}
    return {name: amount for name, amount in asked.items() if amount}


def make_types(rng: Random, count: int) -> tuple[Type, ...]:
    return tuple(
        Type(
            f"t{cpus}-{gib}" + (f"-{gpus}g" if gpus else ""),
            amounts(cpus, gib, gpus),
            price(rng, cpus, gib, gpus),
        )
        for cpus, gib, gpus in SIZES[:count]
    )


def shape(cpus: float, gib: float = 0, gpus: float = 0, *, at: tuple[Selector, ...] = ()) -> Shape:
    return Shape(tuple(sorted(amounts(cpus, gib, gpus).items())), at)


def make_shapes(rng: Random, count: int, types: Sequence[Type]) -> tuple[Shape, ...]:
    """Return `count` different shapes, each of which some type can hold; one in seven has a GPU."""
    found: dict[Shape, None] = {}
    while len(found) < count:
        cpus = rng.choice(CPUS)
        gib = min(LARGEST_GIB, -(-cpus * rng.choice(GIB_PER_CPU) // 1) + rng.choice((0, 0, 0, 1)))
        gpus = rng.choice((1, 1, 2)) if rng.random() < 1 / 7 and cpus <= 8 else 0
        made = shape(cpus, gib, gpus)
        if any(made.fits(one.amounts) for one in types):
            found.setdefault(made)
    return tuple(found)


def spread(rng: Random, total: int, shapes: Sequence[Shape]) -> tuple[tuple[Shape, int], ...]:
    """Share `total` tasks among the shapes, unevenly, at least one each: the larger, the fewer."""
    weights = [(0.1 + rng.random()) / _size(one) for one in shapes]
    counts = [max(1, int(total * weight / sum(weights))) for weight in weights]
    counts[0] += total - sum(counts)
    return tuple(zip(shapes, counts, strict=True))


def _size(one: Shape) -> float:
    asked = dict(one.amounts)
    return 1.0 + asked["CPU"] + 8.0 * asked.get("GPU", 0.0)


def make_nodes(
    rng: Random, count: int, *, states: int, types: Sequence[Type], free: tuple[float, float]
) -> tuple[Node, ...]:
    """Return `count` partly used nodes in exactly `states` states; a share in `free` is left of each."""
    found: dict[tuple[str, tuple[tuple[str, float], ...]], Type] = {}
    for _ in range(100 * states):
        if len(found) == states:
            break
        kind = rng.choice(types)
        left = _left(rng, kind, rng.uniform(*free))
        if dict(left) != kind.amounts:
            found.setdefault((kind.name, left), kind)
    assert len(found) == states, f"these types have no {states} states"
    kinds = [(kind, left) for (_, left), kind in found.items()]
    return tuple(Node(index, *kinds[index % states]) for index in range(count))


def _left(rng: Random, kind: Type, share: float) -> tuple[tuple[str, float], ...]:
    cpus = round(kind.amounts["CPU"] * share * 2) / 2
    gib = int(kind.amounts["memory"] / GIB * min(1.0, max(0.0, rng.gauss(share, 0.1))))
    gpus = int(kind.amounts.get("GPU", 0) * rng.random())
    return tuple(sorted(amounts(cpus, gib, gpus).items()))


def case_a(rng: Random) -> Case:
    types = make_types(rng, 5)
    tasks = spread(rng, 1_000, make_shapes(rng, 10, types))
    return Case("A", TITLES["A"], types, tasks=tasks)


def case_b(rng: Random) -> Case:
    return _over_nodes(rng, "B", shapes=10, types=5)


def case_c(rng: Random) -> Case:
    return _over_nodes(rng, "C", shapes=50, types=10)


def _over_nodes(rng: Random, name: str, *, shapes: int, types: int) -> Case:
    kinds = make_types(rng, types)
    tasks = spread(rng, 10_000, make_shapes(rng, shapes, kinds))
    nodes = make_nodes(rng, 1_000, states=1_000, types=kinds, free=SPLINTERS)
    return Case(name, TITLES[name], kinds, nodes, tasks)


def case_d(rng: Random) -> Case:
    """The largest group shares devices, some take several; memory in steps that keep the bound quick."""
    sizes = ((48, 256), (64, 512), (96, 768))
    types = tuple(Type(f"g8-{cpus}", amounts(cpus, gib, 8), price(rng, cpus, gib, 8)) for cpus, gib in sizes)
    parts = (*(0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75), *(0.3, 0.4, 0.6, 0.75), *(1.0, 1.0, 2.0, 4.0))
    shapes = tuple(
        dict.fromkeys(
            shape(rng.choice((1, 1, 2, 4)), 8 * rng.choice((0, 1, 1, 2, 4)), gpus) for gpus in parts
        )
    )
    tasks = spread(rng, 2_000, shapes)
    return Case("D", TITLES["D"], types, tasks=tasks, devices=True)


def case_e(rng: Random) -> Case:
    types = make_types(rng, 5)
    nodes = make_nodes(rng, 2_000, states=1_000, types=types, free=(0.4, 0.6))
    shapes = (shape(2, 4), shape(4, 16), shape(8, 16), shape(12, 48), shape(4, 16, 1))
    gangs = tuple(
        Gang(f"{number:032x}0100", strategy, rng.choice(shapes), 8)
        for number, strategy in enumerate(["STRICT_SPREAD"] * 200 + ["PACK"] * 200)
    )
    return Case("E", TITLES["E"], types, nodes, gangs=gangs)


def case_f(rng: Random) -> Case:
    types = make_types(rng, 20)
    tasks = spread(rng, 1_000_000, make_shapes(rng, 100, types))
    nodes = make_nodes(rng, 10_000, states=2_500, types=types, free=SPLINTERS)
    return Case("F", TITLES["F"], types, nodes, tasks)


ZONE, MARKET, MODEL = "ray.io/availability-zone", "ray.io/market-type", "ray.io/accelerator-type"


def case_g(rng: Random) -> Case:
    def kind(name: str, sizes: tuple[int, int, int], factor: float = 1.0, **labels: str) -> Type:
        full = {ZONE: labels["zone"], MARKET: labels["market"]} | ({MODEL: labels["gpu"]} if sizes[2] else {})
        return Type(name, amounts(*sizes), round(price(rng, *sizes) * factor, 4), full)

    small, large, accelerated = (16, 64, 0), (64, 256, 0), (32, 128, 4)
    types = (
        kind("spot-a", small, 0.4, zone="a", market="spot"),
        kind("steady-a", small, zone="a", market="on-demand"),
        kind("steady-b", large, zone="b", market="on-demand"),
        kind("spot-b", large, 0.4, zone="b", market="spot"),
        kind("t4", accelerated, 0.5, zone="a", market="on-demand", gpu="T4"),
        kind("a100", accelerated, 1.5, zone="b", market="on-demand", gpu="A100"),
    )

    def at(label: str, *values: str, operator: str = "in") -> Selector:
        return ((label, operator, values),)

    ways: tuple[tuple[Selector, ...], ...] = (
        (),
        (at(ZONE, "a"),),
        (at(MARKET, "spot"), at(MARKET, "on-demand")),
        (at(ZONE, "a"), at(ZONE, "b")),
        (at(MARKET, "spot", operator="not in"),),
        ((*at(ZONE, "b"), *at(MARKET, "spot")), at(MARKET, "on-demand")),
    )
    sizes = ((0.5, 2), (1, 4), (2, 4), (4, 16), (8, 16))
    plain = [shape(*size, at=way) for size, way in zip(sizes * 3, ways * 2, strict=False)]
    gpus = [
        shape(4, 16, 1, at=(at(MODEL, "A100"), at(MODEL, "T4"))),
        shape(4, 8, 1, at=(at(MODEL, "T4"),)),
        shape(8, 32, 2, at=(at(MODEL, "T4", "A100"),)),
    ]
    nodes = make_nodes(rng, 100, states=100, types=types, free=(0.05, 0.5))
    tasks = spread(rng, 3_000, (*plain, *gpus))
    return Case("G", TITLES["G"], types, nodes, tasks)


def case_h(rng: Random) -> Case:
    types = make_types(rng, 10)
    busy = make_nodes(rng, 9_500, states=1_000 - len(types), types=types, free=(0.02, 0.6))
    idle = tuple(
        Node(
            index, kind := types[index % len(types)], tuple(sorted(kind.amounts.items())), rng.uniform(1, 120)
        )
        for index in range(9_500, 10_000)
    )
    return Case("H", TITLES["H"], types, (*busy, *idle))


def case_i(rng: Random) -> Case:
    sizes = ((16, 64, 0), (64, 256, 0), (16, 64, 4))
    queue = tuple(
        Type(f"queue-{cpus}-{gpus}", amounts(cpus, gib, gpus), 0.0, {}, "slurm", 6 * 3600.0, 600.0)
        for cpus, gib, gpus in sizes
    )
    paid = tuple(
        Type(f"paid-{cpus}-{gpus}", amounts(cpus, gib, gpus), price(rng, cpus, gib, gpus), {}, "cloud", 120.0)
        for cpus, gib, gpus in sizes
    )
    tasks = spread(rng, 2_000, make_shapes(rng, 10, paid))
    nodes = make_nodes(rng, 200, states=200, types=(*queue, *paid), free=SPLINTERS)
    return Case("I", TITLES["I"], (*queue, *paid), nodes, tasks)


SPLINTERS = (0.02, 0.2)
"""What is left of a node while work waits: less than most of it asks."""

MAKERS: dict[str, Callable[[Random], Case]] = {
    "A": case_a,
    "B": case_b,
    "C": case_c,
    "D": case_d,
    "E": case_e,
    "F": case_f,
    "G": case_g,
    "H": case_h,
    "I": case_i,
}

CURVE = (1_000, 3_000, 10_000, 30_000)
"""Nodes of the curve's cases; one state for five nodes, ten tasks a node, the same 20 shapes and 10 types."""


def make(name: str, seed: int) -> Case:
    """Return a case by its letter, or `N…` for the curve's case of so many nodes."""
    if name.startswith("N"):
        return _of_curve(int(name[1:]), seed)
    return MAKERS[name](Random(f"{seed}/{name}"))


def _of_curve(nodes: int, seed: int) -> Case:
    rng = Random(f"{seed}/curve")
    types = make_types(rng, 10)
    tasks = spread(rng, 10 * nodes, make_shapes(rng, 20, types))
    there = make_nodes(rng, nodes, states=nodes // 5, types=types, free=SPLINTERS)
    return Case(f"N{nodes}", f"{nodes} nodes, {nodes // 5} states, {10 * nodes} tasks", types, there, tasks)
