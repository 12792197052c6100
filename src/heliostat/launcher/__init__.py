"""The plug-in for Ray's own launcher: `ray up cluster.yaml` and its sisters, with Heliostat behind them.

A cluster file names `heliostat.launcher.NodeProvider`; docs/ray-up.md is for those who use it.
"""

from heliostat.launcher.provider import NodeProvider

__all__ = ["NodeProvider"]
