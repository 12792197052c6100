"""`heliostat check --try`: a one-minute job tells whether a node and the head reach each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CLUSTER = """
cluster_name: trying
provider: {{type: external, backends: {{local: {{}}, slurm: {{time_limit: 10, network: 127.0.0.0/8}}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  cpu: {{resources: {{CPU: 1}}, max_workers: 2, node_config: {{backend: slurm{more}}}}}
head_node_type: head
"""


def check(site: SlurmSite, path: Path, more: str = "", wait: str = "40s") -> tuple[int, dict[str, object]]:
    path.write_text(CLUSTER.format(more=more))
    argv = [sys.executable, "-m", "heliostat.cli.main", "check", str(path), "--try", wait, "--json"]
    done = subprocess.run(argv, env=site.environment, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


def ours(site: SlurmSite) -> list[str]:
    return [row.id for row in site.jobs(ended=False) if row.comment.startswith("heliostat:")]


def test_a_node_that_fits_says_so_and_nothing_is_left(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path)
    assert code == 0, found
    assert "and this host reach each other; Python 3." in str(found["tried"])
    slurm.wait_for(lambda: not ours(slurm), "nothing of it is left")


def test_a_setup_line_that_fails_is_told_with_its_own_words(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path, ', setup: ["module load no/such"]')
    assert code == 1
    assert "setup line 1 (module load no/such) failed" in str(found["problems"])


def test_an_interface_that_the_node_lacks_is_told(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path, ", network: ib7")
    assert code == 1
    assert "network is ib7; this node has none of it" in str(found["problems"])


def test_a_queue_is_waited_for_as_long_as_told(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path, ', sbatch: ["--begin=now+1hour"]', wait="4s")
    assert code == 1
    assert "did not start within 4 s and was cancelled (queued: BeginTime" in str(found["problems"])
    slurm.wait_for(lambda: not ours(slurm), "nothing of it is left")
