"""JSON and the values that cross the control socket: frozen dataclasses there and back.

Standard library only, so that a command line starts fast. A key we don't know is left
out (a newer controller may say more); one that we need and lack is a `WireError`.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError
from heliostat.ports.journal import Event, Lifetime, ProviderCall

T = TypeVar("T")


class WireError(HeliostatError):
    """The other side sent something that is not what this version expects."""


def dumps(value: object) -> bytes:
    """Return compact UTF-8 JSON; dataclasses become objects."""
    return json.dumps(to_plain(value), ensure_ascii=False, separators=(",", ":")).encode()


def to_plain(value: object) -> Any:
    """Return `value` as plain JSON values: dataclasses to dicts, tuples to lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    return value


def loads(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`; WireError when it is none."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise WireError(f"this is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WireError(f"a JSON object is expected, not {type(value).__name__}")
    return value


def status_from(data: Mapping[str, Any]) -> StatusReport:
    return build(StatusReport, data)


def events_from(data: Mapping[str, Any]) -> list[Event]:
    return [build(Event, one) for one in data.get("events", [])]


def calls_from(data: Mapping[str, Any]) -> list[ProviderCall]:
    return [build(ProviderCall, one) for one in data.get("calls", [])]


def lifetimes_from(data: Mapping[str, Any]) -> list[Lifetime]:
    return [build(Lifetime, one) for one in data.get("lifetimes", [])]


def build(kind: type[T], data: object) -> T:
    """Rebuild the dataclass `kind` from plain JSON values, nested lists of dataclasses too."""
    if not isinstance(data, Mapping):
        raise WireError(f"an object is expected for {kind.__name__}, not {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if field.name in data:
            given[field.name] = _value(hints[field.name], data[field.name])
        elif _is_required(field):
            raise WireError(
                f"{kind.__name__} came without «{field.name}»: "
                "the controller is of another version of heliostat"
            )
    return kind(**given)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any) -> Any:
    """Turn one JSON value into what `hint` says; only lists and dataclasses need any work."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [one for one in typing.get_args(hint) if one is not type(None)]
        return None if value is None else _value(inner[0], value)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise WireError(f"a list is expected, not {type(value).__name__}")
        item = typing.get_args(hint)[0]
        return origin(_value(item, one) for one in value)
    if dataclasses.is_dataclass(hint):
        return build(cast(type[Any], hint), value)
    return value
