"""The section `provider.backends.local` of a cluster file, parsed once. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.ports.errors import InvalidRequest

SIZES = {
    "": 1,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
DEFAULT_TEMP_ROOT = "/tmp"  # Ray's sockets allow 107 bytes of path, so it has to be short.
DEFAULT_PORT_RANGE = (20000, 32000)
SECTION_KEYS = ("cpus", "gpus", "memory", "port_range", "temp_root", "terminate_grace_s")
SAID_CHARS = 60


class WrongOption(InvalidRequest):
    """A key of the section is wrong; `key`, and `text` on what was found and what is allowed."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(f"provider.backends.local.{key} is {found!r}; allowed: {allowed}")
        self.key = key
        self.text = f"{said(found)}; allowed is {allowed}"


@dataclass(frozen=True)
class LocalOptions:
    """`gpus` and `cpus` and `memory_bytes` None mean: what is found on this machine.

    `gpus` is a number of GPUs, or the ids to be put into CUDA_VISIBLE_DEVICES.
    `terminate_grace_s` None means the bootstrap's own grace time and a little more.
    """

    gpus: int | tuple[str, ...] | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    temp_root: str = DEFAULT_TEMP_ROOT
    port_range: tuple[int, int] = DEFAULT_PORT_RANGE
    terminate_grace_s: float | None = None


def parse_options(section: Mapping[str, object]) -> LocalOptions:
    """Return the section's values; InvalidRequest names the key that is wrong."""
    unknown = sorted(set(section) - set(SECTION_KEYS))
    if unknown:
        raise WrongOption(unknown[0], section[unknown[0]], "no such key")
    grace_s = section.get("terminate_grace_s")
    if grace_s is not None and not _is_seconds(grace_s):
        raise WrongOption("terminate_grace_s", grace_s, "a number of seconds, 0 or more")
    return LocalOptions(
        gpus=_gpus(section.get("gpus", "auto")),
        cpus=_cpus(section.get("cpus", "auto")),
        memory_bytes=_memory(section.get("memory", "auto")),
        temp_root=_temp_root(section.get("temp_root", DEFAULT_TEMP_ROOT)),
        port_range=_port_range(section.get("port_range", DEFAULT_PORT_RANGE)),
        terminate_grace_s=None if grace_s is None else float(str(grace_s)),
    )


def parse_bytes(value: object) -> int | None:
    """Return the bytes of `1024`, `"8GiB"`, `"500 MB"`; None if it is no such thing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value > 0 else None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(value).strip().lower())
    if not found or found[2] not in SIZES:
        return None
    return int(float(found[1]) * SIZES[found[2]]) or None


def said(value: object) -> str:
    """Return a value as a person would have written it in the file, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SAID_CHARS else text[: SAID_CHARS - 1] + "…"


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_count(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _gpus(value: object) -> int | tuple[str, ...] | None:
    if value in ("auto", None):
        return None
    if isinstance(value, int) and _is_count(value, least=0):
        return value
    if isinstance(value, list | tuple):
        ids = tuple(str(one) for one in value)
        if len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w/:.-]+", one) for one in ids):
            return ids
    raise WrongOption("gpus", value, "auto, a number, or a list of different GPU ids")


def _cpus(value: object) -> int | None:
    if value in ("auto", None):
        return None
    if isinstance(value, int) and _is_count(value, least=1):
        return value
    raise WrongOption("cpus", value, "auto or a whole number of CPUs")


def _memory(value: object) -> int | None:
    if value in ("auto", None):
        return None
    size = parse_bytes(value)
    if size is None:
        raise WrongOption("memory", value, 'auto, a number of bytes, or a size such as "8GiB"')
    return size


def _temp_root(value: object) -> str:
    if isinstance(value, str) and value.startswith("/"):
        return value
    raise WrongOption("temp_root", value, "an absolute path, a short one")


def _port_range(value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if isinstance(low, int) and isinstance(high, int) and 1024 <= low < high <= 65535:
            return low, high
    raise WrongOption("port_range", value, "[lowest, highest] port, within 1024 and 65535")
