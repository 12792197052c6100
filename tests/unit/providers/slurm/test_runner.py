"""Running commands: real processes, and a real sshd on loopback where one can be had."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heliostat.ports.errors import AuthenticationFailed, Unavailable
from heliostat.providers.slurm import runner as module
from heliostat.providers.slurm.jobs import ENVIRONMENT
from heliostat.providers.slurm.options import Ssh
from heliostat.providers.slurm.runner import (
    CONTROL_PATH_MOST_BYTES,
    MARK,
    LocalRunner,
    Output,
    SshRunner,
    command_environment,
    read_remote,
    remote_command,
)

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
NO_SSHD = next(
    (
        f"{name} is not installed here"
        for name, path in (("ssh", shutil.which("ssh")), ("sshd", SSHD))
        if not path
    ),
    "",
)
needs_sshd = pytest.mark.skipif(bool(NO_SSHD), reason=NO_SSHD)


async def gone(pid: int, *, deadline_s: float = 10.0) -> bool:
    """Wait until a process is gone, or a zombie that only its parent can collect."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        await asyncio.sleep(0.02)
    return False


async def written(path: Path, *, deadline_s: float = 10.0) -> str:
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        await asyncio.sleep(0.02)
    raise AssertionError(f"{path} was not written")


# Here.


async def test_a_command_gets_its_input_and_gives_all_its_output() -> None:
    runner = LocalRunner()
    script = "cat; printf 'to people' >&2; exit 3"
    found = await runner.run(("sh", "-c", script), stdin="a script\nwith ü\n", deadline_s=10)
    assert found == Output(3, "a script\nwith ü\n", "to people")
    large = await runner.run(("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"), deadline_s=10)
    assert large.stdout == "x" * 300_000
    assert runner.counts == {"sh": 2}


async def test_what_is_no_text_does_not_break_a_listing() -> None:
    found = await LocalRunner().run(("printf", "a\\377b"), deadline_s=10)
    assert found.stdout == "a\ufffdb"


async def test_a_missing_or_broken_command_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-squeue was not found: is this a machine with Slurm"):
        await LocalRunner().run(("no-such-squeue",), deadline_s=10)
    broken = tmp_path / "squeue"
    broken.write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable, match="could not be run: Permission denied"):
        await LocalRunner().run((str(broken),), deadline_s=10)


async def test_past_its_deadline_the_whole_group_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo sbatch: sleeping and retrying >&2; echo $$ $! > {pids}; wait"
    with pytest.raises(Unavailable, match=r"sh did not answer within 1 s: sbatch: sleeping and retrying"):
        await LocalRunner().run(("sh", "-c", script), deadline_s=1)
    for pid in (await written(pids)).split():
        assert await gone(int(pid))


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! > {pids}; wait"
    caller = asyncio.ensure_future(LocalRunner().run(("sh", "-c", script), deadline_s=60))
    found = (await written(pids)).split()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    for pid in found:
        assert await gone(int(pid))


async def test_output_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_MOST_BYTES", 100_000)
    with pytest.raises(Unavailable, match="yes printed more than 100000 bytes"):
        await LocalRunner().run(("yes",), deadline_s=30)
    with pytest.raises(Unavailable, match="printed more than"):
        await LocalRunner().run(("head", "-c", "100001", "/dev/zero"), deadline_s=30)


async def test_who_inherits_the_output_does_not_keep_us_waiting() -> None:
    started_s = time.monotonic()
    found = await LocalRunner().run(("sh", "-c", "sleep 20 & echo $!"), deadline_s=15)
    assert time.monotonic() - started_s < 10
    os.kill(int(found.stdout), 9)


async def test_the_users_defaults_do_not_bend_our_commands() -> None:
    inherited = {
        "PATH": os.environ["PATH"],
        "SBATCH_ACCOUNT": "other",
        "SQUEUE_STATES": "RUNNING",
        "SCANCEL_STATE": "RUNNING",
        "SACCT_FEDERATION": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_TIME_FORMAT": "relative",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_CLUSTERS": "big",
        "SLURM_JWT": "token",
        "LC_ALL": "de_DE.UTF-8",
        "SLURMFOO": "stays",
    }
    kept = {"PATH", "SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURMFOO"}
    expected = {**{name: inherited[name] for name in kept}, **ENVIRONMENT}
    assert command_environment(inherited) == expected
    found = await LocalRunner(inherited).run(("env",), deadline_s=10)
    assert dict(line.split("=", 1) for line in found.stdout.splitlines()).items() >= expected.items()


# Elsewhere, without ssh.


def through(shell: str, argv: tuple[str, ...], *, stdin: str = "", **environment: str) -> Output:
    """Run the line for the far side as its sshd would, by the user's shell."""
    line = remote_command(argv, ENVIRONMENT, remote_s=20)
    answer = subprocess.run(
        (shell, "-c", line),
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    found = read_remote(Output(answer.returncode, answer.stdout, answer.stderr))
    assert found is not None, answer
    return found


@pytest.mark.parametrize("shell", [one for one in ("sh", "bash", "dash", "zsh", "csh") if shutil.which(one)])
def test_arguments_survive_the_far_sides_shell(shell: str) -> None:
    strange = ("a b", "it's", '"$HOME"', "`id`", "*", "\x1f\x1e", "ü;|&", "%s\\n", "")
    found = through(shell, (sys.executable, "-c", "import sys; print(sys.argv[1:])", *strange))
    assert found == Output(0, f"{list(strange)}\n", "")


def test_the_far_side_gets_input_and_environment_and_gives_the_exit_code() -> None:
    found = through(
        "sh", ("sh", "-c", "cat; env; exit 255"), stdin="hello\n", SBATCH_QOS="x", SQUEUE_SORT="y"
    )
    assert found.code == 255
    assert found.stdout.startswith("hello\n")
    assert "SLURM_TIME_FORMAT=%s\n" in found.stdout
    assert "SBATCH_QOS" not in found.stdout
    assert "SQUEUE_SORT" not in found.stdout


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Output(0, f"{MARK}text{MARK}0", ""), Output(0, "text", "")),
        (Output(0, f"Welcome!\n{MARK}{MARK}255", "no"), Output(255, "", "no")),
        (Output(0, f"{MARK}a{MARK}b{MARK}1\n", ""), Output(1, f"a{MARK}b", "")),
        (Output(255, "", "ssh: connect to host x port 22: Connection refused"), None),
        (Output(0, f"{MARK}half a list", ""), None),
        (Output(255, f"{MARK}text{MARK}0", "client_loop: send disconnect: Broken pipe"), None),
        (Output(0, "", ""), None),
    ],
)
def test_only_a_whole_answer_counts(answer: Output, found: Output | None) -> None:
    assert read_remote(answer) == found


# Through a real sshd.


@dataclass
class Server:
    """An sshd of the test's own; `log` has a line for each login."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def ssh(self, *options: str, key: str = "key") -> Ssh:
        given = (
            *(
                "-F",
                "none",
                "-i",
                str(self.folder / key),
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "IdentityAgent=none",
            ),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.folder / 'known'}"),
        )
        return Ssh("127.0.0.1", port=self.port, options=(*given, *options))

    def logins(self) -> int:
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "key", "stranger"):
        subprocess.run(
            ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)), check=True, timeout=30
        )
    shutil.copy(folder / "key.pub", folder / "authorized")
    (folder / "conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        "LogLevel VERBOSE\nMaxSessions 50\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    assert SSHD is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen((SSHD, "-D", "-e", "-f", str(folder / "conf")), stderr=log)
        try:
            _wait_for_port(process, port, folder / "log")
            yield Server(process, port, folder)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text(errors='replace').strip()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("sshd does not listen")


@pytest.fixture
async def far(server: Server, tmp_path: Path) -> AsyncIterator[SshRunner]:
    runner = SshRunner(server.ssh(), runtime_dir=str(tmp_path / "run"))
    yield runner
    await runner.aclose()


@needs_sshd
async def test_commands_run_there_and_the_exit_code_is_theirs(far: SshRunner) -> None:
    found = await far.run(("sh", "-c", "cat; echo no >&2; exit 255"), stdin="a script\n", deadline_s=20)
    assert found == Output(255, "a script\n", "no\n")
    environment = await far.run(("env",), deadline_s=20)
    assert "SLURM_BITSTR_LEN=0\n" in environment.stdout
    assert far.counts == {"sh": 1, "env": 1}


@needs_sshd
async def test_many_at_once_share_one_connection(server: Server, far: SshRunner) -> None:
    before = server.logins()
    every = await asyncio.gather(
        *(far.run(("echo", f"{number} \x1f*"), deadline_s=30) for number in range(8))
    )
    assert [one.stdout for one in every] == [f"{number} \x1f*\n" for number in range(8)]
    assert server.logins() == before + 1


@needs_sshd
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


@needs_sshd
async def test_a_long_runtime_folder_gets_a_short_one_instead(server: Server, tmp_path: Path) -> None:
    runner = SshRunner(server.ssh(), runtime_dir=str(tmp_path / ("x" * CONTROL_PATH_MOST_BYTES)))
    await runner.run(("true",), deadline_s=20)
    assert runner._spare_folder is not None
    spare = Path(runner._spare_folder)
    assert len(list(spare.iterdir())) == 1
    await runner.aclose()
    assert not spare.exists()


@needs_sshd
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


@needs_sshd
async def test_a_lost_connection_is_unavailable_and_made_anew(far: SshRunner) -> None:
    with pytest.raises(Unavailable, match=r"ssh to 127.0.0.1 failed"):
        # The sshd of this session is the parent of the user's shell.
        await far.run(("sh", "-c", "kill -9 $(ps -o ppid= -p $(ps -o ppid= -p $PPID))"), deadline_s=20)
    assert (await far.run(("echo", "again"), deadline_s=20)).stdout == "again\n"


@needs_sshd
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


@needs_sshd
async def test_a_command_that_is_missing_there_is_named(far: SshRunner) -> None:
    with pytest.raises(Unavailable, match=r"no-such-squeue was not found on 127.0.0.1"):
        await far.run(("no-such-squeue",), deadline_s=20)


@needs_sshd
async def test_a_command_that_hangs_there_ends_there_too(far: SshRunner, tmp_path: Path) -> None:
    await far.run(("true",), deadline_s=20)
    pids = tmp_path / "pids"
    with pytest.raises(Unavailable, match=r"sh on 127.0.0.1 did not answer within 1 s"):
        await far.run(("sh", "-c", f"echo $$ > {pids}; exec sleep 60"), deadline_s=1)
    assert await gone(int(await written(pids)))
    assert (await far.run(("echo", "still here"), deadline_s=20)).stdout == "still here\n"
