"""A head that is itself a Slurm job, on a real Slurm: it queues, runs, is reached by a step, and goes."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.record import write_record
from tests.integration.slurm.login import ELSEWHERE, NAME, Login, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def commands(words: str, *, but: int) -> list[int]:
    """Return Python's processes that run `words` themselves, not as another's argument."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else []
            if len(argv) > 2 and argv[1] == "-c" and words in argv[2] and int(entry.name) != but:
                found.append(int(entry.name))
    return found


def test_run_brings_it_up_runs_beside_it_and_leaves_nothing(login: Login) -> None:
    path = login.file()
    script = login.folder / "work.py"
    script.write_text(
        "import os, ray, sys\nray.init()\n"
        "@ray.remote(num_cpus=1)\ndef where(): return os.environ['SLURM_JOB_ID']\n"
        "print('head', os.environ.get('SLURM_JOB_ID'), 'task', ray.get(where.remote()), os.getcwd())\n"
        "sys.exit(7)\n"
    )
    output = login.run("up", str(path), "--detach", timeout_s=30)
    assert f"{NAME} waits for its head: Slurm job" in output
    up = login.run("up", str(path), "--detach", code=0)
    assert "Slurm job" in up
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    record = login.pretend_to_be_elsewhere()
    assert record.job is not None
    assert record.job.lease_end_s > time.time()
    status = json.loads(login.run("status", "--json"))
    assert status["phase"] == "running"
    output = login.run("run", str(path), "--", "python", "work.py", code=7)
    assert f"head {record.job.job_id} task " in output
    assert str(login.folder) in output
    assert "launch" in login.run("events")
    login.run("down", NAME)
    login.nothing_is_left(record)


def test_a_run_that_is_cut_short_leaves_no_job_on_the_cluster(login: Login) -> None:
    path = login.file()
    login.run("up", str(path), "--detach", timeout_s=30)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    record = login.pretend_to_be_elsewhere()
    told = login.folder / "began"
    run = login.start(
        "run", str(path), "--", "python", "-c", f"open({str(told)!r}, 'w'); import time; time.sleep(300)"
    )
    until(told.exists, "command")
    (pid,) = until(lambda: commands("time.sleep(300)", but=run.pid), "process of the command")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode > 128, output
    until(lambda: not Path(f"/proc/{pid}").exists(), "end of the command", 30)
    login.run("down", NAME)
    login.nothing_is_left(record)


def test_it_waits_in_the_queue_and_ctrl_c_cancels_it(login: Login) -> None:
    up = login.start("up", str(login.file(head=", sbatch: ['--begin=now+1hour']")))
    (job_id,) = until(login.living, "job")
    status = until(lambda: login.record and login.run("status", NAME), "status")
    assert f"{NAME}: waiting for the head: Slurm job {job_id}, BeginTime" in status
    assert "expected about" in status
    record = login.record
    assert record is not None
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 130, output
    assert "waiting for the head: Slurm job" in output
    login.nothing_is_left(record)


def test_a_broken_setup_line_is_shown(login: Login) -> None:
    output = login.run("up", str(login.file(head=", setup: ['module load no-such']")), code=1)
    assert "the head did not come up" in output
    assert "setup line 1 (module load no-such) failed with code 127" in output
    assert login.record is None


def test_a_refusal_of_slurms_is_said(login: Login) -> None:
    output = login.run("up", str(login.file(head=", partition: nope")), code=1)
    assert "nope" in output
    assert login.living() == []
    assert login.record is None


def test_a_controller_that_can_not_be_reached_is_ended_by_slurm(login: Login) -> None:
    path = login.file()
    login.run("up", str(path), "--detach", timeout_s=30)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    record = login.pretend_to_be_elsewhere()
    # A relay that finds no socket: the controller is being restarted, or its host is cut off.
    hidden = replace(record, host=ELSEWHERE, runtime_dir=str(login.folder / "nowhere"))
    write_record(login.places.record, hidden)
    login.run("down", NAME)
    login.nothing_is_left(record)


def test_the_next_head_begins_when_this_one_has_ended(login: Login) -> None:
    path = login.file()
    login.run("up", str(path), "--detach", timeout_s=30)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    first = login.record
    assert first is not None
    assert first.job is not None
    assert "the next head is Slurm job" in login.run("up", str(path), "--successor")
    # As at the end of its time: the head's own process is told by Slurm.
    login.site.run("scancel", "--signal=USR1", "--batch", first.job.job_id)
    second = until(
        lambda: login.record if login.record and login.record.cluster_uid != first.cluster_uid else None,
        "successor",
        120,
    )
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    assert json.loads(login.run("status", "--json"))["cluster_uid"] == second.cluster_uid
    assert tagged_processes("HELIOSTAT_CLUSTER_UID", first.cluster_uid) == []
    login.run("down", NAME)
    login.nothing_is_left(second)
