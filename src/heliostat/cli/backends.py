"""The installed backends, by their entry points (`heliostat.providers`): found, checked, made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

from heliostat.config.checks import BackendKeys
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.config_source import ConfigSource
from heliostat.ports.errors import HeliostatError
from heliostat.ports.provider import Probe, Provider, ProviderContext

GROUP = "heliostat.providers"

Factory = Callable[[ProviderContext], Provider]


def installed() -> dict[str, Factory]:
    """Return each installed backend's factory by name."""
    return {one.name: one.load() for one in entry_points(group=GROUP)}


def backend_keys() -> dict[str, BackendKeys]:
    """Return how each backend reads its keys: by its module's `check_section`, `check_options` and
    `read_old_lines`, if any."""
    return {one.name: _keys(import_module(one.module)) for one in entry_points(group=GROUP)}


def make(spec: ClusterSpec, context: Callable[[str], ProviderContext]) -> dict[str, Provider]:
    """Make a provider for each backend section of the file; `context` gives each its own."""
    factories = installed()
    missing = sorted(set(spec.backends) - set(factories))
    if missing:
        raise HeliostatError(f"no such backend is installed: {', '.join(missing)}")
    return {name: factories[name](context(name)) for name in spec.backends}


def completed(spec: ClusterSpec, providers: Mapping[str, Provider]) -> ClusterSpec:
    """Return the spec with what each site adds to its node types (memory of this machine, …)."""
    types = []
    for node_type in spec.policy.node_types:
        provider: object = providers.get(node_type.backend)
        types.append(provider.complete(node_type) if isinstance(provider, Probe) else node_type)
    return replace(spec, policy=replace(spec.policy, node_types=tuple(types)))


@dataclass(frozen=True)
class CompletedSource:
    """`ports.ConfigSource` that gives completed specs."""

    source: ConfigSource
    providers: Mapping[str, Provider]

    def load(self) -> ClusterSpec:
        return completed(self.source.load(), self.providers)


def _keys(module: ModuleType) -> BackendKeys:
    names = {"section": "check_section", "options": "check_options", "old_lines": "read_old_lines"}
    found = {name: getattr(module, function, None) for name, function in names.items()}
    return BackendKeys(**{name: function for name, function in found.items() if function})
