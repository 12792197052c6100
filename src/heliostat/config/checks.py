"""What types alone can't say: limits that must agree, names that must exist, Ray's syntax rules.

Every check reads the merged document, wrong types and all, and speaks only of values
that have the right type, so that one run finds every problem of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.config.autoscaler import RAY, refused_keys
from heliostat.config.drain_limits import drain_limits
from heliostat.config.errors import KeyPath, Problem, did_you_mean, found, one_of
from heliostat.config.gateway import wrong_keys as wrong_gateway_keys
from heliostat.config.gcs_storage import wrong_keys
from heliostat.config.positions import Document
from heliostat.config.ray_keys import refused
from heliostat.config.schema import ALLOWED, ClusterModel, NodeConfig, pattern
from heliostat.config.setup import wrong_lists, wrong_mounts

BackendChecker = Callable[[dict[str, Any]], Sequence[tuple[str, str]]]
"""Looks at a backend's own keys; returns (dotted key, «what was found; what is allowed») pairs."""


def _accept(_: dict[str, Any]) -> Sequence[tuple[str, str]]:
    return ()


OldLinesReader = Callable[
    [Sequence[str]], tuple[dict[str, Any], list[tuple[int, str]], list[tuple[int, str]]]
]
"""Returns keys of a `node_config` (and `GPU`: how many are asked for), notes, and problems by their lines."""


def _no_lines(lines: Sequence[str]) -> tuple[dict[str, Any], list[tuple[int, str]], list[tuple[int, str]]]:
    return {}, [], [(index, "no backend that is installed reads this") for index, _ in enumerate(lines)]


@dataclass(frozen=True)
class BackendKeys:
    """How an installed backend checks `provider.backends.<name>` and its part of a `node_config`, and how it
    reads the lines that older files have for it (`config/old_files.py`)."""

    section: BackendChecker = _accept
    options: BackendChecker = _accept
    old_lines: OldLinesReader = _no_lines


@dataclass(frozen=True)
class Checked:
    """What the checks look at: the merged document, and the backends that are installed."""

    document: Document
    backends: Mapping[str, BackendKeys]

    def get(self, *path: str) -> Any:
        value: Any = self.document.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def mapping(self, *path: str) -> dict[str, Any]:
        value = self.get(*path)
        return value if isinstance(value, dict) else {}

    def count(self, *path: str, default: int) -> int | None:
        """Return a whole number, `default` if there is none, None if something else is there."""
        value = self.get(*path)
        if value is None:
            return default
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def node_types(self) -> Iterator[str]:
        types = self.mapping("available_node_types")
        return (name for name, value in types.items() if isinstance(value, dict))

    def problem(self, path: KeyPath, text: str) -> Problem:
        return Problem(self.document.at(path), path, text)


Check = Callable[[Checked], Iterator[Problem]]

_TYPES = "available_node_types"
_MAX_WORKERS_DEFAULT: int = ClusterModel.model_fields["max_workers"].default

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_NAME_RULE = "up to 63 letters, digits, -, _ and ., a letter or digit first and last"
_DNS = r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_PREFIX_MAX = 253

_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
_NO_RESOURCE = re.compile(r"node:|bundle$|bundle_group_|$")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_VARIABLES = {
    "RAY_AUTH_TOKEN": "a secret has no place in a file; Ray reads the token from its own file",
    "RAY_AUTH_TOKEN_PATH": "it is set for every node",
    "RAY_AUTH_MODE": "it is set for every node: a cluster without a token is open to anyone",
    "RAY_ADDRESS": "it is set for every node",
    "RAY_REDIS_ADDRESS": "write provider.gcs_storage.address",
    "RAY_external_storage_namespace": "each cluster has its own",
    "RAY_CLOUD_INSTANCE_ID": "it is set for every node",
    "RAY_NODE_TYPE_NAME": "it is set for every node",
    "CUDA_VISIBLE_DEVICES": "the backend gives each node its own GPUs",
}


def head_type_exists(checked: Checked) -> Iterator[Problem]:
    head, types = checked.get("head_node_type"), checked.mapping(_TYPES)
    if isinstance(head, str) and checked.get(_TYPES) is not None and head not in types:
        text = f"{found(head)} is no node type{did_you_mean(head, types)}; allowed are {one_of(types)}"
        yield checked.problem(("head_node_type",), text)


PORTS = ("gcs_port", "ray_client_port", "dashboard_port")


def nothing_written(checked: Checked) -> Iterator[Problem]:
    # Optional keys may be left out, but Ray's validator refuses a key with nothing behind it.
    optional = ("max_cost_usd_per_h", "defaults_from", "gcs_storage", "gateway", *PORTS)
    paths: list[KeyPath] = [("provider", key) for key in optional]
    for name in checked.node_types():
        keys = ("max_workers", "idle_timeout_s", "initialization_commands", "worker_setup_commands")
        paths += [(_TYPES, name, key) for key in keys]
    for path in paths:
        holder = checked.mapping(*map(str, path[:-1]))
        if path[-1] in holder and holder[str(path[-1])] is None:
            text = f"{found(None)}; allowed is {ALLOWED[pattern(path)]}, or leave the key out"
            yield checked.problem(path, text)


def minimum_within_maximum(checked: Checked) -> Iterator[Problem]:
    for name in checked.node_types():
        own = checked.mapping(_TYPES, name).get("max_workers") is not None
        if not own and name != checked.get("head_node_type"):
            # It has the cluster's maximum then, which the sum of all minimums is held to.
            continue
        low = checked.count(_TYPES, name, "min_workers", default=0)
        high = checked.count(_TYPES, name, "max_workers", default=0)
        if low is not None and high is not None and 0 <= high < low:
            why = "" if own else ", the default of the head's type"
            text = f"{low} is above max_workers ({high}{why}); allowed is at most {high}"
            yield checked.problem((_TYPES, name, "min_workers"), text)


def minimums_fit_the_cluster(checked: Checked) -> Iterator[Problem]:
    limit = checked.count("max_workers", default=_MAX_WORKERS_DEFAULT)
    lows = {name: checked.count(_TYPES, name, "min_workers", default=0) or 0 for name in checked.node_types()}
    total = sum(max(0, low) for low in lows.values())
    if limit is not None and 0 <= limit < total:
        parts = ", ".join(f"{name}: {low}" for name, low in lows.items() if low > 0)
        where = "" if "max_workers" in checked.document.data else " (the default)"
        text = f"{limit}{where} is below the sum of min_workers ({parts}); allowed is {total} or more"
        yield checked.problem(("max_workers",), text)


def node_type_names(checked: Checked) -> Iterator[Problem]:
    if checked.get(_TYPES) == {}:
        yield checked.problem((_TYPES,), "no node type; at least the head's must be there")
    for name in checked.node_types():
        if not re.fullmatch(_NAME, name):
            # Ray writes the name into the node's label ray.io/node-group.
            yield checked.problem(
                (_TYPES, name), f"not a good name for a node type; allowed are {_NAME_RULE}"
            )


def resource_names(checked: Checked) -> Iterator[Problem]:
    known = {name.lower(): name for name in _RESOURCES}
    for node_type in checked.node_types():
        for name in checked.mapping(_TYPES, node_type, "resources"):
            path = (_TYPES, node_type, "resources", name)
            right = known.get(name.lower(), name)
            if right != name:
                yield checked.problem(path, f"Ray would take it for a custom resource; write {right}")
            elif _NO_RESOURCE.match(name):
                yield checked.problem(path, f"{found(name)} is a name that Ray makes itself; choose another")


def label_syntax(checked: Checked) -> Iterator[Problem]:
    for node_type in checked.node_types():
        for key, value in checked.mapping(_TYPES, node_type, "labels").items():
            path = (_TYPES, node_type, "labels", key)
            if wrong := _label_key_problem(key):
                yield checked.problem(path, wrong)
            if isinstance(value, str) and value and not re.fullmatch(_NAME, value):
                yield checked.problem(path, f"{found(value)}; allowed are {_NAME_RULE}, or nothing at all")


def _label_key_problem(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _PREFIX_MAX or not all(re.fullmatch(_DNS, p) for p in prefix.split("."))):
        return f"the label's prefix {found(prefix)} is no DNS name such as example.org"
    if not re.fullmatch(_NAME, name):
        return f"the label's name {found(name)}; allowed are {_NAME_RULE}"
    return None


def backends_exist(checked: Checked) -> Iterator[Problem]:
    for name in checked.mapping("provider", "backends"):
        if name not in checked.backends:
            yield checked.problem(("provider", "backends", name), _not_installed(checked, name))
    sections = checked.mapping("provider", "backends")
    for node_type in checked.node_types():
        name = checked.get(_TYPES, node_type, "node_config", "backend")
        path = (_TYPES, node_type, "node_config", "backend")
        if isinstance(name, str) and name not in checked.backends:
            yield checked.problem(path, _not_installed(checked, name))
        elif isinstance(name, str) and name not in sections:
            text = f"{found(name)} has no section; add provider.backends.{name}, {{}} for its defaults"
            yield checked.problem(path, text)


def _not_installed(checked: Checked, name: str) -> str:
    installed = sorted(checked.backends)
    return f"no backend {name} is installed{did_you_mean(name, installed)}; installed are {one_of(installed)}"


def backend_keys(checked: Checked) -> Iterator[Problem]:
    for name, keys in checked.backends.items():
        section = checked.get("provider", "backends", name)
        if isinstance(section, dict):
            yield from _own(checked, ("provider", "backends", name), pairs=keys.section(section))
    for node_type in checked.node_types():
        config = checked.mapping(_TYPES, node_type, "node_config")
        backend = config.get("backend")
        if isinstance(backend, str) and backend in checked.backends:
            options = {key: value for key, value in config.items() if key not in NodeConfig.model_fields}
            pairs = checked.backends[backend].options(options)
            yield from _own(checked, (_TYPES, node_type, "node_config"), pairs=pairs)


def _own(checked: Checked, root: KeyPath, *, pairs: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    for key, text in pairs:
        parts = (int(part) if part.isdigit() else part for part in key.split(".") if part)
        yield checked.problem((*root, *parts), text)


def gcs_storage(checked: Checked) -> Iterator[Problem]:
    section = checked.mapping("provider", "gcs_storage")
    yield from _own(checked, ("provider", "gcs_storage"), pairs=list(wrong_keys(section)))


def gateway(checked: Checked) -> Iterator[Problem]:
    section = checked.mapping("provider", "gateway")
    yield from _own(checked, ("provider", "gateway"), pairs=list(wrong_gateway_keys(section)))


def environment_names(checked: Checked) -> Iterator[Problem]:
    for name in checked.mapping("provider", "environment"):
        path = ("provider", "environment", name)
        if not _VARIABLE.fullmatch(name):
            yield checked.problem(
                path, "no name of a variable; allowed are letters, digits and _, no digit first"
            )
        elif name in _OWN_VARIABLES or name.startswith("HELIOSTAT_"):
            reason = _OWN_VARIABLES.get(name, "these names are Heliostat's own")
            yield checked.problem(path, f"not allowed: {reason}")


def not_honoured(checked: Checked) -> Iterator[Problem]:
    for path, text in refused(checked.document.data, list(checked.node_types())):
        yield checked.problem(path, text)


def setup_can_be_done(checked: Checked) -> Iterator[Problem]:
    data = checked.document.data
    for path, text in (*wrong_lists(data, list(checked.node_types())), *wrong_mounts(data)):
        yield checked.problem(path, text)


def drain_limits_are_right(checked: Checked) -> Iterator[Problem]:
    path: KeyPath = ("provider", "max_draining")
    provider = checked.mapping("provider")
    if "max_draining" in provider:
        for below, text in drain_limits(provider["max_draining"])[1]:
            yield checked.problem((*path, *below), text)


def rays_autoscaler_can(checked: Checked) -> Iterator[Problem]:
    if checked.get("provider", "autoscaler") == RAY:
        configs = {name: checked.mapping(_TYPES, name, "node_config") for name in checked.node_types()}
        for path, text in refused_keys(checked.mapping("provider"), configs):
            yield checked.problem(path, text)


CHECKS: tuple[Check, ...] = (
    node_type_names,
    head_type_exists,
    nothing_written,
    minimum_within_maximum,
    minimums_fit_the_cluster,
    resource_names,
    label_syntax,
    backends_exist,
    backend_keys,
    gcs_storage,
    gateway,
    environment_names,
    drain_limits_are_right,
    rays_autoscaler_can,
    not_honoured,
    setup_can_be_done,
)


def check_all(document: Document, backends: Mapping[str, BackendKeys]) -> list[Problem]:
    """Run every check; an empty list says that nothing beyond types is wrong."""
    checked = Checked(document, backends)
    return [problem for check in CHECKS for problem in check(checked)]
