"""kill -9 of the controller of a cluster on Slurm, wherever it is: nothing leaks, joins twice or is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.providers.slurm.tags import cluster_of
from tests.integration.kills.assault import Tally, full_assault
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.nightly]

CLUSTER = """
cluster_name: {name}
max_workers: 2
idle_timeout_minutes: 1
upscaling_speed: 0
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  orphan_timeout_s: 120
  head_timeout_s: 20
  backends:
    local: {{}}
    slurm: {{partition: main, time_limit: 60, network: 127.0.0.0/8}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  worker:
    resources: {{CPU: 1, memory: 300000000, object_store_memory: 100000000}}
    min_workers: 0
    max_workers: 2
    idle_timeout_s: 2
    node_config: {{backend: slurm}}
head_node_type: head
"""


@pytest.mark.timeout(3600)
def test_nothing_leaks_joins_twice_or_is_lost(
    shared_site: SlurmSite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in shared_site.environment.items():
        monkeypatch.setenv(name, value)

    def left(cluster_uid: str) -> list[str]:
        return [row.id for row in shared_site.jobs(ended=False) if cluster_of(row.comment) == cluster_uid]

    def text(name: str) -> str:
        return CLUSTER.format(name=f"{name}-{os.getpid()}")

    tally = Tally("slurm")
    try:
        full_assault(tmp_path, text, tally=tally, left=left)
    finally:
        with capsys.disabled():
            print(tally.text())
    tally.check()
