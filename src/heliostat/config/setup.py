"""The file's keys for what is done before Ray starts, into a head's and a worker's `Setup`, and their checks.

The order is Ray's own: mounts, initialization_commands, setup_commands, then the head's or the workers'.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.config.errors import KeyPath, found
from heliostat.model.setup import Command, Mount, Setup

if TYPE_CHECKING:
    from heliostat.config.schema import ClusterModel, NodeTypeModel

BYTES_MAX = 48 * 1024
"""A start document goes to a Slurm job in one variable, of which Linux allows 128 KiB."""

COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
FILES = ("file_mounts", "cluster_synced_files", "rsync_exclude", "rsync_filter")
_TYPES = "available_node_types"


def head_setup(model: ClusterModel, base_dir: Path) -> Setup:
    """Return what is done on the head's host. Relative paths are seen from `base_dir`."""
    commands = (
        *_commands("setup_commands", model.setup_commands),
        *_commands("head_setup_commands", model.head_setup_commands),
    )
    initialization = _commands("initialization_commands", model.initialization_commands)
    return _setup(model, base_dir, initialization=initialization, commands=commands)


def worker_setup(model: ClusterModel, node_type: NodeTypeModel, *, name: str, base_dir: Path) -> Setup:
    """Return what is done on the host of a worker of this type; its own lists replace the cluster's."""
    commands = (
        *_commands("setup_commands", model.setup_commands),
        *_commands("worker_setup_commands", model.worker_setup_commands),
    )
    if node_type.worker_setup_commands is not None:
        commands = _commands(f"{name}.worker_setup_commands", node_type.worker_setup_commands)
    initialization = _commands("initialization_commands", model.initialization_commands)
    if node_type.initialization_commands is not None:
        initialization = _commands(f"{name}.initialization_commands", node_type.initialization_commands)
    return _setup(model, base_dir, initialization=initialization, commands=commands)


def _setup(
    model: ClusterModel,
    base_dir: Path,
    *,
    initialization: tuple[Command, ...],
    commands: tuple[Command, ...],
) -> Setup:
    return Setup(
        mounts=tuple(
            Mount(remote, local_path(local, base_dir)) for remote, local in model.file_mounts.items()
        ),
        synced=tuple(model.cluster_synced_files),
        exclude=tuple(model.rsync_exclude) if model.file_mounts else (),
        ignore_files=tuple(model.rsync_filter) if model.file_mounts else (),
        continuously=model.file_mounts_sync_continuously and bool(model.file_mounts),
        initialization=initialization,
        commands=commands,
    )


def _commands(key: str, texts: Sequence[str]) -> tuple[Command, ...]:
    return tuple(Command(f"{key}.{index}", text) for index, text in enumerate(texts))


def local_path(written: str, base_dir: Path) -> str:
    """Return the path on this host, absolute: `~` is the home folder, else it is seen from `base_dir`."""
    return os.path.normpath(os.path.abspath(base_dir / os.path.expanduser(written)))


# -- what types alone can't say


def wrong_lists(data: Mapping[str, Any], node_types: Sequence[str]) -> Iterator[tuple[KeyPath, str]]:
    """Return what bash or rsync could not be given, wherever it stands."""
    holders: list[tuple[KeyPath, Mapping[str, Any]]] = [((), data)]
    holders += [((_TYPES, name), data[_TYPES][name]) for name in node_types]
    for place, holder in holders:
        for key in COMMANDS:
            for index, text in enumerate(_list(holder.get(key))):
                if isinstance(text, str) and (not text.strip() or "\0" in text):
                    yield (*place, key, index), f"{found(text)}; allowed is a command for bash"
    sizes = {key: len(json.dumps([one.get(key) for _, one in holders])) for key in (*COMMANDS, *FILES)}
    if (size := sum(sizes.values())) > BYTES_MAX:
        text = f"all that is done before Ray starts has {size} bytes; allowed are {BYTES_MAX}: call a script"
        yield (max(sizes, key=lambda key: sizes[key]),), text
    for index, path in enumerate(_list(data.get("cluster_synced_files"))):
        if isinstance(path, str) and not _is_anchored(path):
            yield ("cluster_synced_files", index), f"{found(path)}; allowed is a path that begins with / or ~"


def wrong_mounts(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Return the mounts that mean nothing: where to is no path, or a folder into itself."""
    mounts = data.get("file_mounts")
    for remote, local in mounts.items() if isinstance(mounts, dict) else ():
        if not isinstance(local, str):
            continue
        if not _is_anchored(remote):
            text = "where to copy to is not a path that begins with / or ~"
            yield ("file_mounts", remote), f"{text}; write {{<path on the nodes>: <path here>}}"
        elif not local or "\0" in local:
            yield ("file_mounts", remote), f"{found(local)}; allowed is the path of a file or a folder here"


def missing_here(
    data: Mapping[str, Any], base_dir: Path, *, which: Callable[[str], str | None] = shutil.which
) -> Iterator[tuple[KeyPath, str]]:
    """Return what this host has not: the files of the mounts, and rsync where it is needed."""
    mounts = data.get("file_mounts")
    for remote, local in mounts.items() if isinstance(mounts, dict) else ():
        if not isinstance(local, str) or not local or not _is_anchored(remote):
            continue
        source, target = local_path(local, base_dir), os.path.expanduser(remote)
        here, there = os.path.realpath(source), os.path.realpath(target)
        if not os.path.exists(source):
            yield ("file_mounts", remote), f"{found(local)}: there is no {source} here"
        elif here == there:
            continue
        elif os.path.isdir(source) and there.startswith(here.rstrip("/") + "/"):
            text = f"{found(local)}: {remote} lies in it, and a folder can't be copied into itself"
            yield ("file_mounts", remote), text
        elif which("rsync") is None:
            text = "there is no rsync here, which copies it; install it, or mount a path onto itself"
            yield ("file_mounts", remote), f"{found(local)}: {text}"


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _is_anchored(path: str) -> bool:
    return path.startswith(("/", "~/")) and "\0" not in path
