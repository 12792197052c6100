"""What can be sent, and how it is written for those who speak JSON."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha import payload

IMAGE = np.arange(6, dtype="<u2").reshape(2, 3)


class Record(dict[str, Any]):
    """As the client's own objects: a dict with more to it."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        ((1, 2.5), [1, 2.5]),
        (memoryview(b"ab"), b"ab"),
        (np.float32(0.5), 0.5),
        (Record(a=Record(b=[1])), {"a": {"b": [1]}}),
    ],
)
def test_plain_values_come_in_standard_types(value: Any, plain: Any) -> None:
    found = payload.received(value, name="inputs")
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (dt.date(2026, 1, 2), "inputs: values of type date can't be sent"),
        ({"a": [print]}, r"inputs\.a\[0\]: values of type builtin_function_or_method can't be sent"),
        ({1: 2}, "keys must be text, not int"),
        ({"_rtype": "method"}, "Hypha's own"),
        ({1, 2}, "type set can't be sent"),
        (2**64, "more than 64 bits"),
        (np.array([None]), "an array of object can't be sent"),
        (np.array(["2026-01-02"], dtype="datetime64[D]"), "an array of datetime64"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(CallError, match=words) as refused:
        payload.received(value, name="inputs")
    assert refused.value.code is Code.INVALID


def test_what_is_nested_too_deep_is_refused() -> None:
    value: Any = 0
    for _ in range(payload.DEPTH_MAX + 1):
        value = [value]
    with pytest.raises(CallError, match="64 levels deep"):
        payload.received(value, name="inputs")


@pytest.mark.parametrize(
    "value",
    [[0] * 10, {str(number): 0 for number in range(10)}, [[0] * 5, [0] * 4]],
    ids=["list", "dict", "in"],
)
def test_small_values_are_counted_and_arrays_and_bytes_are_not(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setattr(payload, "VALUES_MAX", 10)
    with pytest.raises(CallError, match="inputs holds more than 10 values; send arrays") as refused:
        payload.received({"a": value}, name="inputs")
    assert refused.value.code is Code.TOO_LARGE
    with pytest.raises(CallError, match="the result holds more than 10 values") as refused:
        payload.result(value, limit_bytes=10**6)
    assert refused.value.code is Code.TOO_LARGE
    payload.received([np.arange(100), *[b"ab"] * 100], name="inputs")


def test_a_result_has_its_limit() -> None:
    assert payload.result(b"12345678", limit_bytes=8) == (b"12345678", 8)
    with pytest.raises(CallError, match="the result has 9 bytes; 8 are allowed") as refused:
        payload.result(b"123456789", limit_bytes=8)
    assert refused.value.code is Code.TOO_LARGE


def test_a_result_that_cannot_be_sent_is_the_scripts_fault() -> None:
    with pytest.raises(CallError, match="the result: values of type object can't be sent") as refused:
        payload.result(object(), limit_bytes=8)
    assert refused.value.code is Code.FAILED


@pytest.mark.parametrize(
    ("value", "size"), [("ä", 2), (b"abc", 3), (IMAGE, 12), ([1, 2], 24), ({"ab": "c"}, 11), (None, 8)]
)
def test_sizes(value: Any, size: int) -> None:
    assert payload.size_bytes(value) == size


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, "b", None], "c": b"\x00\xff"},
        {"$bytes": 1, "and": 2},
        float("inf"),
        [IMAGE, np.zeros((0, 3)), np.array(True), np.array(["ab", "c"]), IMAGE.T],
    ],
)
def test_json_brings_every_plain_value_back(value: Any) -> None:
    written = json.dumps(payload.to_json(value), allow_nan=False)
    back = payload.from_json(json.loads(written), name="inputs")
    np.testing.assert_equal(back, value)


@pytest.mark.parametrize(
    "value",
    [
        {"$bytes": "not base64!"},
        {"$bytes": 5},
        {"$float": "one"},
        {"$array": {"dtype": "O", "shape": [1], "data": "AAAAAAAAAAA="}},
        {"$array": {"dtype": "<f8", "shape": [2], "data": "AAAAAAAAAAA="}},
        {"$array": {"dtype": "<f8", "shape": [float("inf")], "data": "AAAAAAAAAAA="}},
        {"$array": {"dtype": "<f8", "shape": [2**80], "data": "AAAAAAAAAAA="}},
        {"$array": {"dtype": "<f8"}},
        {"$array": []},
    ],
)
def test_json_that_says_what_it_does_not_hold_is_refused(value: Any) -> None:
    with pytest.raises(CallError, match=r"inputs\.x: what \$\w+ holds can't be read"):
        payload.from_json({"x": value}, name="inputs")
