"""A file of an older Ray-on-Slurm provider, of which only the `module:` line was changed, and `ray://`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.driver import driver_environment
from heliostat.config.record import ClusterRecord
from tests.integration.launcher.conftest import Launcher
from tests.integration.slurm.login import until
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FILE = """
cluster_name: up
min_workers: 0
max_workers: 2
upscaling_speed: 1.0
idle_timeout_minutes: 0.1
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  temp_folder_name: /nowhere/temp_script/
  template_path: /nowhere/template
  gcs_port: "6379"
  ray_client_port: "10001"
  dashboad_port: "8265"
head_node_type: head_node
available_node_types:
  head_node:
    max_workers: 0
    resources: {"CPU": 0}
    node_config:
      head_node: 1
      under_slurm: 0
      init_commands: []
      additional_slurm_commands: []
  worker_node:
    min_workers: 0
    max_workers: 2
    resources: {"CPU": 1}
    node_config:
      head_node: 0
      under_slurm: 1
      init_commands:
        - export MADE_BY="its commands"
      additional_slurm_commands:
        - "#SBATCH --time=00:10:00"
        - "#SBATCH --nice=7"
initialization_commands: []
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
file_mounts: {}
cluster_synced_files: []
head_start_ray_commands: []
worker_start_ray_commands: []
"""
WORK = """
import os, sys, ray
ray.init(*sys.argv[1:], logging_level="ERROR")
@ray.remote(num_cpus=1)
def made(number):
    return number * number, os.environ["MADE_BY"], bool(os.environ.get("SLURM_JOB_ID"))
print("made", ray.get([made.remote(one) for one in range(3)]))
"""
CLIENT_TRIES = 3
NOT_BEGUN = "Initialization failure from server"
MADE = "made [(0, 'its commands', True), (1, 'its commands', True), (4, 'its commands', True)]"


def by_client(work: Path, record: ClusterRecord) -> subprocess.CompletedProcess[str]:
    """Run a driver elsewhere, as it were; again where Ray's server for this client did not come up."""
    for _ in range(CLIENT_TRIES):
        done = subprocess.run(
            [sys.executable, str(work), f"ray://127.0.0.1:{record.client_port}"],
            env={**driver_environment(record), "RAY_ADDRESS": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if NOT_BEGUN not in done.stderr:
            break
    return done


def servers_words(record: ClusterRecord) -> str:
    """Return the logs of Ray's servers for clients."""
    logs = sorted(Path(record.head_temp_dir).glob("session_2*/logs/ray_client_server*"))
    return "\n".join(f"{one.name}:\n{one.read_text(errors='replace')[-2000:]}" for one in logs)


def test_an_old_file_works_as_it_is_and_clients_come_by_their_own_port(
    launcher: Launcher, slurm: SlurmSite
) -> None:
    launcher.file.write_text(FILE)
    work = launcher.folder / "work.py"
    work.write_text(WORK)
    said = launcher.ray("up", "--yes")
    for key in ("min_workers", "provider.temp_folder_name", "provider.template_path"):
        assert said.count(f" {key}: ") == 1, said
    record = launcher.record
    assert record is not None
    assert MADE in launcher.ray("submit", "work.py")
    assert set(slurm.run("squeue", "--states=all", "--noheader", "--format=%y").stdout.split()) >= {"7"}
    client = by_client(work, record)
    assert MADE in client.stdout, client.stderr + servers_words(record)
    until(lambda: not launcher.workers(), "zero workers")
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)
    assert slurm.jobs(ended=False) == []
