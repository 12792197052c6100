"""What callers and the cluster may send each other: plain values, and how these are written as JSON. Pure.

Plain are None, booleans, numbers, text, bytes, NumPy arrays, and lists and dicts of these with text for
keys. Whatever Hypha's client makes of other things (functions, streams, models, sets) is refused here,
before anybody touches it. JSON has no bytes, no arrays and no NaN: for callers who speak it these
are written as objects with a single key, `$bytes`, `$array` or `$float`, and read back from them.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heliostat.gateway.errors import CallError, Code

DEPTH_MAX = 64
"""How deep lists and dicts may lie in each other; deeper ones would exhaust a reader's stack."""

VALUES_MAX = 200_000
"""Values that one argument or result may hold, arrays and bytes not counted: looking at each takes about a
microsecond of Python, while others wait for the interpreter."""

ARRAY_KINDS = "biufcSU"
"""NumPy's kinds of array whose bytes mean the same elsewhere: no objects, no dates, no records."""

WORD_BYTES = 8
"""What a number, a boolean or None counts for."""

BYTES, ARRAY, FLOAT = "$bytes", "$array", "$float"
_SIGNS = ("_rtype", "_rintf")
"""Keys by which Hypha's client tells its own objects from data."""

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
"""What MessagePack can write."""


class NotPlain(ValueError):
    """A value can't be sent; the text says what and where in it."""

    def __init__(self, where: str, words: str) -> None:
        super().__init__(f"{where}{words}")
        self._where, self._words = where, words

    def under(self, place: str) -> NotPlain:
        """Return the same as seen from further out: only who fails needs to know where."""
        return type(self)(f"{place}{self._where}", self._words)


class TooMany(NotPlain):
    """There are more than `VALUES_MAX` values."""


def received(value: Any, *, name: str) -> Any:
    """Return a caller's argument as plain values of the standard types; raises `CallError`."""
    try:
        return plain(value, where=name)
    except NotPlain as error:
        raise CallError(_code(error, Code.INVALID), str(error)) from error


def result(value: Any, *, limit_bytes: int) -> tuple[Any, int]:
    """Return what goes back to a caller, and its size in bytes.

    Raises `CallError` where it can't be sent, or is too large.
    """
    try:
        sent = plain(value, where="the result")
    except NotPlain as error:
        raise CallError(_code(error, Code.FAILED), str(error)) from error
    size = size_bytes(sent)
    if size > limit_bytes:
        raise CallError(Code.TOO_LARGE, f"the result has {size} bytes; {limit_bytes} are allowed")
    return sent, size


def plain(value: Any, *, where: str) -> Any:
    """Return the same in None, bool, int, float, str, bytes, ndarray, list and dict; raises `NotPlain`."""
    try:
        return _Walk().plain(value, depth=0)
    except NotPlain as error:
        raise error.under(where) from None


class _Walk:
    """One way through a value, which counts what it meets."""

    def __init__(self) -> None:
        self._left = VALUES_MAX

    def plain(self, value: Any, *, depth: int) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, np.ndarray):
            return _array(value)
        self._left -= 1
        if self._left < 0:
            raise TooMany("", f" holds more than {VALUES_MAX} values; send arrays or bytes instead")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int | float):
            return _number(value)
        if depth >= DEPTH_MAX:
            raise NotPlain("", f" is nested more than {DEPTH_MAX} levels deep")
        return self._many(value, depth + 1)

    def _many(self, value: Any, depth: int) -> Any:
        if isinstance(value, list | tuple):
            return self._list(value, depth)
        if isinstance(value, Mapping):
            return self._dict(value, depth)
        kind = type(value).__name__
        raise NotPlain("", f": values of type {kind} can't be sent, JSON's, bytes and arrays can")

    def _list(self, value: Sequence[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for one in value:
            try:
                found.append(self.plain(one, depth=depth))
            except NotPlain as error:
                raise _under(error, f"[{len(found)}]") from None
        return found

    def _dict(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, one in value.items():
            name = _key(key)
            try:
                found[name] = self.plain(one, depth=depth)
            except NotPlain as error:
                raise _under(error, f".{name}") from None
        return found


def _under(error: NotPlain, place: str) -> NotPlain:
    # Too many are too many in the whole: where the last straw lay says nothing.
    return error if isinstance(error, TooMany) else error.under(place)


def _array(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if value.dtype.kind not in ARRAY_KINDS:
        raise NotPlain("", f": an array of {value.dtype} can't be sent, only of numbers and text")
    # A subclass could bring functions of its own.
    return np.asarray(value)


def _number(value: float) -> float:
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise NotPlain("", ": an integer of more than 64 bits can't be sent")
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise NotPlain("", f": a dict's keys must be text, not {type(key).__name__}")
    if key in _SIGNS:
        raise NotPlain("", f": the key {key} is Hypha's own and can't be sent")
    return key


def _code(error: NotPlain, otherwise: Code) -> Code:
    return Code.TOO_LARGE if isinstance(error, TooMany) else otherwise


def size_bytes(value: Any) -> int:
    """Return about how much a plain value is to send: its text, bytes and arrays, and 8 for what is small."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, list):
        return sum(map(size_bytes, value)) + WORD_BYTES
    if isinstance(value, dict):
        return sum(size_bytes(key) + size_bytes(one) for key, one in value.items()) + WORD_BYTES
    return WORD_BYTES


def to_json(value: Any) -> Any:
    """Return a plain value in JSON's types alone."""
    if isinstance(value, bytes):
        return {BYTES: _base64(value)}
    if isinstance(value, np.ndarray):
        data = _base64(value.tobytes())
        return {ARRAY: {"dtype": value.dtype.str, "shape": list(value.shape), "data": data}}
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: str(value)}
    if isinstance(value, list):
        return [to_json(one) for one in value]
    if isinstance(value, dict):
        return {key: to_json(one) for key, one in value.items()}
    return value


def from_json(value: Any, *, name: str) -> Any:
    """Return what `to_json` has written; raises `CallError` where that is not to be understood."""
    if isinstance(value, list):
        return [from_json(one, name=f"{name}[{at}]") for at, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key in _READERS:
            return _read(key, inner, name)
    return {key: from_json(one, name=f"{name}.{key}") for key, one in value.items()}


def _read(key: str, inner: Any, name: str) -> Any:
    try:
        return _READERS[key](inner)
    except (ValueError, TypeError, KeyError, ArithmeticError, binascii.Error) as error:
        raise CallError(Code.INVALID, f"{name}: what {key} holds can't be read") from error


def _read_array(inner: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(str(inner["dtype"]))
    if dtype.kind not in ARRAY_KINDS:
        raise ValueError(dtype)
    data = base64.b64decode(inner["data"], validate=True)
    return np.frombuffer(data, dtype=dtype).reshape([int(length) for length in inner["shape"]])


def _read_float(inner: Any) -> float:
    if inner not in ("nan", "inf", "-inf"):
        raise ValueError(inner)
    return float(inner)


_READERS: dict[str, Callable[[Any], Any]] = {
    BYTES: lambda inner: base64.b64decode(inner, validate=True),
    ARRAY: _read_array,
    FLOAT: _read_float,
}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
