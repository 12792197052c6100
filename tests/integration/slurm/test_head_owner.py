"""Whose a head is that is a Slurm job: of two hosts, the next `up`, its successor; and how long it lasts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from heliostat.cli.head_queue import lease_of
from heliostat.cli.queued_head import applied_spec
from heliostat.config.record import ClusterRecord
from tests import another_host
from tests.integration.slurm.login import NAME, Login, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LATER = ", sbatch: ['--begin=now+1hour']"


def test_of_two_hosts_one_starts_the_head_and_the_other_says_who_has_it(login: Login) -> None:
    path = login.file(head=LATER)
    both = [login.start("up", str(path), "--detach", host=host) for host in ("login1", "login2")]
    another_host.begin(both)
    outputs = [one.communicate(timeout=60)[0] for one in both]
    record = login.record
    assert record is not None
    (job_id,) = login.living()
    winner = ("login1", "login2").index(record.owner.rpartition("@")[2])
    assert both[winner].returncode == 0, outputs[winner]
    assert f"waits for its head: Slurm job {job_id}" in outputs[winner]
    if both[1 - winner].returncode:
        assert f"{record.owner} has just started {NAME}: `heliostat status {NAME}`" in outputs[1 - winner]
    else:
        # It came late enough to find the other's job, and says that it waits.
        assert f"waits for its head: Slurm job {job_id}" in outputs[1 - winner]
    login.run("down", NAME)
    login.nothing_is_left(record)


def test_the_next_up_owns_a_head_whose_up_was_killed(login: Login) -> None:
    path = login.file(head=LATER)
    first = login.start("up", str(path))
    (job_id,) = until(login.living, "job")
    record = until(lambda: login.record, "record")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    second = login.start("up", str(path))
    look = until(lambda: login.record, "record")
    assert look.cluster_uid == record.cluster_uid
    assert second.stdout is not None
    said = next(line for line in second.stdout if "it is gone" in line)
    assert f"{NAME} ends with this one now" in said
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 130, output
    assert login.living() == []
    assert job_id
    login.nothing_is_left(record)


def cmdline(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def die_hard(record: ClusterRecord) -> None:
    """Let wrapper and controller end as when their node dies: nobody lets the workers go."""
    assert record.wrapper is not None
    wrapper = record.wrapper.pid
    tasks = Path(f"/proc/{wrapper}/task/{wrapper}/children").read_text().split()
    (controller,) = [int(one) for one in tasks if b"heliostat.cli.controller" in cmdline(one)]
    # The death of the wrapper is told to it, and it would let the workers go.
    os.kill(controller, signal.SIGSTOP)
    os.kill(wrapper, signal.SIGKILL)
    os.kill(controller, signal.SIGKILL)


def test_workers_of_a_head_that_died_go_when_its_successor_begins(login: Login) -> None:
    path = login.file()
    login.run("up", str(path), "--detach", timeout_s=30)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    first = login.record
    assert first is not None
    assert first.job is not None
    login.run("add", "cpu")
    (worker,) = [one for one in login.living() if one != first.job.job_id]
    assert "the next head is Slurm job" in login.run("up", str(path), "--successor")
    die_hard(first)
    second = until(
        lambda: login.record if login.record and login.record.cluster_uid != first.cluster_uid else None,
        "successor",
        60,
    )
    until(lambda: worker not in login.living() or None, "end of the old worker", 40)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    assert json.loads(login.run("status", "--json"))["cluster_uid"] == second.cluster_uid
    # Nobody is left on its node to do so.
    shutil.rmtree(f"/tmp/hel-{first.cluster_uid[:8]}", ignore_errors=True)
    log = (login.places.logs / "head.slurm.log").read_text()
    assert f"head: 1 jobs of {NAME} were left in Slurm, and are cancelled" in log
    login.run("down", NAME)


def test_a_time_limit_that_is_changed_is_the_leases_end(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in login.site.environment.items():
        monkeypatch.setenv(name, value)
    login.run("up", str(login.file()), "--detach", timeout_s=30)
    until(lambda: login.record is not None and login.record.session_name, "head", 90)
    record = login.record
    assert record is not None
    assert record.job is not None
    lease = lease_of(record, applied_spec(record, login.places))
    before_s = record.job.lease_end_s
    assert lease.now() == before_s
    login.site.run("scontrol", "update", f"JobId={record.job.job_id}", "TimeLimit=25")
    asyncio.run(lease.look())
    assert lease.now() == pytest.approx(before_s + 15 * 60, abs=2)
    login.site.run("scontrol", "update", f"JobId={record.job.job_id}", "TimeLimit=UNLIMITED")
    asyncio.run(lease.look())
    assert lease.now() is None
    login.run("down", NAME)
    login.nothing_is_left(record)
