"""What goes into a parcel comes out of it, and what is no parcel is refused before it costs anything."""

from __future__ import annotations

import enum
import json
import math

import numpy as np
import pytest

from heliostat.gateway.work.parcel import LENGTH_BYTES, MAGIC, Damaged, NotSendable, pack, unpack


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (-0.5, -0.5),
        ("Größe", "Größe"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        ((1, [2, {"a": (3,)}]), [1, [2, {"a": [3]}]]),
        ({"$part": 0}, {"$part": 0}),
        ({"$dict": {"$part": 1}, "b": b"x"}, {"$dict": {"$part": 1}, "b": b"x"}),
        (Colour.RED, 3),
        (np.float64(1.5), 1.5),
        (np.int64(2**40), 2**40),
        (np.bool_(True), True),
    ],
)
def test_plain_values_come_back(value: object, found: object) -> None:
    back = unpack(pack(value))
    assert back == found
    assert type(back) is type(found)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array(5, dtype="u1"),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["one", "three"]),
        np.array([1, 2], dtype=">i2"),
    ],
)
def test_arrays_come_back(array: np.ndarray) -> None:
    back = unpack(pack({"a": [array]}))["a"][0]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape


def test_arrays_are_writable_only_where_asked() -> None:
    parcel = pack(np.zeros(3))
    assert not unpack(parcel).flags.writeable
    assert unpack(parcel, writable=True).flags.writeable


def test_not_a_number_comes_back() -> None:
    assert math.isnan(unpack(pack(math.nan)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "it is of type object"),
        ({"a": [1, {2}]}, "what is at ['a'][1] is of type set"),
        ({"a": {1: 2}}, "what is at ['a'] has the key 1"),
        (np.array([object()]), "an array of object"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "an array of datetime64"),
        (np.datetime64("2026-01-01"), "of type datetime64"),
    ],
)
def test_what_cannot_be_sent_is_named(value: object, words: str) -> None:
    with pytest.raises(NotSendable, match=r".+") as error:
        pack(value)
    assert words in str(error.value)


def test_depth_has_a_limit() -> None:
    value: list[object] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(NotSendable, match="nested more than"):
        pack(value)


def parcel_of(head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return MAGIC + len(text).to_bytes(LENGTH_BYTES, "big") + text + body


@pytest.mark.parametrize(
    "parcel",
    [
        b"",
        b"HELPARC1",
        b"\x80\x04K\x01.",
        MAGIC + b"\xff" * LENGTH_BYTES + b"{}",
        parcel_of([]),
        parcel_of({"value": 1}),
        parcel_of({"value": {"$part": 3}, "parts": []}),
        parcel_of({"value": 1, "parts": [["bytes", 10]]}, b"short"),
        parcel_of({"value": 1, "parts": [["bytes", -1]]}, b"short"),
        parcel_of({"value": 1, "parts": [["array", 8, "|O", [1]]]}, b"12345678"),
        parcel_of({"value": 1, "parts": [["array", 8, "<f8", [10**12]]]}, b"12345678"),
        parcel_of({"value": 1, "parts": [["array", 0, "<f8", [10**12]]]}),
        parcel_of({"value": 1, "parts": [["array", 8, "<f8,<f8", [1]]]}, b"12345678"),
    ],
)
def test_what_is_no_parcel_is_refused(parcel: bytes) -> None:
    with pytest.raises(Damaged):
        unpack(parcel)
