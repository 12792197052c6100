"""The job of a head: what sbatch is given, and a script that really runs and ends as the head."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.head_script import HeadAsk, head_submission
from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.options import job_options, parse_section
from heliostat.providers.slurm.script import Submission
from heliostat.providers.slurm.tags import Tag, job_name

TAG = Tag("demo", "u" * 32, "ada@login1", "head", "front", "s", 1, together=True)
DUMP = """\
import json, os, signal, sys
print(json.dumps({"argv": sys.argv[1:], "environment": dict(os.environ),
                  "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN}))
"""


def submitted(
    options: dict[str, object] | None = None, environment: dict[str, str] | None = None, **ask: object
) -> Submission:
    section = {"partition": "main", "time_limit": "04:00:00"}
    fields: dict[str, object] = {
        "tag": TAG,
        "cluster_uid": TAG.cluster_uid,
        "resources": {"CPU": 0},
        "folder": "/home/ada/my state/demo",
        "log": "/home/ada/100%/head.slurm.log",
        "versions": {"ray_version": "2.60.0", "python_version": "3.11"},
    }
    asked = HeadAsk(**{**fields, **ask})  # type: ignore[arg-type]
    return head_submission(job_options(parse_section(section), options or {}), asked, environment or {})


def test_sbatch_is_asked_for_one_node_with_the_types_wishes() -> None:
    argv = submitted({"qos": "long", "sbatch": ["--mail-type=FAIL"]}).argv
    assert argv[:2] == ("sbatch", "--parsable")
    assert {
        f"--job-name={job_name(TAG)}",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--partition=main",
        "--qos=long",
        "--time=240",
        "--no-requeue",
        "--mail-type=FAIL",
        "--output=/home/ada/100%%/head.slurm.log",
    } <= set(argv)
    assert not [one for one in argv if one.startswith(("--array", "--dependency", "--wrap"))]


@pytest.mark.parametrize(
    ("limit", "notice"), [("04:00:00", 180), ("00:10:00", 60), ("2-00:00:00", 180), ("00:05:00", 30)]
)
def test_its_end_is_announced_early_enough_to_go_down_in_order(limit: str, notice: int) -> None:
    assert f"--signal=B:USR1@{notice}" in submitted({"time_limit": limit}).argv


def test_a_longer_notice_is_kept() -> None:
    assert "--signal=B:USR1@600" in submitted({"drain_notice_s": 600}).argv


def test_a_successor_waits_for_the_end_of_its_predecessor() -> None:
    assert "--dependency=afterany:123" in submitted(after_job="123").argv


def test_a_container_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="container: a head runs without one"):
        submitted({"container": {"image": "/shared/ray.sif"}})


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """An interpreter that says with what it was started."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable} -S\n{DUMP}")
    path.chmod(0o755)
    return str(path)


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1760000000"}
    return subprocess.run(
        ["bash"],
        input=script,
        env={"PATH": os.environ["PATH"], "HOME": "/", **slurm, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_script_becomes_the_head_with_all_that_it_is_told(stand_in: str) -> None:
    made = submitted(
        {"python": stand_in, "setup": ["export LOADED='a b'"], "environment": {"OMP_NUM_THREADS": "1"}},
        {
            "HELIOSTAT_SITE_FILE": "",
            "SLURM_CONF": "/etc/my slurm.conf",
            "RAY_JOB_START_TIMEOUT_SECONDS": "60",
            "SECRET": "x",
        },
        port=7000,
        idle_after_s=90.0,
        attached="/home/ada/my state/demo/attached",
    )
    found = json.loads(run(made.script).stdout)
    assert found["argv"] == [
        "-m",
        "heliostat.cli.head_job",
        "/home/ada/my state/demo",
        "u" * 32,
        "--port=7000",
        "--idle-after=90",
        "--attached=/home/ada/my state/demo/attached",
    ]
    environment = found["environment"]
    assert (environment["LOADED"], environment["OMP_NUM_THREADS"]) == ("a b", "1")
    assert (environment["HELIOSTAT_SITE_FILE"], environment["SLURM_CONF"]) == ("", "/etc/my slurm.conf")
    assert environment["RAY_JOB_START_TIMEOUT_SECONDS"] == "60"
    assert "SECRET" not in made.script
    # Slurm's announcement must not be deadly before the wrapper listens.
    assert found["usr1"]


def test_a_setup_line_that_fails_ends_the_job_with_its_name(stand_in: str) -> None:
    done = run(submitted({"python": stand_in, "setup": ["true", "module load ray/2"]}).script)
    assert done.returncode == 21
    assert "setup line 2 (module load ray/2) failed with code 127" in done.stdout


def test_a_requeued_job_ends_at_once(stand_in: str) -> None:
    done = run(submitted({"python": stand_in}).script, SLURM_RESTART_COUNT="1")
    assert done.returncode == 20
    assert "requeued" in done.stdout
