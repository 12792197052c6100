"""Slurm's commands through a real sshd on loopback: the runner, and the provider with all that it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import AuthenticationFailed, Unavailable
from heliostat.ports.provider import ClusterIdentity, Outcome, ProviderContext
from heliostat.providers.slurm import create
from heliostat.providers.slurm.keys import Ssh
from heliostat.providers.slurm.runner import CONTROL_PATH_MOST_BYTES, LocalRunner, Output, SshRunner
from tests import sshd
from tests.slurm_site import SlurmSite
from tests.sshd import Server, free_port
from tests.waiting import gone, written

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

STAND_IN = Path(__file__).parent / "stand_in.py"


@pytest.fixture(scope="module")
def server(shared_site: SlurmSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd on a machine with the session's Slurm; skipped where none can be had, but not by CI."""
    obstacle = sshd.obstacle()
    if obstacle and os.environ.get("CI") == "true":
        pytest.fail(obstacle)
    if obstacle:
        pytest.skip(obstacle)
    environment = {"SLURM_CONF": shared_site.environment["SLURM_CONF"]}
    with sshd.start(tmp_path_factory.mktemp("sshd"), environment=environment) as found:
        yield found


@pytest.fixture
async def far(server: Server, tmp_path: Path) -> AsyncIterator[SshRunner]:
    runner = SshRunner(server.ssh(), runtime_dir=str(tmp_path / "run"))
    yield runner
    await runner.aclose()


async def test_commands_run_there_and_the_exit_code_is_theirs(far: SshRunner) -> None:
    found = await far.run(("sh", "-c", "cat; echo no >&2; exit 255"), stdin="a script\n", deadline_s=20)
    assert found == Output(255, "a script\n", "no\n")
    environment = await far.run(("env",), deadline_s=20)
    assert "SLURM_BITSTR_LEN=0\n" in environment.stdout
    assert far.counts == {"sh": 1, "env": 1}


async def test_many_at_once_share_one_connection(server: Server, far: SshRunner) -> None:
    before = server.logins()
    every = await asyncio.gather(
        *(far.run(("echo", f"{number} \x1f*"), deadline_s=30) for number in range(8))
    )
    assert [one.stdout for one in every] == [f"{number} \x1f*\n" for number in range(8)]
    assert server.logins() == before + 1


async def test_the_connection_ends_with_the_runner_and_comes_back(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runner = SshRunner(server.ssh(), runtime_dir=str(folder))
    await runner.run(("true",), deadline_s=20)
    assert len(list(folder.iterdir())) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    await runner.aclose()
    assert list(folder.iterdir()) == []
    assert (await runner.run(("echo", "again"), deadline_s=20)).stdout == "again\n"
    await runner.aclose()


async def test_a_long_runtime_folder_gets_a_short_one_instead(server: Server, tmp_path: Path) -> None:
    runner = SshRunner(server.ssh(), runtime_dir=str(tmp_path / ("x" * CONTROL_PATH_MOST_BYTES)))
    await runner.run(("true",), deadline_s=20)
    assert runner._spare_folder is not None
    spare = Path(runner._spare_folder)
    assert len(list(spare.iterdir())) == 1
    await runner.aclose()
    assert not spare.exists()


async def test_a_connection_of_the_users_own_is_used_and_left_alone(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "own"
    ssh = server.ssh("-o", f"ControlPath={path}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    runner = SshRunner(ssh, runtime_dir=str(tmp_path / "run"))
    assert (await runner.run(("echo", "hi"), deadline_s=20)).stdout == "hi\n"
    await runner.aclose()
    assert path.is_socket()
    assert not (tmp_path / "run").exists()
    ended = await LocalRunner().run(("ssh", "-S", str(path), "-O", "exit", "x"), deadline_s=10)
    assert ended.code == 0


async def test_a_lost_connection_is_unavailable_and_made_anew(
    server: Server, far: SshRunner, tmp_path: Path
) -> None:
    await far.run(("true",), deadline_s=20)
    runs = tmp_path / "runs"
    asked = asyncio.ensure_future(far.run(("sh", "-c", f"echo yes > {runs}; exec sleep 10"), deadline_s=20))
    await written(runs)
    server.cut()
    with pytest.raises(Unavailable, match=r"ssh to 127.0.0.1 failed"):
        await asked
    assert (await far.run(("echo", "again"), deadline_s=20)).stdout == "again\n"


async def test_a_refused_login_and_a_closed_port(server: Server, tmp_path: Path) -> None:
    stranger = SshRunner(server.ssh(key="stranger"), runtime_dir=str(tmp_path / "a"))
    with pytest.raises(AuthenticationFailed, match=r"`ssh 127.0.0.1` must work without a question"):
        await stranger.run(("true",), deadline_s=20)
    await stranger.aclose()
    nobody = SshRunner(
        Ssh("127.0.0.1", port=free_port(), options=("-F", "none")), runtime_dir=str(tmp_path / "b")
    )
    with pytest.raises(Unavailable, match=r"ssh to 127.0.0.1 failed: .*Connection refused"):
        await nobody.run(("true",), deadline_s=20)
    await nobody.aclose()


async def test_a_command_that_is_missing_there_is_named(far: SshRunner) -> None:
    with pytest.raises(Unavailable, match=r"no-such-squeue was not found on 127.0.0.1"):
        await far.run(("no-such-squeue",), deadline_s=20)


async def test_a_command_that_hangs_there_ends_there_too(far: SshRunner, tmp_path: Path) -> None:
    await far.run(("true",), deadline_s=20)
    pids = tmp_path / "pids"
    with pytest.raises(Unavailable, match=r"sh on 127.0.0.1 did not answer within 1 s"):
        await far.run(("sh", "-c", f"echo $$ > {pids}; exec sleep 60"), deadline_s=1)
    assert await gone(int(await written(pids)))
    assert (await far.run(("echo", "still here"), deadline_s=20)).stdout == "still here\n"


async def test_the_provider_does_all_of_it_through_ssh(
    server: Server, slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing of Slurm is to be had without going there.
    monkeypatch.setenv("SLURM_CONF", "/nowhere")
    ssh = server.ssh()
    options = {
        "ssh": {"host": ssh.host, "port": ssh.port, "options": list(ssh.options)},
        "time_limit": 10,
        "network": "127.0.0.0/8",
        "work_dir": str(tmp_path / "shared"),
    }
    who = ClusterIdentity("far", f"uid-{tmp_path.name}", "somebody")
    provider = create(
        ProviderContext(who, options, str(tmp_path / "r"), str(tmp_path / "logs"), str(STAND_IN))
    )
    kind = NodeType("cpu", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)
    start = {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 1}}

    async def states() -> dict[str, BackendState]:
        return {one.instance_id: one.state for one in await provider.instances()}

    async def until(wanted: dict[str, BackendState]) -> None:
        async with asyncio.timeout(60):
            while await states() != wanted:
                await asyncio.sleep(0.2)

    try:
        assert list(await provider.check([kind])) == []
        crash = LaunchRequest("l2", kind, 1, {**start, "behaviour": "crash"})
        done = await provider.apply(Change(launch=(LaunchRequest("l1", kind, 2, start), crash)))
        assert done == Outcome()
        running, failed = BackendState.RUNNING, BackendState.FAILED
        await until({"l1.0": running, "l1.1": running, "l2.0": failed})
        details = {one.instance_id: one.detail for one in await provider.instances()}
        assert "bootstrap: no such cluster" in str(details["l2.0"])
        assert "a line of somebody else" in await provider.last_words("l2.0")
        assert await provider.apply(Change(terminate=("l1.0", "l2.0"))) == Outcome()
        await until({"l1.1": running})
        assert await provider.apply(Change(terminate=("l1.1",))) == Outcome()
        await until({})
    finally:
        await provider.aclose()
