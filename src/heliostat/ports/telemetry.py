"""The telemetry port: counters and timings of the loop itself."""

from __future__ import annotations

from typing import Protocol


class Telemetry(Protocol):
    def observe(self, name: str, value: float) -> None:
        """Record one timing or size; `name` is one of `control.measures.MEASURES`."""
        ...

    def summary(self) -> dict[str, dict[str, float]]:
        """Return per name: count, last, p50, p95, max."""
        ...
