"""Jobs that a cluster has left on a real Slurm are found by their tags and cancelled; others run on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliostat.config.record import ClusterRecord, ProcessMark, write_record
from heliostat.providers.slurm.tags import Tag, comment
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

UID, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
GONE = ProcessMark(2**22 + 1, 1)

CLUSTER = """
cluster_name: demo
max_workers: 2
provider:
  backends: {local: {}, slurm: {time_limit: 10, partition: main, network: 127.0.0.0/8}}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 1}, max_workers: 2, node_config: {backend: slurm}}
head_node_type: head
"""


def submit(slurm: SlurmSite, uid: str) -> str:
    """Submit an array of two as a cluster's provider does; return its id."""
    tag = comment(Tag("demo", uid, "ada@here", "labcdefg", "cpu", "s", 2))
    return slurm.run(
        "sbatch", "--parsable", "--array=0-1", "--output=/dev/null", f"--comment={tag}", "--wrap=sleep 300"
    ).stdout.strip()


def running(slurm: SlurmSite) -> set[str]:
    return {row.id.partition("_")[0] for row in slurm.jobs(ended=False)}


def doctor(folder: Path, slurm: SlurmSite, *arguments: str) -> list[dict[str, Any]]:
    places = {"HELIOSTAT_STATE_DIR": str(folder), "HELIOSTAT_RUNTIME_DIR": str(folder / "run")}
    ran = subprocess.run(
        [sys.executable, "-m", "heliostat.cli.main", "doctor", "--json", *arguments],
        env={**os.environ, **slurm.environment, **places},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return [one for one in found if one["kind"] in ("job", "record")]


def test_jobs_without_a_controller_are_found_and_cancelled(slurm: SlurmSite, tmp_path: Path) -> None:
    record = ClusterRecord(
        cluster_name="demo",
        cluster_uid=UID,
        owner="ada@here",
        created_at_s=1.0,
        source=str(tmp_path / "cluster.yaml"),
        host=socket.gethostname(),
        runtime_dir=str(tmp_path / "run" / "01234567"),
        token_path=str(tmp_path / "token"),
        ray_version="2.60.0",
        python_version="3.11",
        wrapper=GONE,
    )
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.yaml").write_text(CLUSTER)
    write_record(tmp_path / "demo" / "cluster.json", record)
    ours, unknown = submit(slurm, UID), submit(slurm, OTHER)
    plain = slurm.run(
        "sbatch", "--parsable", "--job-name=hel-01234567-head", "--output=/dev/null", "--wrap=sleep 300"
    ).stdout.strip()

    jobs, stranger, kept = doctor(tmp_path, slurm)
    assert (jobs["what"], jobs["certain"]) == (f"2 in Slurm: {ours}_0, {ours}_1", True)
    assert (stranger["certain"], stranger["hint"].split()[0]) == (False, "scancel")
    assert kept["kind"] == "record"
    assert running(slurm) == {ours, unknown, plain}

    assert [one["fixed"] for one in doctor(tmp_path, slurm, "--fix")] == [True, False, True]
    slurm.wait_for(lambda: running(slurm) == {unknown, plain}, "only the others run")
    assert not (tmp_path / "demo" / "cluster.json").exists()
