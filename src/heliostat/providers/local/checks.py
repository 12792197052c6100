"""Every wrong key of the backend's parts of a cluster file, all of them at once. Pure.

A finding is (dotted key, «what was found; what is allowed»); the reader of the file adds
the line and the key's whole name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from heliostat.providers.local.options import SECTION_KEYS, WrongOption, parse_bytes, parse_options, said

Finding = tuple[str, str]

# What a worker gets from the cluster and from its place on this machine; a value given here would be lost.
SET_FOR_EACH_WORKER = re.compile(
    r"RAY_(ADDRESS|AUTH_\w+|CLOUD_INSTANCE_ID|NODE_TYPE_NAME)|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER)|HELIOSTAT_\w+"
)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_section(section: dict[str, Any]) -> list[Finding]:
    """Return what is wrong in `provider.backends.local`."""
    return [*_unknown(section, SECTION_KEYS), *_wrong_values(section)]


def check_options(options: dict[str, Any]) -> list[Finding]:
    """Return what is wrong in a `node_config`, of which `options` are the backend's own keys."""
    wrong = [one for key, check in OPTIONS.items() if key in options for one in check(key, options[key])]
    return [*_unknown(options, OPTIONS), *wrong]


def _unknown(given: Mapping[str, Any], known: Iterable[str]) -> Iterator[Finding]:
    names = sorted(known)
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key).lower(), names, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            yield str(key), f"unknown key{meant}; allowed are {', '.join(names)}"


def _wrong_values(section: Mapping[str, Any]) -> Iterator[Finding]:
    for key in SECTION_KEYS:
        if key in section:
            try:
                parse_options({key: section[key]})
            except WrongOption as error:
                yield error.key, error.text


def _truth(key: str, value: object) -> Iterator[Finding]:
    if not isinstance(value, bool):
        yield key, f"{said(value)}; allowed is true or false"


def _texts(key: str, value: object) -> Iterator[Finding]:
    if not isinstance(value, list):
        yield key, f"{said(value)}; allowed is a list of text, one option of `ray start` each"
        return
    for index, one in enumerate(value):
        if not isinstance(one, str) or not one:
            yield f"{key}.{index}", f"{said(one)}; allowed is text, so put it in quotes"


def _size(key: str, value: object) -> Iterator[Finding]:
    if parse_bytes(value) is None:
        yield key, f'{said(value)}; allowed is a number of bytes, or a size such as "1GiB"'


def _variables(key: str, value: object) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield key, f"{said(value)}; allowed is a mapping of variables to text"
        return
    for name, text in value.items():
        # A name with a dot in it would be taken for a longer path.
        if not VARIABLE.fullmatch(str(name)):
            yield key, f"{said(name)} is no name of a variable; allowed are letters, digits and _"
        elif SET_FOR_EACH_WORKER.fullmatch(name):
            yield f"{key}.{name}", "not allowed: it is set for each worker"
        elif not isinstance(text, str):
            yield f"{key}.{name}", f"{said(text)}; allowed is text, so put it in quotes"


OPTIONS: Mapping[str, Callable[[str, object], Iterator[Finding]]] = {
    "environment": _variables,
    "log_monitor": _truth,
    "object_store_memory": _size,
    "ray_args": _texts,
}
"""The backend's own keys of a `node_config`, each with its check."""
