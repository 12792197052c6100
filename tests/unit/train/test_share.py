"""Dividing a cluster: what fits, fair by weight, minimums first, and standing once it is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.train.cluster import Room
from heliostat.train.share import Claim, Share, divide, matches

GPU = {"GPU": 1.0}


def gpus(*counts: float) -> list[Room]:
    return [Room(f"n{index}", {"GPU": count, "CPU": 4.0}) for index, count in enumerate(counts)]


def claim(name: str, want: int, **rest: Any) -> Claim:
    return Claim(name, rest.pop("bundle", GPU), want, **rest)


def counts(share: Share) -> dict[str, int]:
    return {name: sum(places.values()) for name, places in share.items()}


@pytest.mark.parametrize(
    ("rooms", "claims", "expected"),
    [
        (gpus(4), [claim("a", 8), claim("b", 8)], {"a": 2, "b": 2}),
        (gpus(4), [claim("a", 8, weight=3), claim("b", 8)], {"a": 3, "b": 1}),
        (gpus(4), [claim("a", 1), claim("b", 8)], {"a": 1, "b": 3}),
        (gpus(4), [claim("a", 8), claim("b", 8, min_size=3)], {"a": 1, "b": 3}),
        (gpus(1), [claim("a", 8, min_size=1), claim("b", 8, min_size=1)], {"a": 1, "b": 0}),
        (gpus(3), [claim("a", 8), claim("b", 8, held={"n0": 2})], {"a": 1, "b": 2}),
        (gpus(3), [claim("a", 8, held={"n0": 2}), claim("b", 8)], {"a": 2, "b": 1}),
        (gpus(), [claim("a", 8, min_size=1)], {"a": 0}),
        (gpus(1, 1), [claim("a", 8, bundle={"GPU": 2.0}), claim("b", 8)], {"a": 0, "b": 2}),
        (gpus(2, 1), [claim("a", 8, bundle={"GPU": 2.0}), claim("b", 1)], {"a": 1, "b": 1}),
        (gpus(1, 0), [claim("a", 2), claim("b", 4, bundle={"CPU": 4.0})], {"a": 1, "b": 2}),
        (gpus(0.5), [claim("a", 8, bundle={"GPU": 0.1})], {"a": 5}),
    ],
)
def test_divide(rooms: list[Room], claims: list[Claim], expected: dict[str, int]) -> None:
    assert counts(divide(rooms, claims)) == expected


def test_nobody_moves_where_places_are_equal() -> None:
    claims = [claim("a", 2, held={"n3": 1, "n1": 1}), claim("b", 2, held={"n0": 1, "n2": 1})]
    share = divide(gpus(1, 1, 1, 1), claims)
    assert share == {one.name: dict(one.held) for one in claims}


def test_labels_count() -> None:
    rooms = [Room("x", GPU, {"zone": "a"}), Room("y", GPU, {"zone": "b"})]
    share = divide(rooms, [claim("a", 2, label_selector={"zone": "b"}), claim("b", 2)])
    assert share == {"a": {"y": 1}, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("selector", "labels", "fits"),
    [
        (None, {}, True),
        ({"a": "1"}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, {}, False),
        ({"a": "!1"}, {"a": "1"}, False),
        ({"a": "!1"}, {}, True),
        ({"a": "in(1, 2)"}, {"a": "2"}, True),
        ({"a": "in(1,2)"}, {"a": "3"}, False),
        ({"a": "!in(1,2)"}, {"a": "3"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
    ],
)
def test_selectors_as_ray_writes_them(
    selector: Mapping[str, str] | None, labels: dict[str, str], fits: bool
) -> None:
    assert matches(selector, labels) is fits


WANTS = st.integers(0, 6)
BUNDLES = st.sampled_from([{"GPU": 1.0}, {"GPU": 2.0}, {"CPU": 2.0}, {"GPU": 0.5, "CPU": 1.0}])
ROOMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), max_size=5).map(
    lambda sizes: [
        Room(f"n{index}", {"GPU": float(gpu), "CPU": float(cpu)}) for index, (gpu, cpu) in enumerate(sizes)
    ]
)


def claims_of(bundles: st.SearchStrategy[dict[str, float]]) -> st.SearchStrategy[list[Claim]]:
    one = st.builds(
        Claim,
        name=st.uuids().map(str),
        bundle=bundles,
        want=WANTS,
        min_size=st.integers(0, 2),
        weight=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    )
    return st.lists(one, min_size=1, max_size=4, unique_by=lambda each: each.name)


def left_over(rooms: list[Room], claims: list[Claim], share: Share) -> dict[str, dict[str, float]]:
    free = {room.node_id: dict(room.free) for room in rooms}
    for one in claims:
        for node, count in share[one.name].items():
            for name, amount in one.bundle.items():
                free[node][name] -= count * amount
    return free


@given(ROOMS, claims_of(BUNDLES))
def test_it_fits_nobody_gets_too_much_and_nothing_is_wasted(rooms: list[Room], claims: list[Claim]) -> None:
    share = divide(rooms, claims)
    free = left_over(rooms, claims, share)
    assert all(amount > -1e-6 for node in free.values() for amount in node.values())
    for one in claims:
        got = counts(share)[one.name]
        assert got <= one.want
        could = any(
            all(node[name] >= amount for name, amount in one.bundle.items()) for node in free.values()
        )
        assert got == one.want or not could


@given(ROOMS, claims_of(st.just(GPU)))
def test_it_is_max_min_fair(rooms: list[Room], claims: list[Claim]) -> None:
    """Nobody who could use a place has less for its weight than another has beyond its minimum."""
    got = counts(divide(rooms, claims))
    for poor in claims:
        for rich in claims:
            if got[poor.name] < poor.want and got[rich.name] > min(rich.min_size, rich.want):
                assert (got[poor.name] + 1) / poor.weight >= got[rich.name] / rich.weight - 1e-9


@given(ROOMS, claims_of(st.just(GPU)))
def test_minimums_come_first(rooms: list[Room], claims: list[Claim]) -> None:
    got = counts(divide(rooms, claims))
    needs = {one.name: min(one.min_size, one.want) for one in claims}
    if sum(needs.values()) <= sum(room.free["GPU"] for room in rooms):
        assert all(got[name] >= least for name, least in needs.items())


@given(ROOMS, claims_of(st.just(GPU)))
def test_a_division_that_was_carried_out_stands(rooms: list[Room], claims: list[Claim]) -> None:
    share = divide(rooms, claims)
    settled = [replace(one, held=share[one.name]) for one in claims]
    assert divide(rooms, settled) == share
