"""A value as bytes: what scripts take and leave, between processes that do not trust one another.

JSON, bytes and numpy arrays, nested as they come. Nothing in a parcel is ever executed or unpickled, so
that one from a stranger's script is safe to open. Standard library only, numpy only where an array is met:
this file also travels to the nodes and into sandboxes, whatever Python is there (3.9 or later).

A parcel is MAGIC, the length of its head in 8 bytes (big-endian), the head, then the parts one after another.
The head is JSON: `value`, in which `{"$part": 2}` stands for the third part and `{"$dict": {…}}` for an
object with a key that begins with `$`, and `parts`, each `["bytes", length]` or `["array", length, dtype,
shape]`.
"""

from __future__ import annotations

import json
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAGIC = b"HELPARC1"
LENGTH_BYTES = 8
DEPTH_MAX = 64
DTYPES = re.compile(r"[<>|][biufcSU]\d+")
"""Numbers, truth values and texts of a fixed length: what has a meaning without Python objects."""


class NotSendable(ValueError):
    """The value holds something that can't be sent; the text says what, and where in the value."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"what is at {where} {what}" if where else f"it {what}")
        self.where = where
        self.what = what

    def inside(self, outer: str) -> NotSendable:
        """Return the same as seen from within `outer`, such as `['value']`."""
        return NotSendable(self.where.removeprefix(outer), self.what)


class Damaged(ValueError):
    """These bytes are no parcel."""


def pack(value: Any) -> bytes:
    """Return `value` as a parcel; raises NotSendable. Tuples become lists, numpy's scalars numbers."""
    kinds: list[list[Any]] = []
    bodies: list[Any] = []
    plain = _plain(value, "", 0, _Parts(kinds, bodies))
    head = json.dumps({"value": plain, "parts": kinds}, separators=(",", ":")).encode()
    return b"".join([MAGIC, len(head).to_bytes(LENGTH_BYTES, "big"), head, *bodies])


def unpack(parcel: bytes, *, writable: bool = False) -> Any:
    """Return the value; raises Damaged. Arrays look into `parcel` itself unless they are to be `writable`."""
    start = len(MAGIC) + LENGTH_BYTES
    if parcel[: len(MAGIC)] != MAGIC or len(parcel) < start:
        raise Damaged("it does not begin as a parcel does")
    end = start + int.from_bytes(parcel[len(MAGIC) : start], "big")
    try:
        head = json.loads(parcel[start:end])
        parts = _opened(head["parts"], memoryview(parcel)[end:], writable=writable)
        return _whole(head["value"], parts)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Damaged(f"its head is damaged ({type(error).__name__})") from error


class _Parts:
    """What is sent beside the JSON."""

    def __init__(self, kinds: list[list[Any]], bodies: list[Any]) -> None:
        self.kinds = kinds
        self.bodies = bodies

    def add(self, kind: list[Any], body: Any) -> dict[str, int]:
        self.kinds.append(kind)
        self.bodies.append(body)
        return {"$part": len(self.kinds) - 1}


def _plain(value: Any, where: str, depth: int, parts: _Parts) -> Any:
    """Return the JSON that stands for `value`, which is at `where` in the whole."""
    if depth > DEPTH_MAX:
        raise NotSendable("", f"is nested more than {DEPTH_MAX} deep")
    if value is None or isinstance(value, (str, bool, int, float)):
        return _scalar(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        body = bytes(value)
        return parts.add(["bytes", len(body)], body)
    if isinstance(value, dict):
        found = {
            _key(key, where): _plain(one, f"{where}[{key!r}]", depth + 1, parts) for key, one in value.items()
        }
        return {"$dict": found} if any(key.startswith("$") for key in found) else found
    if isinstance(value, (list, tuple)):
        return [_plain(one, f"{where}[{index}]", depth + 1, parts) for index, one in enumerate(value)]
    return _of_numpy(value, where, parts)


def _scalar(value: Any) -> Any:
    # A subclass (an enum, numpy's float64) goes as what it is in JSON.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value) if type(value) is not kind else value
    return value


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise NotSendable(where, f"has the key {key!r}: keys have to be text")
    return str(key)


def _of_numpy(value: Any, where: str, parts: _Parts) -> Any:
    # Who has not imported numpy has nothing of it.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
        return value.item()
    if numpy is None or not isinstance(value, numpy.ndarray):
        raise NotSendable(where, f"is of type {type(value).__name__}")
    dtype = value.dtype.str
    if not DTYPES.fullmatch(dtype):
        raise NotSendable(where, f"is an array of {value.dtype}")
    body = numpy.ascontiguousarray(value).tobytes()
    return parts.add(["array", len(body), dtype, list(value.shape)], body)


def _opened(kinds: list[list[Any]], rest: memoryview, *, writable: bool) -> list[Any]:
    parts = []
    for kind in kinds:
        length = int(kind[1])
        body, rest = rest[:length], rest[length:]
        if length < 0 or len(body) != length:
            raise ValueError("a part is cut off")
        parts.append(bytes(body) if kind[0] == "bytes" else _array(body, kind[2], kind[3], writable=writable))
    return parts


def _array(body: memoryview, dtype: str, shape: list[int], *, writable: bool) -> Any:
    if not DTYPES.fullmatch(dtype):
        raise ValueError("no dtype of ours")
    import numpy as np

    sizes = [int(one) for one in shape]
    if not body and 0 in sizes:
        return np.zeros(sizes, dtype)
    # The shape is checked against the bytes that are there before any memory is taken for it.
    found = np.frombuffer(body, dtype=np.dtype(dtype)).reshape(sizes)
    return found.copy() if writable else found


def _whole(value: Any, parts: list[Any]) -> Any:
    if isinstance(value, list):
        return [_whole(one, parts) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and "$part" in value:
        return parts[value["$part"]]
    if len(value) == 1 and "$dict" in value:
        value = value["$dict"]
    return {key: _whole(one, parts) for key, one in value.items()}
