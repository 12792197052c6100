"""What Ray's own programs load: its launcher's and its autoscaler's node providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.launcher.provider import NodeProvider

__all__ = ["NodeProvider"]


def __getattr__(name: str) -> Any:
    # Loaded when Ray's launcher asks for it: it imports Ray, which others here must set up first.
    if name != "NodeProvider":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heliostat.launcher.provider import NodeProvider

    return NodeProvider
