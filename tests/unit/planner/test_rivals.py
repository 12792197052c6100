"""Why not the next best types: facts of price, fit, queue, failure, maxima, labels and priority."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.demand import Bundle
from heliostat.model.history import Backoff
from heliostat.model.instance import Offer
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Limiter, Rival, Why
from heliostat.planner.ledger import Room
from heliostat.planner.rivals import rivals
from heliostat.planner.supply import shapes
from heliostat.planner.wants import wants_of
from tests.unit.planner.scenes import scene_of
from tests.unit.planner.world import World, bundle, demand, kind, launches, policy

A, B = {"zone": "a"}, {"zone": "b"}
OPEN = Room(9, Limiter.MAX_WORKERS, "")
BEST = kind("best", price_usd_per_h=1.0, labels=A)


def found(
    *others: NodeType,
    best: NodeType = BEST,
    wanted: dict[Bundle, int] | None = None,
    rooms: dict[str, Room] | None = None,
    offers: tuple[Offer, ...] = (),
) -> list[Rival]:
    """Return who was not taken, `best` having been, for 4 × {CPU: 1} unless told otherwise."""
    world = World(policy=policy(best, *others), offers=offers)
    scene = scene_of(world)
    kinds = shapes(scene, wants_of(scene).lens)
    chosen = next(one for one in kinds if one.name == best.name)
    rest = [one for one in kinds if one.name != best.name]
    return list(rivals(scene, chosen, others=rest, wanted=wanted or {bundle(CPU=1): 4}, rooms=rooms or {}))


def only(*others: NodeType, **given: object) -> tuple[str, str]:
    (one,) = found(*others, **given)  # type: ignore[arg-type]
    return one.why, one.text


@pytest.mark.parametrize(
    ("rival", "wanted", "why", "text"),
    [
        (kind("r", 0.5), {bundle(CPU=1): 4}, "fit", "r lacks CPU (1 asked, 0.5 there)"),
        (kind("r", 8), {bundle(CPU=1, TPU=2): 1}, "fit", "r lacks TPU (2 asked, 0 there)"),
        (
            kind("r", labels=B),
            {bundle("zone=a", CPU=1): 4},
            "label",
            "r does not have the labels of {CPU: 1} where zone in (a)",
        ),
        (
            kind("r", labels=B),
            {bundle("zone=a|zone=b", CPU=1): 4},
            "label",
            "r has the labels of a fallback only, best the preferred ones",
        ),
        (
            kind("r", priority=-1),
            {bundle(CPU=1): 4},
            "priority",
            "r has priority -1, best has 0",
        ),
        (kind("r", 4, 1), {bundle(CPU=1): 4}, "fit", "r has GPU, which nobody asked for"),
        (
            kind("r", price_usd_per_h=2.5),
            {bundle(CPU=1): 4},
            "price",
            "1 × r costs 2.5 $/h, 1 × best costs 1 $/h",
        ),
        # Cheaper by the node, dearer for what it holds.
        (
            kind("r", 1, price_usd_per_h=0.5),
            {bundle(CPU=1): 4},
            "price",
            "4 × r cost 2 $/h, 1 × best costs 1 $/h",
        ),
        (
            kind("r", 64, price_usd_per_h=1.0),
            {bundle(CPU=1): 4},
            "fit",
            "r is filled less well (1 × r costs 1 $/h, 1 × best costs 1 $/h)",
        ),
    ],
)
def test_the_first_thing_that_speaks_against_it(
    rival: NodeType, wanted: dict[Bundle, int], why: str, text: str
) -> None:
    assert only(rival, wanted=wanted) == (why, text)


@pytest.mark.parametrize(
    ("limiter", "why"),
    [
        (Limiter.MAX_WORKERS, "max"),
        (Limiter.TYPE_MAX_WORKERS, "max"),
        (Limiter.BACKOFF, "failure"),
        (Limiter.BACKEND_UNKNOWN, "failure"),
        (Limiter.BUDGET, "price"),
        (Limiter.CAPACITY, "queue"),
    ],
)
def test_a_limit_that_leaves_no_room_before_all_that_is_a_matter_of_taste(limiter: Limiter, why: str) -> None:
    rooms = {"r": Room(0, limiter, "said the ledger")}
    assert only(kind("r", price_usd_per_h=9.0), rooms=rooms) == (why, "said the ledger")
    assert only(kind("r", 0.5), rooms=rooms)[0] == "fit"
    assert only(kind("r", price_usd_per_h=9.0), rooms={"r": OPEN})[0] == "price"


@pytest.mark.parametrize(
    ("best_s", "rival_s", "why"),
    [(10.0, 600.0, "queue"), (600.0, 10.0, "fit"), (None, 600.0, "fit"), (10.0, 10.5, "fit")],
)
def test_a_longer_queue(best_s: float | None, rival_s: float, why: str) -> None:
    offers = (Offer("best", ready_at_s=best_s), Offer("r", ready_at_s=rival_s))
    rival = kind("r", price_usd_per_h=1.0)
    assert only(rival, offers=offers)[0] == why
    if why == "queue":
        assert only(rival, offers=offers)[1] == "r would be ready 590 s later than best"
    assert only(replace(rival, price_usd_per_h=2.0), offers=offers)[0] == "price"


def test_what_the_backend_offers_now_is_the_price() -> None:
    rival = kind("r", price_usd_per_h=9.0)
    offers = (Offer("r", price_usd_per_h=3.0),)
    assert only(rival, offers=offers)[1] == "1 × r costs 3 $/h, 1 × best costs 1 $/h"


def test_bundles_that_must_be_apart_have_a_node_each() -> None:
    apart = {replace(bundle(CPU=1), anti_affinity="g"): 3}
    assert only(kind("r", price_usd_per_h=1.5), wanted=apart)[1] == (
        "3 × r cost 4.5 $/h, 3 × best cost 3 $/h"
    )


def test_the_two_next_best_are_named() -> None:
    """What fits and can be had comes before what is shut, and that before what does not fit."""
    others = (
        kind("small", 0.5),
        kind("shut", price_usd_per_h=1.0),
        kind("dear", price_usd_per_h=3.0),
        kind("dearer", price_usd_per_h=4.0),
    )
    rooms = {"shut": Room(0, Limiter.BACKOFF, "failed")}
    assert [one.node_type for one in found(*others, rooms=rooms)] == ["dear", "dearer"]
    assert [one.node_type for one in found(*others[:3], rooms=rooms)] == ["dear", "shut"]
    assert [one.node_type for one in found(*others[:2], rooms=rooms)] == ["shut", "small"]


def test_of_those_that_can_be_had_in_the_order_in_which_a_type_is_chosen() -> None:
    wanted = {bundle("zone=a|zone=b", CPU=1): 1}
    others = (
        kind("fallback", labels=B, priority=9),
        kind("low", labels=A, priority=-1),
        kind("gpu", 4, 1, labels=A),
        kind("dear", labels=A, price_usd_per_h=5.0),
    )
    for count in (4, 3, 2):
        names = [one.node_type for one in found(*others[:count], wanted=wanted)]
        assert names == ["dear", "gpu", "low", "fallback"][4 - count :][:2]


def test_nothing_wanted_no_rivals() -> None:
    scene = scene_of(World(policy=policy(BEST, kind("r"))))
    kinds = shapes(scene, wants_of(scene).lens)
    assert rivals(scene, kinds[0], others=kinds[1:], wanted={}, rooms={}) == ()


class TestInLaunches:
    def test_demands_count_type_and_rivals_are_data(self) -> None:
        types = (
            kind("cpu", price_usd_per_h=1.0),
            kind("dear", price_usd_per_h=2.0),
            kind("tiny", 0.5, price_usd_per_h=9.0),
        )
        world = World(policy=policy(*types), demands=(demand(3), demand(1, "zone!a", CPU=0.5)))
        (launch,) = launches(world.round())
        assert dict(launch.reason.data) == {
            "type": "cpu",
            "count": 1,
            "demands": [
                {"text": "{CPU: 0.5} where zone not in (a)", "resources": {"CPU": 0.5}, "count": 1},
                {"text": "{CPU: 1}", "resources": {"CPU": 1}, "count": 3},
            ],
            "rivals": [
                {"type": "dear", "why": "price", "text": "1 × dear costs 2 $/h, 1 × cpu costs 1 $/h"},
                {"type": "tiny", "why": "fit", "text": "tiny lacks CPU (1 asked, 0.5 there)"},
            ],
        }

    def test_limits_as_they_are_beside_all_that_is_planned(self) -> None:
        types = kind("a", priority=1, max_workers=2), kind("b")
        world = World(policy=policy(*types), demands=(demand(3, CPU=4),))
        first, second = launches(world.round())
        assert (first.node_type, first.reason.data["rivals"]) == (
            "a",
            [{"type": "b", "why": "priority", "text": "b has priority 0, a has 1"}],
        )
        assert second.reason.data["rivals"] == [
            {"type": "a", "why": "max", "text": "a has 2 of at most 2 (max_workers of the type)"}
        ]

    def test_a_type_that_failed(self) -> None:
        world = World(policy=policy(kind("a", priority=1), kind("b")), demands=(demand(1),))
        world.history = replace(world.history, backoff={"a": Backoff(1, world.now_s + 11, "no image")})
        (launch,) = launches(world.round())
        assert launch.reason.data["rivals"] == [
            {"type": "a", "why": "failure", "text": "a failed once, tried again in 10 s: no image"}
        ]

    def test_a_floor_has_none(self) -> None:
        (launch,) = launches(World(policy=policy(kind("a", min_workers=2), kind("b"))).round())
        assert launch.reason.why is Why.MIN_WORKERS
        assert dict(launch.reason.data) == {"type": "a", "count": 2, "demands": [], "rivals": []}


class TestInfeasible:
    def one(
        self, *types: NodeType, wanted: str = "", **units: float
    ) -> tuple[str, dict[str, tuple[float, float]], tuple[str, ...]]:
        (found,) = World(policy=policy(*types), demands=(demand(1, wanted, **units),)).round().infeasible
        return found.nearest, dict(found.lacks), found.labels

    def test_what_is_nearest_and_what_it_lacks(self) -> None:
        assert self.one(kind("cpu"), kind("gpu", 8, 2), CPU=16, GPU=4) == (
            "gpu",
            {"CPU": (16.0, 8.0), "GPU": (4.0, 2.0)},
            (),
        )

    def test_a_resource_that_nothing_has(self) -> None:
        assert self.one(kind("cpu"), CPU=1, TPU=1) == ("cpu", {"TPU": (1.0, 0.0)}, ())

    def test_labels_that_nothing_has(self) -> None:
        assert self.one(kind("cpu", labels=A), wanted="zone=b", CPU=1) == ("cpu", {}, ("zone in (b)",))

    def test_room_and_labels_on_different_types(self) -> None:
        types = kind("big", 16), kind("small", labels=A)
        assert self.one(*types, wanted="zone=a", CPU=8) == ("small", {"CPU": (8.0, 4.0)}, ())

    def test_neither(self) -> None:
        assert self.one(kind("cpu"), wanted="zone=a", CPU=8) == (
            "cpu",
            {"CPU": (8.0, 4.0)},
            ("zone in (a)",),
        )

    def test_a_file_without_workers(self) -> None:
        world = World(demands=(demand(1),))
        world.policy = replace(world.policy, node_types=())
        (one,) = world.round().infeasible
        assert (one.nearest, dict(one.lacks), one.labels) == ("", {}, ())
