"""How long the loop's own steps take: a bounded window of samples per measure."""

from __future__ import annotations

from collections import deque

MEASURES = ("round_ms", "gcs_ms", "plan_ms", "journal_ms", "listing_ms", "apply_ms", "start_s")
"""round: one whole round; apply: one change at a provider; start: from asked to joined."""

WINDOW = 512


class Measures:
    """`ports.telemetry.Telemetry` in memory: the last `WINDOW` samples of each measure."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in MEASURES}
        self._count = dict.fromkeys(MEASURES, 0)

    def observe(self, name: str, value: float) -> None:
        self._samples[name].append(value)
        self._count[name] += 1

    def summary(self) -> dict[str, dict[str, float]]:
        return {name: self._summarised(name) for name, samples in self._samples.items() if samples}

    def _summarised(self, name: str) -> dict[str, float]:
        ordered = sorted(self._samples[name])
        last = len(ordered) - 1
        return {
            "count": float(self._count[name]),
            "last": self._samples[name][-1],
            "p50": ordered[last // 2],
            "p95": ordered[round(last * 0.95)],
            "max": ordered[-1],
        }
