from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import start
from heliostat.cli.attachment import attached_file
from heliostat.cli.clusters import places_of
from heliostat.cli.start import AlreadyRunning, StartOptions
from heliostat.config.record import ClusterRecord, HeadJob
from tests.unit.cli.conftest import Invoke

SHOW = ["sh", "-c", 'printf "%s" "$RAY_ADDRESS $RAY_AUTH_MODE" > "$0"; exit 7']


@pytest.fixture
def file(state: Path) -> Path:
    path = state / "cluster.yaml"
    path.write_text("cluster_name: demo\n")
    return path


@pytest.fixture
def steps(cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was started and stopped, in order."""
    taken: list[object] = []

    def begin(path: Path, *, options: StartOptions, say: object) -> ClusterRecord:
        taken.append(options)
        return cluster

    def end(record: ClusterRecord, *, say: object) -> None:
        taken.append("stop")

    monkeypatch.setattr(start, "start_cluster", begin)
    monkeypatch.setattr(start, "stop_cluster", end)
    return taken


def test_it_is_brought_up_and_down_and_the_exit_code_is_kept(
    invoke: Invoke, file: Path, steps: list[object], tmp_path: Path
) -> None:
    result = invoke("run", str(file), "--", *SHOW, str(tmp_path / "seen"))
    assert result.exit_code == 7
    assert (tmp_path / "seen").read_text() == "127.0.0.1:6379 token"
    assert steps == [StartOptions(detach=False), "stop"]


def test_kept_it_stays(invoke: Invoke, file: Path, steps: list[object]) -> None:
    assert invoke("run", "--keep", str(file), "--", "true").exit_code == 0
    assert steps == [StartOptions(detach=True)]


def test_a_detached_one_that_was_only_waited_for_stays(
    invoke: Invoke, file: Path, steps: list[object], cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = replace(cluster, job=HeadJob("7", "/home/ada/head.log"))
    monkeypatch.setattr(start, "start_cluster", lambda path, options, say: queued)
    assert invoke("run", str(file), "--", "true").exit_code == 0
    assert steps == []
    attached_file(places_of(queued)).touch()
    assert invoke("run", str(file), "--", "true").exit_code == 0
    assert steps == ["stop"]


def test_a_cluster_that_ran_already_stays(
    invoke: Invoke,
    file: Path,
    steps: list[object],
    cluster: ClusterRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> ClusterRecord:
        raise AlreadyRunning(cluster)

    monkeypatch.setattr(start, "start_cluster", refuse)
    assert invoke("run", str(file), "--", "sh", "-c", "exit 3").exit_code == 3
    assert steps == []


def test_a_command_that_is_not_there_takes_the_cluster_down_too(
    invoke: Invoke, file: Path, steps: list[object]
) -> None:
    result = invoke("run", str(file), "--", "/no/such/command")
    assert result.exit_code == 127
    assert "/no/such/command can't be run" in result.stderr
    assert steps[-1] == "stop"


def test_the_commands_own_options_are_its_own(invoke: Invoke, file: Path, steps: list[object]) -> None:
    assert invoke("run", str(file), "sh", "-c", "exit 4").exit_code == 4


@pytest.mark.usefixtures("steps")
def test_down_says_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def end(record: ClusterRecord, *, say: object, timeout_s: float) -> None:
        asked.append(timeout_s)

    monkeypatch.setattr(start, "stop_cluster", end)
    assert invoke("down", "--timeout", "1m").stdout == "demo is down\n"
    assert json.loads(invoke("down", "demo", "--json").stdout) == {"cluster_name": "demo", "down": True}
    assert asked == [60.0, 180.0]


@pytest.mark.usefixtures("steps")
def test_down_that_is_cut_short_says_how_to_go_on(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "stop_cluster", interrupted)
    result = invoke("down", "demo")
    assert result.exit_code == 130
    assert "`heliostat down demo` sees to it that nothing of it is left" in result.stderr
