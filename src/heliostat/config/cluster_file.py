"""A cluster file on disk, with its defaults, into a checked `ClusterSpec`.

Three layers, the nearest wins: the file, the file that `provider.defaults_from` names, the
site's file. All problems of all layers are reported at once, each with the file it is in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from heliostat.config.autoscaler import RAY
from heliostat.config.checks import BackendChecker, BackendKeys, check_all
from heliostat.config.drain_limits import drain_limits
from heliostat.config.errors import KeyPath, Position, Problem, lines
from heliostat.config.gateway import missing_here as missing_functions
from heliostat.config.gateway import settings_of, with_absolute_paths
from heliostat.config.gcs_storage import parsed_address
from heliostat.config.old_files import read_old
from heliostat.config.positions import Document, layered, parse, spread
from heliostat.config.ray_keys import noted
from heliostat.config.schema import ClusterModel, GcsStorageModel, NodeTypeModel, validated
from heliostat.config.setup import head_setup, missing_here, worker_setup
from heliostat.model.gcs_storage import GcsStorage
from heliostat.model.node_type import ClusterSpec, HeadPorts, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.model.setup import NO_SETUP, Setup
from heliostat.ports.errors import ConfigError

FILE_BYTES_MAX = 1_000_000
SHAPE_ID_CHARS = 12

_DEFAULTS_FROM = ("provider", "defaults_from")


def load_cluster_file(
    path: Path,
    *,
    backends: Mapping[str, BackendKeys],
    site_file: Path | None = None,
    base_dir: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_disk: bool = False,
) -> ClusterSpec:
    """Read, check and complete a cluster file; raise ConfigError with every problem.

    `backends` are the installed ones, by name. `site_file` need not exist. Relative paths (`defaults_from`,
    what `file_mounts` copies) are seen from `base_dir`, by default the file's own folder: give it
    when `path` is a copy. `overrides` is laid over the file (keys as in the file). `on_disk`: look for
    what the file mounts, too, as before a start; not where a cluster runs, whose files may have gone.
    """
    document, problems = _read(path)
    if document is None:
        raise _error(problems)
    old = read_old(document, backends)
    document, problems = old.document, [*problems, *old.problems]
    if overrides:
        document = layered(spread(overrides, Position("command line", 0)), document)
    base_dir = base_dir or path.parent
    document, more = _with_defaults(document, base_dir=base_dir, site_file=site_file)
    model, wrong = validated(document)
    problems += more
    told = {problem.key for problem in problems}
    # What the parser could not make sense of reads as null: saying that as well would mislead.
    problems += [one for one in (*wrong, *check_all(document, backends)) if one.key not in told]
    if on_disk:
        problems += _problems(document, missing_here(document.data, base_dir))
        problems += _problems(document, missing_functions(document.data, base_dir))
    if model is None or problems:
        raise _error(problems)
    notes = lines([*old.notes, *_problems(document, noted(document.data))])
    return replace(_spec(model, base_dir=base_dir, source=str(path)), notes=tuple(notes))


def _problems(document: Document, pairs: Iterable[tuple[KeyPath, str]]) -> list[Problem]:
    return [Problem(document.at(path), path, text) for path, text in pairs]


@dataclass(frozen=True)
class FileConfigSource:
    """`ports.ConfigSource`: the file as it is at the moment of `load()`."""

    path: Path
    backends: Mapping[str, BackendKeys]
    site_file: Path | None = None
    base_dir: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    on_disk: bool = False

    def load(self) -> ClusterSpec:
        return load_cluster_file(
            self.path,
            backends=self.backends,
            site_file=self.site_file,
            base_dir=self.base_dir,
            overrides=self.overrides,
            on_disk=self.on_disk,
        )


def absolute_paths(path: Path, spec: ClusterSpec) -> dict[str, Any]:
    """Return the keys of the file's top level in which paths are relative, with absolute ones.

    `spec` is what the file means. Laid over it they make a copy that means the same from any folder.
    """
    data = yaml.safe_load(_text(path)[0] or "")
    provider, mounts = data.get("provider") or {}, {one.remote: one.local for one in spec.head_setup.mounts}
    found = {} if mounts == (data.get("file_mounts") or {}) else {"file_mounts": mounts}
    named = provider.get(_DEFAULTS_FROM[-1])
    defaults = named and str(path.parent.resolve() / os.path.expanduser(named))
    moved = {} if defaults == named else {"defaults_from": defaults}
    moved |= with_absolute_paths(data, spec.gateway)
    return {**found, "provider": {**provider, **moved}} if moved else found


def dump_for_state(
    path: Path,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    absolute: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the text to keep as the applied copy: the user's own, comments included.

    With `overrides` or `absolute` (keys of the file's top level) it is the same values, written anew.
    """
    text, problem = _text(path)
    if text is None:
        raise _error([problem] if problem else [])
    if not overrides and not absolute:
        return text
    # It has been read and checked before, so it is a mapping.
    document = {**yaml.safe_load(text), **absolute, **overrides}
    given = [f"another {', '.join(overrides)} from the command line"] if overrides else []
    given += [f"absolute paths in {', '.join(absolute)}"] if absolute else []
    note = f"# {path}, with {' and '.join(given)}\n"
    return note + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def shape_id(
    resources: Resources,
    labels: Mapping[str, str],
    *,
    backend: str,
    options: Mapping[str, Any],
    setup: Setup = NO_SETUP,
) -> str:
    """Return the digest of all that a running node can't change; equal shapes have equal ids."""
    shape: dict[str, object] = {
        "resources": resources.units(),
        "labels": dict(labels),
        "backend": backend,
        "options": dict(options),
    }
    # Without any, shapes are those of versions that did not know it: nodes that run keep theirs.
    if steps := setup.document():
        shape["setup"] = steps
    canonical = json.dumps(shape, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:SHAPE_ID_CHARS]


def _with_defaults(
    document: Document, *, base_dir: Path, site_file: Path | None
) -> tuple[Document, list[Problem]]:
    problems: list[Problem] = []
    for path, named_at in _layers(document, base_dir=base_dir, site_file=site_file):
        far, found = _read(path, named_at=named_at)
        if far is None:
            # Without its values nobody can tell what is missing: say only why.
            raise _error(found)
        problems += [*found, *_no_chain(far)]
        document = layered(document, far)
    return document, problems


def _layers(
    document: Document, *, base_dir: Path, site_file: Path | None
) -> list[tuple[Path, Position | None]]:
    layers: list[tuple[Path, Position | None]] = []
    provider = document.data.get("provider")
    named = provider.get("defaults_from") if isinstance(provider, dict) else None
    if isinstance(named, str):
        layers.append((base_dir / os.path.expanduser(named), document.at(_DEFAULTS_FROM)))
    # `lexists` is False as well where a folder on the way may not be entered: then the site's
    # file is not for this user.
    if site_file is not None and os.path.lexists(site_file):
        layers.append((site_file, None))
    return layers


def _no_chain(far: Document) -> list[Problem]:
    if _DEFAULTS_FROM not in far.positions:
        return []
    text = "a file of defaults names another one; only the cluster file may"
    return [Problem(far.at(_DEFAULTS_FROM), _DEFAULTS_FROM, text)]


def _read(path: Path, *, named_at: Position | None = None) -> tuple[Document | None, list[Problem]]:
    text, problem = _text(path)
    if text is not None:
        document, problems = parse(text, str(path))
        return document and _with_open_sections(document), problems
    if problem is not None and named_at is not None:
        problem = Problem(named_at, _DEFAULTS_FROM, f"{path}: {problem.text}")
    return None, [problem] if problem else []


def _with_open_sections(document: Document) -> Document:
    """Read a backend's section in which all is a comment as one without keys: lower layers show through."""
    provider = document.data.get("provider")
    if not isinstance(provider, dict) or not isinstance(backends := provider.get("backends"), dict):
        return document
    sections = {name: {} if section is None else section for name, section in backends.items()}
    return replace(document, data={**document.data, "provider": {**provider, "backends": sections}})


def _error(problems: list[Problem]) -> ConfigError:
    return ConfigError(lines(problems))


_NOT_READ: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "there is no such file; `heliostat init local` writes one"),
    (IsADirectoryError, "it is a folder; give the file in it"),
    (PermissionError, "you may not read it; ask its owner, or `chmod u+r` if it is yours"),
)


def _text(path: Path) -> tuple[str | None, Problem | None]:
    top = Position(str(path), 0)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        words = next((text for kind, text in _NOT_READ if isinstance(error, kind)), None)
        return None, Problem(top, (), words or f"it can't be read: {error.strerror}")
    if len(content) > FILE_BYTES_MAX:
        return None, Problem(top, (), f"more than {FILE_BYTES_MAX} bytes; no cluster file is that long")
    try:
        return content.decode("utf-8"), None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return None, Problem(Position(str(path), line), (), "not UTF-8 text; save the file as UTF-8")


def _spec(model: ClusterModel, *, base_dir: Path, source: str) -> ClusterSpec:
    types = {
        name: _node_type(name, one, cluster=model, base_dir=base_dir)
        for name, one in model.available_node_types.items()
    }
    head = types[model.head_node_type]
    # As in Ray, the head's type may have workers too, if its max_workers says so.
    workers = tuple(one for one in types.values() if one is not head or one.max_workers > 0)
    policy = Policy(
        node_types=workers,
        max_workers=model.max_workers,
        idle_timeout_s=model.idle_timeout_minutes * 60.0,
        upscaling_speed=model.upscaling_speed,
        max_cost_usd_per_h=model.provider.max_cost_usd_per_h,
        max_surge=model.provider.max_surge,
        max_draining=drain_limits(model.provider.max_draining)[0],
        gangs_across_backends=model.provider.gangs_across_backends,
        ray_decides=model.provider.autoscaler == RAY,
    )
    return ClusterSpec(
        name=model.cluster_name,
        policy=policy,
        head_type=_without_setup(head),
        backends=model.provider.backends,
        orphan_timeout_s=model.provider.orphan_timeout_s,
        head_timeout_s=model.provider.head_timeout_s,
        environment=model.provider.environment,
        source=source,
        gcs_storage=_gcs_storage(model.provider.gcs_storage),
        gateway=None if model.provider.gateway is None else settings_of(model.provider.gateway, base_dir),
        head_setup=head_setup(model, base_dir),
        head_ports=HeadPorts(
            gcs=model.provider.gcs_port,
            ray_client=model.provider.ray_client_port,
            dashboard=model.provider.dashboard_port,
        ),
    )


def _without_setup(head: NodeType) -> NodeType:
    """Return the head's type as the head has it: what workers of its shape do first is nothing to it."""
    shape = shape_id(head.resources, head.labels, backend=head.backend, options=head.options)
    return replace(head, setup=NO_SETUP, shape_id=shape)


def _gcs_storage(model: GcsStorageModel | None) -> GcsStorage | None:
    if model is None:
        return None
    parsed = parsed_address(model.address)
    assert parsed is not None  # It has passed the checks.
    tls, host, port = parsed
    return GcsStorage(
        host=host,
        port=port,
        tls=tls,
        username=model.username,
        password_file=os.path.expanduser(model.password_file),
        password_env=model.password_env,
        ca_cert=os.path.expanduser(model.ca_cert),
    )


def _node_type(name: str, one: NodeTypeModel, *, cluster: ClusterModel, base_dir: Path) -> NodeType:
    resources = Resources.of(one.resources)
    config = one.node_config
    setup = worker_setup(cluster, one, name=name, base_dir=base_dir)
    default_max = 0 if name == cluster.head_node_type else cluster.max_workers
    return NodeType(
        name=name,
        backend=config.backend,
        resources=resources,
        shape_id=shape_id(resources, one.labels, backend=config.backend, options=config.options, setup=setup),
        min_workers=one.min_workers,
        max_workers=default_max if one.max_workers is None else one.max_workers,
        labels=one.labels,
        idle_timeout_s=one.idle_timeout_s,
        start_timeout_s=config.start_timeout_s,
        patience_s=config.patience_s,
        price_usd_per_h=config.price_usd_per_h,
        priority=one.priority,
        options=config.options,
        setup=setup,
    )


__all__ = [
    "BackendChecker",
    "BackendKeys",
    "ConfigError",
    "FileConfigSource",
    "absolute_paths",
    "dump_for_state",
    "load_cluster_file",
    "shape_id",
]
