"""Every wrong key of the backend's parts of a cluster file, all of them at once. Pure.

A finding is (dotted key, «what was found; what is allowed»); the reader of the file adds
the line and the key's whole name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from heliostat.providers.slurm.keys import JOB_PARSERS, OPTION_KEYS, SECTION_KEYS
from heliostat.providers.slurm.options import (
    FIELDS,
    JobOptions,
    WrongOption,
    job_conflict,
    parse_value,
)

Finding = tuple[str, str]


def check_section(section: dict[str, Any]) -> list[Finding]:
    """Return what is wrong in `provider.backends.slurm`."""
    return _check(section, SECTION_KEYS)


def check_options(options: dict[str, Any]) -> list[Finding]:
    """Return what is wrong in a `node_config`, of which `options` are the backend's own keys."""
    return _check(options, OPTION_KEYS)


def _check(given: Mapping[str, Any], known: tuple[str, ...]) -> list[Finding]:
    values = {key: value for key, value in given.items() if key in known and value is not None}
    wrong = [finding for key, value in values.items() for finding in _wrong(key, value)]
    return [*_unknown(given, known), *wrong, *([] if wrong else _conflicts(values))]


def _unknown(given: Mapping[str, Any], known: Iterable[str]) -> Iterator[Finding]:
    names = list(known)
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key).lower().replace("-", "_"), names, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            yield str(key), f"unknown key{meant}; allowed are {', '.join(names)}"


def _wrong(key: str, value: object) -> Iterator[Finding]:
    """Look at each entry of a list or mapping by itself, so that every wrong one is named."""
    if isinstance(value, list) and len(value) > 1 and key != "port_range":
        for index, one in enumerate(value):
            yield from _findings(key, [one], place=index)
    elif isinstance(value, dict) and key == "environment":
        for name, one in value.items():
            yield from _findings(key, {name: one})
    else:
        yield from _findings(key, value)


def _findings(key: str, value: object, *, place: int | None = None) -> Iterator[Finding]:
    try:
        parse_value(key, value)
    except WrongOption as error:
        at = error.key if place is None else error.key.removesuffix(".0") + f".{place}"
        yield at, error.text


def _conflicts(values: Mapping[str, Any]) -> Iterator[Finding]:
    job = JobOptions(
        **{FIELDS.get(key, key): parse_value(key, values[key]) for key in JOB_PARSERS if key in values}
    )
    conflict = job_conflict(job)
    if conflict:
        error = WrongOption(*conflict)
        yield error.key, error.text
