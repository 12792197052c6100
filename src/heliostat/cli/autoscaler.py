"""Who decides in a cluster: Heliostat, or Ray's own autoscaler, and whether that of this Ray may be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from heliostat.cli.head import HeadPlan
from heliostat.config.autoscaler import refused_by_v1
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.config_source import ConfigSource
from heliostat.ports.errors import ConfigError, HeliostatError
from heliostat.raylink.supported import unsupported

V1_VARIABLE = "RAY_UP_enable_autoscaler_v2"
"""`ray up` reads it as well: 1, or no such variable, is autoscaler v2; all else, such as 0, keeps v1."""

V1, V2 = "v1", "v2"


def autoscaler_of(spec: ClusterSpec, environment: Mapping[str, str]) -> str:
    """Return «v1» or «v2» of Ray's own autoscaler, empty where Heliostat decides."""
    if not spec.policy.ray_decides:
        return ""
    return V2 if environment.get(V1_VARIABLE, "1") == "1" else V1


def refuse_unusable_autoscaler(spec: ClusterSpec, environment: Mapping[str, str]) -> None:
    """Raise HeliostatError for a Ray that is not supported, ConfigError for a file that v1 gets wrong."""
    chosen = autoscaler_of(spec, environment)
    if chosen and (why := unsupported(version("ray"))):
        raise HeliostatError(f"autoscaler: ray can't be used: {why}; autoscaler: heliostat can")
    if chosen == V1:
        refuse_for_v1(spec)


def refuse_for_v1(spec: ClusterSpec) -> None:
    problems = refused_by_v1(spec)
    if problems:
        raise ConfigError([f"{spec.source}: {one} ({V1_VARIABLE}=0 chose v1)" for one in problems])


def head_for(head: HeadPlan, record: ClusterRecord) -> HeadPlan:
    """Return the plan for a cluster's autoscaler: v1 hears `request_resources()` in another place."""
    if record.autoscaler != V1:
        return head
    return replace(head, environment={**head.environment, "RAY_enable_autoscaler_v2": "0"})


def notes_on(record: ClusterRecord, places: StatePlaces) -> list[str]:
    """Return what to say at the start: who decides, if it is not Heliostat."""
    if not record.autoscaler:
        return []
    return [f"Ray's own autoscaler ({record.autoscaler}) decides; its log is {places.autoscaler_log}"]


@dataclass(frozen=True)
class FitForV1:
    """`ports.ConfigSource` that refuses a changed file which autoscaler v1 would get wrong."""

    source: ConfigSource

    def load(self) -> ClusterSpec:
        spec = self.source.load()
        refuse_for_v1(spec)
        return spec
