"""`heliostat check --try`: a one-minute job tells whether a node and the head reach each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
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


def check(
    site: SlurmSite, path: Path, more: str = "", wait: str = "40s", *, timeout_s: float = 90
) -> tuple[int, dict[str, object]]:
    path.write_text(CLUSTER.format(more=more))
    argv = [sys.executable, "-m", "heliostat.cli.main", "check", str(path), "--try", wait, "--json"]
    done = subprocess.run(
        argv, env=site.environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
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


def with_uv(folder: Path) -> str:
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    return f", env: {{uv: {folder}/requirements.txt}}, setup: ['{path}']"


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_an_environment_is_made_by_the_trial_and_stays(
    slurm: SlurmSite, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shorter than it takes: only the queue's time is limited.
    monkeypatch.setitem(slurm.environment, "HELIOSTAT_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "requirements.txt").write_text(f"ray=={version('ray')}\n")
    # How packages are reached from here; a job has nothing of our environment.
    ways = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    more = f"{with_uv(tmp_path)}, environment: {json.dumps(ways)}"
    code, found = check(slurm, path, more, wait="20s", timeout_s=500)
    assert code == 0, found
    made = list(tmp_path.glob("state/*/logs/envs/uv-*/bin/python"))
    began_s = time.monotonic()
    code, found = check(slurm, path, more, wait="20s")
    assert code == 0, found
    assert time.monotonic() - began_s < 60
    assert list(tmp_path.glob("state/*/logs/envs/uv-*/bin/python")) == made != []


def test_an_environment_that_can_not_be_made_is_told(slurm: SlurmSite, path: Path, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("--no-index\nno-such-package\n")
    code, found = check(slurm, path, with_uv(tmp_path))
    assert code == 1
    assert "no environment could be made of" in str(found["problems"])


def test_an_interface_that_the_node_lacks_is_told(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path, ", network: ib7")
    assert code == 1
    assert "network is ib7; this node has none of it" in str(found["problems"])


def test_a_queue_is_waited_for_as_long_as_told(slurm: SlurmSite, path: Path) -> None:
    code, found = check(slurm, path, ', sbatch: ["--begin=now+1hour"]', wait="4s")
    assert code == 1
    assert "did not start within 4 s and was cancelled (queued: BeginTime" in str(found["problems"])
    slurm.wait_for(lambda: not ours(slurm), "nothing of it is left")
