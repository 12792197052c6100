"""A driver on another host, over a real ssh: one that prints a welcome, asks for a terminal, and breaks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heliostat.cli.far_driver import Command, pipe_to
from heliostat.gateway.errors import Code
from heliostat.gateway.work import link
from heliostat.gateway.work.silence import FAR, SILENT_S
from heliostat.gateway.work.workplace import DriverCommand, Workplace, WorkSettings
from heliostat.model.gateway import Sandbox, SandboxKind
from tests import sshd
from tests.conftest import RUN_TAG
from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster
from tests.integration.gateway.test_head_gone import code_of
from tests.integration.gateway.test_work_on_ray import begun, script, status_of
from tests.integration.slurm.conftest import give_up_over
from tests.sshd import Server
from tests.waiting import gone
from tools import processes

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(240)]

DRIVER = "heliostat.gateway.work.driver"
LOGIN = "login2.cluster.invalid"
PASSED_ON = ("PYTHONPATH", RUN_TAG, "HELIOSTAT_RUNTIME_DIR")
WELCOME = 'command="echo Welcome to login2; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" '
SSH_CONFIG = """\
Host {host}
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  IdentityAgent none
  StrictHostKeyChecking no
  UserKnownHostsFile {folder}/known
  LogLevel ERROR
  RequestTTY force
"""
SLOW_S = 10.0


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    text = CLUSTER.format(name=f"it-gw-{os.getpid()}", workers=1, idle_timeout_s=60, orphan_timeout_s=60)
    with cluster(tmp_path_factory.mktemp("cluster"), text) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd, reached by `ssh login2.cluster.invalid` as by a user's own settings."""
    give_up_over(sshd.obstacle())
    folder = tmp_path_factory.mktemp("sshd")
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # As one that a shell sets there by itself.
    with sshd.start(folder, environment={**kept, "HYPHA_TOKEN": "not for drivers"}) as found:
        authorized = folder / "authorized"
        authorized.write_text(WELCOME + authorized.read_text())
        (folder / "config").write_text(SSH_CONFIG.format(host=LOGIN, port=found.port, folder=folder))
        ssh = folder / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {sshd.which("ssh")} -F {folder}/config "$@"\n')
        ssh.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{ssh.parent}{os.pathsep}{os.environ['PATH']}")
            patch.setenv("HYPHA_TOKEN", "the gateway's own")
            yield found


def driver_over_ssh(found: Cluster) -> Command:
    there = replace(found.record, host=LOGIN, job=None)
    return pipe_to(there, [found.record.python, "-m", DRIVER, FAR], without=["HYPHA_TOKEN"])


@asynccontextmanager
async def work_over_ssh(found: Cluster) -> AsyncIterator[Workplace]:
    def driver() -> DriverCommand:
        command = driver_over_ssh(found)
        return DriverCommand(command.argv, command.environment)

    settings = WorkSettings(driver, sandbox=Sandbox(SandboxKind.NONE))
    work = Workplace(settings, functools.partial(asyncio.to_thread, status_of, found))
    work.start()
    try:
        yield work
    finally:
        await work.aclose(0.0)


def far_drivers() -> list[int]:
    """Return the drivers that sshd has started, not what waits for them."""
    found = processes.find(lambda environ: b"SSH_CONNECTION=" in environ)
    return [one.pid for one in found if f" -m {DRIVER}" in one.command and "ssh" not in one.command]


async def test_large_values_go_both_ways_and_nobody_is_left(one_worker: Cluster, server: Server) -> None:
    image = np.random.default_rng(1).integers(0, 256, 10_000_000, dtype="u1")
    async with work_over_ssh(one_worker) as work:
        done = await script(work, "result = image[::-1]", inputs={"image": image})
        np.testing.assert_array_equal(done.value, image[::-1])
        (pid,) = far_drivers()
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert [one for one in variables if one.startswith(b"HYPHA_TOKEN=")] == []
        secret = Path(one_worker.record.token_path).read_text().strip()
        assert secret not in "".join(driver_over_ssh(one_worker).argv)
    assert await gone(pid)


async def test_a_connection_that_is_cut_loses_what_runs_and_no_more(
    one_worker: Cluster, server: Server
) -> None:
    async with work_over_ssh(one_worker) as work:
        event, say = begun()
        calling = asyncio.create_task(script(work, "import time\ntime.sleep(300)", say=say))
        await event.wait()
        (pid,) = far_drivers()
        server.cut()
        assert await code_of(calling) is Code.LOST
        assert (await script(work, "result = 1 + 1")).value == 2
        assert await gone(pid)


async def test_a_network_that_breaks_leaves_no_driver(
    one_worker: Cluster, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_S", 0.5)
    monkeypatch.setattr(link, "SILENT_S", SLOW_S)
    async with work_over_ssh(one_worker) as work:
        event, say = begun()
        calling = asyncio.create_task(script(work, "import time\ntime.sleep(300)", say=say))
        await event.wait()
        (pid,) = far_drivers()
        with broken(connection_of(pid)):
            assert await code_of(calling) is Code.LOST
            assert (await script(work, "result = 1 + 1")).value == 2
            # Nobody has told it that its pipe has ended: its own watch has.
            assert await gone(pid, deadline_s=SILENT_S + 15)


def connection_of(pid: int) -> int:
    """Return the sshd that carries a driver's pipes."""
    while Path(f"/proc/{pid}/comm").read_text().strip() != "sshd":
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


@contextlib.contextmanager
def broken(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
