"""The adapter to this host: its local time, and which of its processes are ours."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from heliostat.cli.system import SystemClock, tagged_processes


@pytest.fixture
def india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "IST-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("india")
def test_how_far_local_time_is_ahead_of_utc() -> None:
    assert SystemClock().utc_offset_s() == 5.5 * 3600


def test_the_time_since_boot_goes_on_and_the_boot_has_a_name() -> None:
    clock = SystemClock()
    before_s = clock.uptime_s()
    assert 0 < time.monotonic() - 1e-3 <= clock.uptime_s()
    assert clock.uptime_s() >= before_s
    assert clock.boot_id() == SystemClock().boot_id() != ""


MARK = "HELIOSTAT_TEST_MARK"
TAGGED_AND_HIDDEN = "env {mark} sleep 300 & echo $!; env -i {hidden} & echo $!; wait"
NOTHING_SHOWN = "sleep 300"
# What a new title does: the first variable is overwritten, the last is left.
LAST_SHOWN = """{lost} {kept} '{python}' -c '
import ctypes, time
strings = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
ctypes.memset(strings[0], 0, strings[1] - strings[0])
time.sleep(300)'"""


@contextmanager
def session(value: str, *, leader: str = "", hidden: str = NOTHING_SHOWN) -> Iterator[tuple[int, int, int]]:
    """Run a shell in a session of its own; yield it, a tagged child, and one that shows no tag.

    The shell itself has the variable `leader`, if any.
    """
    tag = f"{MARK}={value}"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", TAGGED_AND_HIDDEN.format(mark=tag, hidden=hidden)],
        env={**os.environ, leader: value} if leader else None,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert shell.stdout is not None
    try:
        pids = [int(shell.stdout.readline()) for _ in range(2)]
        until_s = time.monotonic() + 20
        while not (_begins(pids[0], "cmdline", b"sleep") and _is_hidden(pids[1])):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        yield shell.pid, pids[0], pids[1]
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        shell.stdout.close()


def last_shown(*, lost: str, kept: str) -> str:
    return LAST_SHOWN.format(lost=lost, kept=kept, python=sys.executable)


def _is_hidden(pid: int) -> bool:
    return _begins(pid, "cmdline", b"sleep") or _begins(pid, "environ", b"\0")


def _begins(pid: int, name: str, what: bytes) -> bool:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().startswith(what)


@pytest.fixture
def value() -> str:
    return secrets.token_hex(8)


def test_what_hides_its_environment_is_ours_in_a_session_of_ours(value: str) -> None:
    with session(value, leader=MARK) as pids:
        assert set(tagged_processes(MARK, value)) == set(pids)


def test_it_is_ours_when_the_leader_is_gone_and_nobody_else_is_there(value: str) -> None:
    with session(value) as (leader, *children):
        os.kill(leader, signal.SIGKILL)
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
        assert set(tagged_processes(MARK, value)) == set(children)


def test_a_heads_agent_is_in_the_session_of_its_clusters_wrapper(value: str) -> None:
    with session(value, leader="HELIOSTAT_CLUSTER_UID") as (_, *head):
        assert set(tagged_processes(MARK, value)) == set(head)


def test_what_lost_its_tag_and_shows_other_variables_is_ours(value: str) -> None:
    hidden = last_shown(lost=f"{MARK}={value}", kept="KEPT=1")
    with session(value, leader="HELIOSTAT_CLUSTER_UID", hidden=hidden) as (_, *head):
        assert set(tagged_processes(MARK, value)) == set(head)


def test_what_lost_one_tag_and_shows_anothers_is_not(value: str) -> None:
    hidden = last_shown(lost="A=1", kept=f"{MARK}=another")
    with session(value, leader=MARK, hidden=hidden) as (leader, tagged, _):
        assert tagged_processes(MARK, value) == sorted([leader, tagged])


def test_what_hides_its_environment_in_a_users_session_is_theirs(value: str) -> None:
    with session(value) as (_, tagged, _hidden):
        assert tagged_processes(MARK, value) == [tagged]


def test_a_session_without_a_number_is_nobodys(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What entered a container from outside has session 0, and so have the system's own threads.
    with session(value, leader=MARK) as (leader, tagged, _hidden), monkeypatch.context() as changed:
        changed.setattr(os, "getsid", lambda _: 0)
        assert tagged_processes(MARK, value) == sorted([leader, tagged])
