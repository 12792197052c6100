"""Exact arithmetic: nothing drifts, nothing depends on order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.resources import NOTHING, SCALE, Resources

AMOUNTS = st.dictionaries(
    st.sampled_from(["CPU", "GPU", "memory", "x"]), st.integers(0, 50 * SCALE), max_size=4
)
RESOURCES = AMOUNTS.map(lambda one: Resources.from_scaled(one.items()))


def test_tenths_add_up() -> None:
    tenth = Resources.of({"CPU": 0.1})
    assert tenth.times(3).plus(Resources.of({"CPU": 0.7})) == Resources.of({"CPU": 1})
    assert tenth.times(10).fits_in(Resources.of({"CPU": 1}))
    assert not tenth.times(11).fits_in(Resources.of({"CPU": 1}))
    assert Resources.of({"CPU": 1}).minus(tenth.times(10)) == NOTHING


@given(AMOUNTS, st.randoms())
def test_the_order_in_which_amounts_come_does_not_matter(amounts: dict[str, int], order: object) -> None:
    pairs = list(amounts.items())
    order.shuffle(pairs)  # type: ignore[attr-defined]
    mixed, plain = Resources.from_scaled(pairs), Resources.from_scaled(amounts.items())
    assert mixed == plain
    assert hash(mixed) == hash(plain)
    assert str(mixed) == str(plain)


@given(RESOURCES, RESOURCES)
def test_plus_and_minus_undo_one_another(a: Resources, b: Resources) -> None:
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).minus(b) == a
    assert b.fits_in(a.plus(b))
    assert all(amount > 0 for _, amount in a.plus(b))


@given(RESOURCES, RESOURCES)
def test_what_does_not_fit_cannot_be_taken(one: Resources, room: Resources) -> None:
    if one.fits_in(room):
        assert room.minus(one).plus(one) == room
    else:
        with pytest.raises(ValueError, match="must not be negative"):
            room.minus(one)


def test_units_are_whole_where_they_can_be() -> None:
    assert Resources.of({"CPU": 2.0, "GPU": 0.5, "x": 0}).units() == {"CPU": 2, "GPU": 0.5}
    assert str(Resources.of({"GPU": 0.5, "CPU": 2})) == "{CPU: 2, GPU: 0.5}"
    assert not Resources.of({"CPU": 0})
    assert Resources.of({"CPU": 1}).get("GPU") == 0
