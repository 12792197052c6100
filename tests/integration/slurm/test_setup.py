"""What is done before Ray starts, where hosts are jobs: in the job, of a worker and of a head."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.config.record import ClusterRecord
from tests.integration.cluster.conftest import cluster, finished, places_of, until
from tests.integration.slurm.cluster_text import cluster_text
from tests.integration.slurm.login import NAME, Login
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TYPES = """\
cpu:
  resources: {CPU: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 1
  node_config: {backend: slurm, setup: ["export FROM_JOB=yes"]}
broken:
  resources: {CPU: 0, broken: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 1
  worker_setup_commands: ["echo no such module; exit 7"]
  node_config: {backend: slurm}
"""

WHERE = """
where = ray.remote(num_cpus=1)(lambda: os.environ["SLURM_JOB_ID"])
print("job", ray.get(where.remote()))
"""


def test_a_worker_is_set_up_in_its_job(
    slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    said, name = tmp_path / "said", f"sl-setup-{os.getpid()}"
    text = cluster_text(name, TYPES, minutes=20) + (
        f"setup_commands: ['echo \"${{SLURM_JOB_ID:-here}} ${{FROM_JOB:-no}}\" >> {said}']\n"
    )
    with cluster(tmp_path, text) as found:
        assert said.read_text() == "here no\n"
        script = (
            "print('job', ray.get(ray.remote(num_cpus=1)(lambda: os.environ['SLURM_JOB_ID']).remote()))\n"
        )
        output = finished(found.driver(script), 120)
        job = said.read_text().splitlines()[1].removesuffix(" yes")
        assert f"job {job}\n" in output
        (log,) = places_of(name).logs.glob("*.slurm.log")
        assert "bootstrap: setup, step 1 of 1: setup_commands.0" in log.read_text()
        why = "broken.worker_setup_commands.0 failed with exit code 7: no such module"
        added = found.command("add", "broken")
        assert why in added.stdout + added.stderr
        shown = until(lambda: status_with(found.command("status").stdout, why), "a status that says so", 30)
        assert "broken" in shown


def status_with(shown: str, words: str) -> str | None:
    return shown if words in " ".join(shown.split()) else None


def started(login: Login) -> ClusterRecord | None:
    return login.record if login.record is not None and login.record.session_name else None


def test_a_head_is_set_up_in_its_job(login: Login) -> None:
    said = login.folder / "said"
    path = login.file()
    path.write_text(path.read_text() + f"head_setup_commands: ['echo \"$SLURM_JOB_ID\" > {said}']\n")
    login.run("up", str(path), "--detach", timeout_s=30)
    record = until(lambda: started(login), "head", 90)
    assert record.job is not None
    assert said.read_text().strip() == record.job.job_id
    login.run("down", NAME)
    login.nothing_is_left(record)
