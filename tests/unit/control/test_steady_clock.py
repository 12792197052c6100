"""The controller's clock on a host's that is set, and what is shown then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.steady_clock import SteadyClock
from heliostat.control.transitions import round_events
from heliostat.journal import SqliteJournal
from heliostat.model.history import History
from heliostat.model.host_time import HostTime
from heliostat.model.instance import InstanceIntent, Intent
from heliostat.model.snapshot import Snapshot
from heliostat.planner import fold
from heliostat.testing.clock import ManualClock
from tests.unit.control.stage import Stage, up_with
from tests.unit.control.world import spec

POLICY = spec().policy
HOUR_S = 3_600.0
WANTED = InstanceIntent("l1.0", "l1", "cpu", "fake", "shape-cpu", Intent.WANTED, 0.0, "a demand")


class Host(ManualClock):
    """A host whose wall clock is set by `off_s`."""

    off_s = 0.0
    boot = "a boot"

    def now_s(self) -> float:
        return super().now_s() + self.off_s

    def uptime_s(self) -> float:
        return self.monotonic_s() + 5_000.0

    def boot_id(self) -> str:
        return self.boot


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    made = SqliteJournal(tmp_path / "journal.db", cluster_uid="uid")
    yield made
    made.close()


@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S])
def test_time_goes_on_evenly_while_the_host_is_set(journal: SqliteJournal, jump_s: float) -> None:
    host = Host()
    clock = SteadyClock.after(journal, host)
    began_s = clock.now_s()
    assert began_s == host.now_s()
    host.off_s = jump_s
    host.advance(10.0)
    assert clock.now_s() == began_s + 10.0
    assert clock.host_time().ahead_s == jump_s
    assert clock.monotonic_s() == host.monotonic_s()
    assert clock.now_s() + clock.utc_offset_s() == host.now_s() + host.utc_offset_s()


def seen(history: History, clock: SteadyClock) -> tuple[History, list[str]]:
    """Return the history after a round, and the round's events of the clock."""
    snapshot = Snapshot(clock.now_s(), None, {}, host=clock.host_time())
    after = fold(history, snapshot, POLICY)
    events = round_events(history, after, (), policy=POLICY, snapshot=snapshot)
    return after, [one.text for one in events if one.kind == "clock"]


def left(journal: SqliteJournal, history: History, *intents: InstanceIntent) -> SqliteJournal:
    journal.record_history(history)
    journal.record_intents(intents, [])
    return journal


def test_a_jump_is_told_once_and_the_next_controller_goes_on(journal: SqliteJournal) -> None:
    host = Host()
    clock = SteadyClock.after(journal, host)
    history, told = seen(History(), clock)
    assert told == []
    host.off_s = -HOUR_S
    host.advance(1.0)
    history, told = seen(history, clock)
    assert [one.split(":")[0] for one in told] == ["this host's clock was set back by 3600 s"]
    host.advance(10.0)
    following = SteadyClock.after(left(journal, history, WANTED), host)
    assert following.now_s() == clock.now_s()
    history, told = seen(history, following)
    assert told == []


def test_after_another_boot_nothing_remembered_lies_in_the_future(journal: SqliteJournal) -> None:
    host = Host()
    latest_s = host.now_s() + HOUR_S
    history = replace(History(), host=HostTime("an earlier boot", 0.0), rounds_at_s=latest_s)
    assert SteadyClock.after(left(journal, history, WANTED), host).now_s() == latest_s


@pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S])
def test_where_nothing_is_left_to_run_it_begins_with_the_host(journal: SqliteJournal, off_s: float) -> None:
    host = Host()
    history, _ = seen(History(), SteadyClock.after(journal, host))
    host.off_s = off_s
    assert SteadyClock.after(left(journal, history), host).now_s() == host.now_s()


def test_quiet_rounds_have_nothing_new_to_write_down(journal: SqliteJournal) -> None:
    host = Host()
    clock = SteadyClock.after(journal, host)
    history, _ = seen(History(), clock)
    for _ in range(100):
        host.advance(1.0)
        after, _ = seen(history, clock)
        assert after.host is history.host


async def test_people_see_the_hosts_time_of_what_was_before_it_was_set_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await up_with(stage, 1)
    operations, before = stage.operations, await stage.operations.events(0, 10, None)
    status, calls = await operations.status(), await operations.calls(10)
    lifetimes = await operations.lifetimes(10)
    # Of what is less than a millisecond nothing is seen.
    stage.clock.ahead_s = HOUR_S + 0.0004
    after = await operations.events(0, 10, None)
    assert [one.at_s for one in after] == [one.at_s + HOUR_S for one in before]
    assert (await operations.calls(10))[0].began_s == calls[0].began_s + HOUR_S
    (now,) = await operations.lifetimes(10)
    assert (now.requested_at_s, now.start_s) == (lifetimes[0].requested_at_s + HOUR_S, lifetimes[0].start_s)
    shown = await operations.status()
    assert shown.at_s == status.at_s + HOUR_S
    assert shown.instances[0].since_s == status.instances[0].since_s
    instance_id = shown.instances[0].instance_id
    removal = await operations.remove(instance_id, 60.0)
    assert removal["until_s"] == stage.clock.now_s() + 60.0 + HOUR_S
    assert stage.journal.operator().removals == {instance_id: stage.clock.now_s() + 60.0}
    stage.journal.close()


@pytest.mark.parametrize("what", ["events", "calls", "lifetimes"])
async def test_a_request_reads_the_hosts_time_once(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs more than a row does, and rows of one answer are moved by the same."""
    stage = Stage(tmp_path)
    await up_with(stage, 3)
    ask = {
        "events": lambda: stage.operations.events(0, 100, None),
        "calls": lambda: stage.operations.calls(100),
        "lifetimes": lambda: stage.operations.lifetimes(100),
    }[what]
    read: list[float] = []

    def host_time() -> HostTime:
        read.append(HOUR_S)
        return HostTime("", 0.0, read[-1])

    before = await ask()
    monkeypatch.setattr(stage.clock, "host_time", host_time)
    after = await ask()
    assert len(after) == len(before) > 0
    assert read == [HOUR_S]
    stage.journal.close()
