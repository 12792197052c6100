"""The configuration port: where a running controller gets a changed cluster file from."""

from __future__ import annotations

from typing import Protocol

from heliostat.model.node_type import ClusterSpec


class ConfigSource(Protocol):
    def load(self) -> ClusterSpec:
        """Read, check and complete the file as it is now; raises ConfigError."""
        ...
