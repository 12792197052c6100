"""Which keys of a cluster file have no meaning where Ray's own autoscaler decides, as data.

Heliostat provides then what Ray asks for, so what only its planner can do is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heliostat.config.errors import KeyPath, found
from heliostat.model.node_type import ClusterSpec, NodeType

RAY = "ray"

PROVIDER_KEYS: Mapping[str, tuple[object, str]] = {
    "max_surge": (0, "it asks for nothing ahead of what ends"),
    "max_draining": (None, "it drains as many idle workers at a time as there are"),
    "gangs_across_backends": (False, "it chooses among all node types, whatever their backend"),
    "gcs_storage": (None, "it does not go on with a head that comes back"),
}
"""Keys under `provider`: the value that says nothing, and why Ray's autoscaler can't do what others say."""

NODE_KEYS: Mapping[str, tuple[object, str]] = {
    "patience_s": (0, "it does not weigh waiting against money"),
}
"""The same in a `node_config`."""

INSTEAD = "leave it out, or let Heliostat decide (autoscaler: heliostat)"


def refused_keys(
    provider: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[KeyPath, str]]:
    """Return the keys that say what only Heliostat's planner does, and why they can't be.

    `configs` are the `node_config`s by node type.
    """
    yield from _refused(("provider",), provider, PROVIDER_KEYS)
    for name, config in configs.items():
        yield from _refused(("available_node_types", name, "node_config"), config, NODE_KEYS)


def _refused(
    root: KeyPath, section: Mapping[str, Any], keys: Mapping[str, tuple[object, str]]
) -> Iterator[tuple[KeyPath, str]]:
    for key, (nothing, reason) in keys.items():
        value = section.get(key, nothing)
        if value != nothing:
            text = f"{found(value)}: Ray's own autoscaler decides here, and {reason}; {INSTEAD}"
            yield (*root, key), text


def refused_by_v1(spec: ClusterSpec) -> list[str]:
    """Return a sentence for each thing in a file that Ray's autoscaler v1 gets wrong; none for v2."""
    problems = [
        f"available_node_types.{one.name}.{key}: autoscaler v1 does not read it; leave it out, or use v2"
        for one in spec.policy.node_types
        for key, said in (("idle_timeout_s", one.idle_timeout_s is not None), ("priority", one.priority != 0))
        if said
    ]
    shared = _sharing_an_address(spec)
    if shared:
        problems.append(
            f"workers of {', '.join(shared)} may share an IP address, by which autoscaler v1 tells nodes "
            "apart; use v2, or allow one of them (max_workers: 1; for Slurm exclusive: true)"
        )
    return problems


def _sharing_an_address(spec: ClusterSpec) -> Sequence[str]:
    """Return the node types of which two workers, or one beside another type's, may be on one machine."""
    crowded: list[str] = []
    for backend in spec.backends:
        mine = [one for one in spec.policy.node_types if one.backend == backend and one.max_workers > 0]
        shared = [one for one in mine if not _alone(one, spec)]
        if min(sum(one.max_workers for one in shared), spec.policy.max_workers) > 1:
            crowded += [one.name for one in shared]
    return crowded


def _alone(node_type: NodeType, spec: ClusterSpec) -> bool:
    """Say whether a worker of the type has its machine to itself, as far as the file tells."""
    section = spec.backends[node_type.backend]
    return node_type.options.get("exclusive", section.get("exclusive")) is True
