from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import foreground, preparing, start
from heliostat.cli.attachment import attached_file
from heliostat.cli.clusters import places_of
from heliostat.cli.commands import up
from heliostat.cli.foreground import (
    hold,
    interrupted_by_stop_signals,
    on_stop_signals,
    stop_signals_held_back,
)
from heliostat.cli.start import AlreadyRunning, StartOptions
from heliostat.config.record import ClusterRecord, HeadJob, write_record
from heliostat.journal import SqliteJournal
from heliostat.ports.journal import Event
from tests.unit.api.fakes import NOW_S, FakeOperations
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.login_site import Site, at_look


@pytest.fixture
def file(state: Path) -> Path:
    path = state / "cluster.yaml"
    path.write_text("cluster_name: demo\n")
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "ROUND_S", 0.01)


def test_a_running_cluster_points_to_apply(
    invoke: Invoke, cluster: ClusterRecord, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> ClusterRecord:
        raise AlreadyRunning(cluster)

    monkeypatch.setattr(start, "start_cluster", refuse)
    result = invoke("up", str(file), "--detach")
    assert result.exit_code == 1
    assert "demo runs already at 127.0.0.1:6379" in result.stderr
    assert f"heliostat apply {file}" in result.stderr


def test_one_that_ends_with_another_up_says_so(
    invoke: Invoke, cluster: ClusterRecord, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(cluster, job=HeadJob("7", "/home/ada/head.log"))
    attached_file(places_of(job)).write_text("login2 17")

    def refuse(*_: object, **__: object) -> ClusterRecord:
        raise AlreadyRunning(job)

    monkeypatch.setattr(start, "start_cluster", refuse)
    said = invoke("up", str(file)).stderr
    assert said.endswith("takes it down; it belongs to the `heliostat up` on login2, and ends with it\n")


def test_a_successor_is_told_as_data(invoke: Invoke, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    at_look(site, 1, site.head_begins)
    site.up()
    monkeypatch.setattr(preparing, "load_spec", lambda *_: site.spec)
    result = invoke("up", str(site.path), "--successor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"cluster_name": "demo", "phase": "queued", "job_id": "101"}
    assert "the next head is Slurm job 101" in result.stderr


def test_options_reach_the_start_and_the_way_to_connect_is_said(
    invoke: Invoke, cluster: ClusterRecord, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StartOptions] = []

    def begin(path: Path, *, options: StartOptions, say: object) -> ClusterRecord:
        asked.append(options)
        return cluster

    monkeypatch.setattr(start, "start_cluster", begin)
    arguments = ("up", str(file), "-d", "--workers", "2", "--idle-after", "30m", "--port", "7000")
    result = invoke(*arguments)
    assert result.exit_code == 0
    wanted = StartOptions(workers=2, idle_after_s=1800.0, port=7000, detach=True, queued_is_enough=True)
    assert asked == [wanted]
    assert "demo is up: 127.0.0.1:6379" in result.stdout
    assert 'eval "$(heliostat env demo)"' in result.stdout
    assert "http://127.0.0.1:8265" in result.stdout


def test_what_is_laid_over_the_file_reaches_the_start(
    invoke: Invoke, cluster: ClusterRecord, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StartOptions] = []

    def begin(path: Path, *, options: StartOptions, say: object) -> ClusterRecord:
        asked.append(options)
        return cluster

    monkeypatch.setattr(start, "start_cluster", begin)
    arguments = ("up", str(file), "-d", "--name", "other", "--max-workers", "0", "--wait", "45s")
    assert invoke(*arguments).exit_code == 0
    assert asked[0].overrides == {"cluster_name": "other", "max_workers": 0}
    assert asked[0].queue_wait_s == 45.0


def test_a_bounded_wait_is_for_detached_ones(invoke: Invoke, file: Path) -> None:
    result = invoke("up", str(file), "--wait", "45s")
    assert result.exit_code == 2
    assert "--wait is for --detach" in result.stderr


def test_a_head_that_was_asked_for_detached_is_waited_for_and_left(
    invoke: Invoke, cluster: ClusterRecord, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = replace(cluster, job=HeadJob("7", "/home/ada/head.log"))
    monkeypatch.setattr(start, "start_cluster", lambda path, options, say: queued)
    result = invoke("up", str(file))
    assert result.exit_code == 0
    assert "take down  heliostat down demo" in result.stdout


@pytest.mark.usefixtures("quick")
def test_holding_prints_this_runs_events_until_it_is_told_to_stop(
    cluster: ClusterRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    since = replace(cluster, created_at_s=NOW_S - 12)
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    assert hold(since, stop)
    timer.join()
    printed = capsys.readouterr().out
    assert printed.count("w1 is running") == 1
    assert "launch 1 gpu: 2 tasks wait" not in printed


@pytest.mark.usefixtures("quick")
def test_holding_knows_this_run_by_its_session_where_the_clock_was_set_back(
    cluster: ClusterRecord, operations: FakeOperations, capsys: pytest.CaptureFixture[str]
) -> None:
    operations.recorded = [
        Event(NOW_S - 9, "head", "the head answers, session session_12", seq=1),
        Event(NOW_S - 8, "head", "the head answers, session session_1", seq=2),
        Event(NOW_S - 7, "launch", "1 × gpu: 1 task waits", seq=3),
    ]
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    assert hold(replace(cluster, created_at_s=NOW_S, session_name="session_1"), stop)
    timer.join()
    printed = capsys.readouterr().out
    assert "session_12" not in printed
    assert printed.count("session session_1") == printed.count("1 task waits") == 1


@pytest.mark.usefixtures("quick")
def test_holding_ends_with_the_cluster(cluster: ClusterRecord, state: Path) -> None:
    gone = replace(cluster, runtime_dir=str(state))
    write_record(state / "demo" / "cluster.json", replace(gone, cluster_uid="another"))
    assert not hold(gone, threading.Event())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("at_s", "told"),
    [
        (NOW_S, "demo is down: nobody has used the cluster for 30 s (--idle-after)"),
        (NOW_S - 1, "demo is down"),
        (None, "demo is down"),
    ],
)
def test_a_cluster_that_went_by_itself_says_why_unless_it_was_a_former_run(
    cluster: ClusterRecord, capsys: pytest.CaptureFixture[str], at_s: float | None, told: str
) -> None:
    if at_s is not None:
        places = places_of(cluster)
        journal = SqliteJournal(places.journal, cluster_uid=cluster.cluster_uid)
        journal.record_events([Event(at_s, "down", "nobody has used the cluster for 30 s (--idle-after)")])
        journal.close()
    gone = replace(cluster, runtime_dir=str(places_of(cluster).folder))
    write_record(places_of(cluster).record, replace(gone, cluster_uid="another"))
    up._stay(gone, as_json=True)
    assert capsys.readouterr().err.splitlines()[-1] == told


@pytest.mark.usefixtures("quick")
def test_a_second_signal_is_answered_and_does_not_cut_the_way_down(
    cluster: ClusterRecord,
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stopped: list[str] = []

    def take_down(record: ClusterRecord, *, say: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stopped.append(record.cluster_name)

    monkeypatch.setattr(start, "stop_cluster", take_down)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    up._stay(cluster, as_json=True)
    timer.join()
    assert stopped == ["demo"]
    assert foreground.GOING_DOWN in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_signals_interrupt_a_start(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupted_by_stop_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_stop_signal_waits_for_the_end_of_an_import() -> None:
    seen: list[int | str] = []
    with on_stop_signals(seen.append):
        with stop_signals_held_back():
            signal.raise_signal(signal.SIGINT)
            seen.append("imported")
        seen.append("after")
    assert seen == ["imported", signal.SIGINT, "after"]


def test_signals_are_counted_and_handlers_come_back() -> None:
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with on_stop_signals(seen.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("command", [("up",), ("up", "--detach"), ("run",)])
def test_stopped_while_it_starts(
    invoke: Invoke, file: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def begin(*_: object, **__: object) -> ClusterRecord:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(start, "start_cluster", begin)
    result = invoke(*command, str(file), *(("--", "true") if command == ("run",) else ()))
    assert result.exit_code == 130
    assert "stopped while it was starting" in result.stderr
