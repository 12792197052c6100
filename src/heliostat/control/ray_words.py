"""How it is said that Ray's own autoscaler decides, and what to do in place of what that forbids."""

from __future__ import annotations

from collections.abc import Mapping

RAY_DECIDES = "Ray's own autoscaler decides how many nodes there are; Heliostat provides them"

DENIED_SHOWN_S = 15.0
"""A refusal is shown for so long; Ray asks again every five seconds."""

_HERE = "Ray's own autoscaler decides here (provider.autoscaler: ray)"
_KEEP = f"{_HERE}; raise min_workers in the file and `heliostat apply` it, or call request_resources()"

INSTEAD: Mapping[str, str] = {
    "add": _KEEP,
    "remove": f"{_HERE}, and lets a worker go when it is idle",
    "protect": _KEEP,
    "pause": f"{_HERE}, and can't be paused",
}
"""Why a command is refused, and what to do in its place."""
