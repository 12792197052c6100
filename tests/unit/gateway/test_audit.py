"""The audit log on a real file system: what is written stays, what can't be written is refused."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.audit import AuditLog, NotDurable, lines_in


def line(number: int, **facts: object) -> dict[str, object]:
    return {"at_s": float(number), "event": "asked", **facts}


def numbers(path: Path) -> list[float]:
    return [one["at_s"] for one in lines_in(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def full_disk(monkeypatch: pytest.MonkeyPatch, *, takes: int = 0) -> None:
    """Let the disk take only so many bytes more, as ext4 does where a part of a line fits."""
    write = os.write

    def refuse(file: int, data: bytes) -> int:
        if not takes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:takes])

    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.write", refuse)


async def test_lines_come_back_in_order(path: Path) -> None:
    log = AuditLog(path)
    await log.add(line(1, who="ada", text="a\nb\u2028", nothing=None))
    await log.add_for_certain(line(2))
    log.add_at_last(line(3))
    log.close()
    assert numbers(path) == [1, 2, 3]
    assert next(lines_in(path)) == {"at_s": 1.0, "event": "asked", "who": "ada", "text": "a\nb\u2028"}
    assert path.read_bytes().count(b"\n") == 3


def test_only_the_owner_can_read_it(path: Path) -> None:
    path.touch(mode=0o644)
    AuditLog(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic link|loop"):
        AuditLog(path)


@pytest.mark.parametrize(
    "torn", [b'{"at_s":2.0,"eve', b'{"at_s":2.0}extra', b"\xff\xfe", b"[]", b'{"at_s":"x"}']
)
def test_a_torn_last_line_does_no_harm(path: Path, torn: bytes) -> None:
    path.write_bytes(b'{"at_s":1.0}\n' + torn)
    log = AuditLog(path)
    log.add_at_last(line(3))
    log.close()
    assert numbers(path) == [1, 3]


def test_wherever_a_crash_has_cut_it_the_whole_lines_stay(path: Path) -> None:
    log = AuditLog(path)
    for number in range(3):
        log.add_at_last(line(number, who="adä"))
    log.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # The last line may be whole without its end.
        complete = [number for number in range(3) if whole[:cut].count(b"}") > number]
        log = AuditLog(path)
        log.add_at_last(line(9))
        log.close()
        assert numbers(path) == [*complete, 9]


def test_it_is_turned_by_size(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=100, keep_files=2)
    for number in range(10):
        log.add_at_last(line(number, text="x" * 20))
    log.close()
    files = sorted(one.name for one in path.parent.iterdir())
    assert files == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    kept = numbers(path)
    assert kept == list(range(10))[-len(kept) :]
    assert all(one.stat().st_size <= 100 for one in path.parent.iterdir())
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("function", "fails_at"), [("open", 1), ("replace", 1), ("replace", 4), ("replace", 7)]
)
def test_a_turn_that_fails_again_and_again_loses_no_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: str, fails_at: int
) -> None:
    log = AuditLog(path, rotate_bytes=100, keep_files=8)
    for number in range(6):
        log.add_at_last(line(number, text="x" * 20))
    assert log.settle(10)
    real, calls = getattr(os, function), itertools.count(1)

    def fail(*arguments: object) -> object:
        if next(calls) >= fails_at:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(*arguments)

    monkeypatch.setattr(f"heliostat.gateway.rules.audit_file.os.{function}", fail)
    for number in range(6, 12):
        log.add_at_last(line(number, text="x" * 20))
        assert log.settle(10)
    assert numbers(path) == list(range(6))
    monkeypatch.setattr(f"heliostat.gateway.rules.audit_file.os.{function}", real)
    log.close()
    kept = numbers(path)
    assert kept == list(range(12))[-len(kept) :]
    assert len(kept) == 9


def test_a_line_longer_than_a_file_is_written_whole(path: Path) -> None:
    log = AuditLog(path, rotate_bytes=50)
    log.add_at_last(line(1, script="x" * 500))
    log.add_at_last(line(2))
    log.close()
    assert numbers(path) == [1, 2]


@pytest.mark.parametrize("takes", [0, 7])
async def test_a_full_disk_takes_no_call(path: Path, monkeypatch: pytest.MonkeyPatch, takes: int) -> None:
    log = AuditLog(path)
    await log.add(line(1))
    assert log.settle(10)
    full_disk(monkeypatch, takes=takes)
    with pytest.raises(CallError, match="can't write its audit log, so it takes no calls") as caught:
        await log.add_for_certain(line(2))
    assert caught.value.code is Code.UNAVAILABLE
    assert not isinstance(caught.value, NotDurable)
    assert str(path) not in str(caught.value)
    log.add_at_last(line(3))
    with pytest.raises(CallError):
        await log.add(line(4))
    log.add_if_well(line(5))
    assert log.settle(10)
    assert log.is_behind
    monkeypatch.undo()
    # What happened anyway comes first, as soon as the disk takes it; of the refused lines nothing is left.
    await log.add(line(6))
    assert not log.is_behind
    log.close()
    assert numbers(path) == [1, 3, 6]


async def test_a_disk_that_says_so_only_at_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    log = AuditLog(path)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.fsync", refuse)
    with pytest.raises(CallError) as caught:
        await log.add_for_certain(line(1))
    assert caught.value.code is Code.UNAVAILABLE


class Hanging:
    """A function of the file system that hangs until `goes_on`."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real, self.goes_on, self.calls = real, threading.Event(), 0

    def __call__(self, *arguments: object) -> object:
        self.calls += 1
        assert self.goes_on.wait(10)
        return self._real(*arguments)


async def test_many_calls_share_a_wait_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Hanging(os.fsync)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.fsync", slow)
    log = AuditLog(path)
    waiting = [asyncio.ensure_future(log.add_for_certain(line(number))) for number in range(200)]
    # Each adds its line before it waits.
    await asyncio.sleep(0)
    slow.goes_on.set()
    await asyncio.gather(*waiting)
    assert sorted(numbers(path)) == list(range(200))
    assert slow.calls <= 2
    log.close()


async def test_a_disk_that_hangs_is_waited_for_so_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = Hanging(os.fsync)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.fsync", hang)
    # On a busy machine a thread may wait for its turn.
    monkeypatch.setattr("heliostat.gateway.rules.audit.SYNC_TIMEOUT_S", 0.5)
    log = AuditLog(path)
    ended = await asyncio.gather(*(log.add_for_certain(line(n)) for n in range(9)), return_exceptions=True)
    # Those that came while it hung were never written.
    assert {type(one) for one in ended} <= {NotDurable, CallError}
    assert {one.code for one in ended if isinstance(one, CallError)} == {Code.UNAVAILABLE}
    assert hang.calls == 1
    hang.goes_on.set()
    assert log.settle(10)
    monkeypatch.setattr("heliostat.gateway.rules.audit.SYNC_TIMEOUT_S", 10.0)
    await log.add_for_certain(line(9))
    assert hang.calls == 2
    log.close()
    unsure = [number for number, one in enumerate(ended) if isinstance(one, NotDurable)]
    assert numbers(path) == [*unsure, 9]


async def test_a_write_that_hangs_holds_up_nobody_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, hang = AuditLog(path), Hanging(os.write)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.write", hang)
    # Neither what has happened nor a question waits for it.
    log.add_at_last(line(1))
    await log.add(line(2))
    while not hang.calls:
        await asyncio.sleep(0)
    # A call does, for as long as it may. From then on it is known, and nobody is kept.
    monkeypatch.setattr("heliostat.gateway.rules.audit.SYNC_TIMEOUT_S", 0.02)
    for wanted in (log.add_for_certain, log.add_for_certain, log.add):
        with pytest.raises(CallError) as caught:
            await wanted(line(3))
        assert caught.value.code is Code.UNAVAILABLE
        assert log.is_behind
    log.add_if_well(line(5))
    hang.goes_on.set()
    assert log.settle(10)
    assert not log.is_behind
    log.close()
    assert numbers(path) == [1, 2]


async def test_a_hanging_disk_does_not_keep_the_gateway_from_ending(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, hang = AuditLog(path), Hanging(os.write)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.write", hang)
    monkeypatch.setattr("heliostat.gateway.rules.audit.CLOSE_TIMEOUT_S", 0.02)
    log.add_at_last(line(1))
    log.close()
    assert numbers(path) == []
    hang.goes_on.set()


async def test_a_call_that_was_given_up_is_not_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, hang = AuditLog(path), Hanging(os.write)
    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.write", hang)
    log.add_at_last(line(1))
    waiting = asyncio.create_task(log.add_for_certain(line(2)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hang.goes_on.set()
    log.close()
    assert numbers(path) == [1]


def test_of_what_waits_the_oldest_goes_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch)
    monkeypatch.setattr("heliostat.gateway.rules.audit.WAITING_LINES_MAX", 3)
    log = AuditLog(path)
    for number in range(6):
        log.add_at_last(line(number))
        assert log.settle(10)
    monkeypatch.undo()
    log.close()
    assert numbers(path) == [3, 4, 5]


async def test_nothing_else_stands_before_the_disk(path: Path) -> None:
    goes_on = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    other = loop.run_in_executor(None, goes_on.wait, 10)
    log = AuditLog(path)
    await asyncio.wait_for(log.add_for_certain(line(1)), 5)
    goes_on.set()
    assert await other
    log.close()
