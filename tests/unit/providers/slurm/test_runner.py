"""Running commands here, in real processes; through ssh it is tests/integration/slurm/test_ssh.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heliostat.ports.errors import Unavailable
from heliostat.providers.slurm import runner as module
from heliostat.providers.slurm.jobs import ENVIRONMENT
from heliostat.providers.slurm.runner import (
    MARK,
    LocalRunner,
    Output,
    command_environment,
    read_remote,
    remote_command,
)
from tests.waiting import gone, written

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
