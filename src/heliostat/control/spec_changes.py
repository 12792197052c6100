"""What differs between two cluster files, in sentences, and what a running cluster can't take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources

_TOLD_ELSEWHERE = frozenset({"node_types", "ray_decides"})
"""Of a policy's fields: each node type has sentences of its own, and who decides can't be changed."""


@dataclass(frozen=True)
class SpecChange:
    """One difference. `refused`: it needs a new cluster (`down`, then `up`)."""

    text: str
    refused: bool = False


def changes(old: ClusterSpec, new: ClusterSpec) -> list[SpecChange]:
    """Return every difference between the running file and the changed one, oldest key first."""
    found = _fixed(old, new)
    found += _policy(old.policy, new.policy)
    names = {one.name for one in old.policy.node_types}
    for node_type in new.policy.node_types:
        known = old.policy.node_type(node_type.name)
        found += _node_type(known, node_type) if known else [SpecChange(f"node type {node_type.name} is new")]
        names.discard(node_type.name)
    found += [SpecChange(f"node type {name} is gone: its nodes leave when idle") for name in sorted(names)]
    return found


def _fixed(old: ClusterSpec, new: ClusterSpec) -> list[SpecChange]:
    found = []
    if old.name != new.name:
        text = f"cluster_name is {new.name}, the running cluster is {old.name}"
        found.append(SpecChange(text, refused=True))
    if old.policy.ray_decides != new.policy.ray_decides:
        text = "provider.autoscaler changed: a running head has the one that it began with; `down`, then `up`"
        found.append(SpecChange(text, refused=True))
    if old.head_type.shape_id != new.head_type.shape_id:
        text = f"the head's node type {new.head_type.name} changed: a running head can't; `down`, then `up`"
        found.append(SpecChange(text, refused=True))
    if set(new.backends) != set(old.backends) or any(
        old.backends[k] != new.backends[k] for k in old.backends
    ):
        text = "provider.backends changed: the controller holds its backends for life; `down`, then `up`"
        found.append(SpecChange(text, refused=True))
    if old.gcs_storage != new.gcs_storage:
        text = "provider.gcs_storage changed: a head's state stays where it is; `down`, then `up`"
        found.append(SpecChange(text, refused=True))
    if old.head_setup != new.head_setup:
        found.append(SpecChange("the head's setup changed: it is done when a head is next started"))
    if old.head_ports != new.head_ports:
        found.append(SpecChange("the head's ports changed: a running head keeps its own"))
    if old.gateway != new.gateway:
        text = "provider.gateway changed: a gateway that runs keeps what it began with; start it again"
        found.append(SpecChange(text))
    return found


def _policy(old: Policy, new: Policy) -> list[SpecChange]:
    return [
        SpecChange(f"{field.name}: {_shown(getattr(old, field.name))} → {_shown(getattr(new, field.name))}")
        for field in fields(Policy)
        if field.name not in _TOLD_ELSEWHERE and getattr(old, field.name) != getattr(new, field.name)
    ]


def _node_type(old: NodeType, new: NodeType) -> list[SpecChange]:
    found = []
    for field in fields(NodeType):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, Resources):
            found += _resources(new.name, before, after)
        elif field.name == "options":
            found += _options(new.name, before, after)
        elif field.name == "setup":
            # Commands may hold what is nobody's business, so they are not shown.
            found += [SpecChange(f"{new.name}: its setup changed")] if before != after else []
        elif field.name != "shape_id" and before != after:
            found.append(SpecChange(f"{new.name}.{field.name}: {_shown(before)} → {_shown(after)}"))
    if old.shape_id != new.shape_id:
        found.append(SpecChange(f"{new.name} has a new shape: nodes of the old one leave when idle"))
    return found


def _options(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[SpecChange]:
    """Name the keys alone: a value may be a secret, and these sentences go to the journal."""
    keys = dict.fromkeys((*old, *new))
    return [SpecChange(f"{name}.node_config.{key} changed") for key in keys if old.get(key) != new.get(key)]


def _resources(name: str, old: Resources, new: Resources) -> list[SpecChange]:
    before, after = old.units(), new.units()
    return [
        SpecChange(f"{name}.resources.{key}: {before.get(key, 0):.15g} → {after.get(key, 0):.15g}")
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "; ".join(map(str, value)) or "no limit"
    return str(dict(value)) if isinstance(value, dict) else str(value)
