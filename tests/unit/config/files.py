"""A cluster file that is right; each test spoils one thing."""

from __future__ import annotations

from collections.abc import Callable

from heliostat.config.cluster_file import BackendKeys
from heliostat.model.node_type import ClusterSpec

GOOD = """\
cluster_name: demo
max_workers: 4
provider:
  backends: {local: {}}
available_node_types:
  head:
    resources: {CPU: 0}
    node_config: {backend: local}
  worker:
    resources: {CPU: 1}
    node_config: {backend: local}
head_node_type: head
"""

INSTALLED = {"local": BackendKeys(), "slurm": BackendKeys()}

Load = Callable[..., ClusterSpec]
Problems = Callable[..., list[str]]
"""Loads a text that is wrong and returns the lines of the error, without the folder of the test."""
