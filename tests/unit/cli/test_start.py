"""What a start that came to nothing leaves behind: nothing, whatever had started and however it behaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from heliostat.cli import start
from heliostat.cli.clusters import places_of
from heliostat.cli.foreground import on_stop_signals
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.start import UID_TAG
from heliostat.cli.system import process_start_ticks, tagged_processes
from heliostat.config.record import ClusterRecord, ProcessMark, write_record
from heliostat.model.report import StatusReport
from tests.unit.api.fakes import report
from tests.unit.cli.conftest import Invoke

DEADLINE_S = 20.0

WRAPPER = """
import os, pathlib, signal, sys, time
how, ready, person = sys.argv[1], pathlib.Path(sys.argv[2]), os.getppid()
def heard(number, frame):
    if how == "interrupts":
        # As if somebody pressed Ctrl-C again and again.
        for _ in range(10):
            if os.getppid() == person:
                os.kill(person, signal.SIGINT)
            time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "deaf" else heard)
ready.touch()
time.sleep(300)
"""


@dataclass
class Started:
    """A stand-in for a wrapper of a cluster that has just been written down."""

    record: ClusterRecord
    wrapper: subprocess.Popen[bytes]
    said: list[str] = field(default_factory=list)

    def taken_back(self) -> None:
        places = places_of(self.record)
        start._take_back(self.record, places=places, wrapper=self.wrapper, say=self.said.append)

    def leaves_nothing(self) -> None:
        assert tagged_processes(UID_TAG, self.record.cluster_uid) == []
        assert self.wrapper.poll() is not None
        places = places_of(self.record)
        told = (places.record, places.folder / "launch.json", places.ray_file)
        assert [path.name for path in told if path.exists()] == []
        assert not Path(self.record.runtime_dir).exists()
        assert places.journal.exists(), "what people may want to read later stays"


Begin = Callable[[str], Started]


@pytest.fixture
def begin(state: Path, cluster: ClusterRecord, tmp_path: Path) -> Iterator[Begin]:
    """Start a wrapper that behaves as told; whatever is left of it afterwards is ended."""
    made: list[subprocess.Popen[bytes]] = []

    def run(how: str) -> Started:
        runtime, ready = tmp_path / "runtime", tmp_path / f"ready-{len(made)}"
        (runtime / "i").mkdir(parents=True, exist_ok=True)
        uid = f"u{os.getpid()}{tmp_path.name}"
        record = replace(cluster, cluster_uid=uid, runtime_dir=str(runtime), wrapper=None)
        places = places_of(record)
        write_record(places.record, record)
        LaunchFile([], {}, "", record.address, uid, str(runtime), str(places.logs)).write(places.folder)
        places.ray_file.touch()
        places.journal.touch()
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", WRAPPER, how, str(ready)],
            env={**os.environ, UID_TAG: uid},
            start_new_session=True,
        )
        made.append(process)
        until_s = time.monotonic() + DEADLINE_S
        while not ready.exists():
            assert time.monotonic() < until_s, "the stand-in did not start"
            time.sleep(0.01)
        return Started(record, process)

    yield run
    for one in made:
        if one.poll() is None:
            one.kill()
        one.wait(DEADLINE_S)


class Client:
    """A controller that dies as soon as it goes down, `deaths` times; each time another takes its place."""

    def __init__(self, deaths: int) -> None:
        self.lives, self.downs = deaths + 1, 0

    def status(self, *, timeout_s: float) -> StatusReport:
        return report(phase="going down" if self.downs == self.lives else "running", instances=[])

    def down(self) -> None:
        self.downs += 1

    def runs(self, record: ClusterRecord) -> bool:
        return self.downs < self.lives


@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_a_controller_that_dies_on_its_way_down_is_told_again(
    deaths: int, state: Path, cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(deaths)
    monkeypatch.setattr(start, "client_of", lambda record: client)
    monkeypatch.setattr(start, "_runs", client.runs)
    start.stop_cluster(replace(cluster, host=socket.gethostname()), say=print, timeout_s=DEADLINE_S)
    assert client.downs == deaths + 1


def test_a_wrapper_that_hears_ends_and_its_files_go(begin: Begin) -> None:
    started = begin("obeys")
    started.taken_back()
    started.leaves_nothing()
    assert started.wrapper.returncode == 0
    assert started.said == ["ending what had started of demo"]


def test_a_wrapper_that_just_writes_down_who_it_is_is_told(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = begin("obeys")
    pid = started.wrapper.pid
    mark = ProcessMark(pid, process_start_ticks(pid) or 0)
    pauses: list[float] = []

    def writes(seconds: float) -> None:
        pauses.append(seconds)
        write_record(places_of(started.record).record, replace(started.record, wrapper=mark))

    monkeypatch.setattr(start, "time", SimpleNamespace(sleep=writes, monotonic=time.monotonic))
    start._tell_wrapper(started.record)
    assert started.wrapper.wait(DEADLINE_S) == 0
    assert len(pauses) == 1


def test_a_deaf_wrapper_and_what_it_left_are_killed(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "TAKE_BACK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("heliostat.cli.system.END_GRACE_S", 0.1)
    # One more of this cluster, such as a head that its wrapper has left behind.
    begin("deaf")
    started = begin("deaf")
    started.taken_back()
    started.leaves_nothing()
    assert started.said[-1] == "2 processes of demo had to be killed"


def test_more_ctrl_cs_do_not_cut_it_short(begin: Begin, capfd: pytest.CaptureFixture[str]) -> None:
    # One interrupts the wait for the wrapper, the other the end of what the wrapper left.
    begin("interrupts")
    started = begin("interrupts")
    outside: list[int] = []
    with on_stop_signals(outside.append):
        started.taken_back()
    assert outside == [], "what gets there would have been a KeyboardInterrupt"
    started.leaves_nothing()
    assert "still going down" in capfd.readouterr().err


def test_a_journal_that_is_no_good_is_refused_before_anything_starts(
    invoke: Invoke, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    monkeypatch.setenv("HELIOSTAT_RUNTIME_DIR", str(runtime))
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "cluster_name: demo\nmax_workers: 1\nprovider: {backends: {local: {cpus: 1}}}\n"
        "available_node_types:\n"
        "  head: {resources: {CPU: 0}, node_config: {backend: local}}\n"
        "  cpu: {resources: {CPU: 1}, max_workers: 1, node_config: {backend: local}}\n"
        "head_node_type: head\n"
    )
    journal = state / "demo" / "journal.db"
    journal.parent.mkdir(mode=0o700)
    journal.write_bytes(b"not a database" * 500)
    result = invoke("up", str(path), "--detach")
    assert result.exit_code == 1
    assert "heliostat: the journal" in result.stderr
    assert "move it away and start again" in result.stderr
    assert not runtime.exists()
    assert journal.read_bytes() == b"not a database" * 500
    assert not (journal.parent / "cluster.json").exists()
