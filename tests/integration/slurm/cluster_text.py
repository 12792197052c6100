"""The cluster file of a test whose head is on this machine and whose workers are jobs."""

from __future__ import annotations

import textwrap

TOP = """\
cluster_name: {name}
max_workers: 6
idle_timeout_minutes: 1
upscaling_speed: 0
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  orphan_timeout_s: 60
  head_timeout_s: 20
  backends:
    local: {{}}
    slurm: {{partition: main, time_limit: {minutes}, network: 127.0.0.0/8}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
"""


def cluster_text(name: str, types: str, *, minutes: int) -> str:
    """Return the file with these worker types, whose jobs end after `minutes` unless one says otherwise."""
    return TOP.format(name=name, minutes=minutes) + textwrap.indent(types, "  ") + "head_node_type: head\n"
