"""`ray up`, work, idle, scale down, `ray down`: every place of the head and its workers × who decides."""

from __future__ import annotations

import pytest

from heliostat.cli.autoscaler import V1_VARIABLE
from tests.integration.launcher.conftest import LISTS, WORK, Launcher
from tests.integration.slurm.login import until
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(400)]

FILE = """
cluster_name: up
max_workers: 1
idle_timeout_minutes: 0.2
upscaling_speed: 1
head_node_type: front
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  autoscaler: {autoscaler}
  head_timeout_s: 20
  backends:
    local: {{cpus: 2}}
{slurm}
available_node_types:
  front: {{resources: {{CPU: 0}}, node_config: {{backend: {head}}}}}
  cpu: {{resources: {{CPU: 1}}, max_workers: 1, node_config: {{backend: {workers}}}}}
"""
SLURM = '    slurm: {network: 127.0.0.0/8, time_limit: "00:10:00", memory_request: false}'
PLACES = {"here": ("local", "local"), "outside": ("local", "slurm"), "inside": ("slurm", "slurm")}
DECIDES = {"heliostat": "", "v2": "v2", "v1": "v1"}
"""What decides → how the cluster's record names it."""


@pytest.mark.parametrize("decides", DECIDES)
@pytest.mark.parametrize("place", PLACES)
def test_work_brings_a_worker_that_goes_again(
    place: str, decides: str, launcher: Launcher, request: pytest.FixtureRequest
) -> None:
    site: SlurmSite | None = None if place == "here" else request.getfixturevalue("slurm")
    # v1 tells workers by their addresses: one worker is all that it can have on one machine.
    launcher.environment = {**launcher.environment, V1_VARIABLE: "0" if decides == "v1" else "1"}
    head, workers = PLACES[place]
    autoscaler = "ray" if DECIDES[decides] else "heliostat"
    slurm = SLURM if site is not None else ""
    text = FILE.format(head=head, workers=workers, autoscaler=autoscaler, slurm=slurm)
    launcher.file.write_text(text + LISTS)
    (launcher.folder / "work.py").write_text(WORK)
    launcher.ray("up", "--yes", HELIOSTAT_UP_WAIT="60s")
    record = launcher.record
    assert record is not None
    assert (record.autoscaler, record.job is not None) == (DECIDES[decides], head == "slurm")
    assert launcher.workers() == []
    assert "squares [0, 1, 4, 9]" in launcher.ray("submit", "work.py")
    until(lambda: not launcher.workers(), "zero workers", 150)
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)
    if site is not None:
        assert site.jobs(ended=False) == []
