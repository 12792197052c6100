"""What makes a head's wrapper go down: an `up` elsewhere that fell silent, the end of its job; and what
does not: the death of a head that keeps its state.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from heliostat.cli import wrapper
from heliostat.cli.children import ChildSpec, end_tagged, start_child
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import process_start_ticks
from heliostat.cli.why_file import LEASE_ENDS, TOLD, read_why
from heliostat.cli.wrapper import Wrapper
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.model.gcs_storage import GcsStorage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "TOUCH_CHECK_S", 0.01)
    monkeypatch.setattr(wrapper, "TOUCH_SILENCE_S", 0.2)


def made(folder: Path, *, attached_file: str = "", uid: str = "u1") -> Wrapper:
    launch = LaunchFile([], {}, str(folder / "temp"), "", uid, str(folder / "run"), str(folder))
    return Wrapper(folder, LaunchFile(**{**vars(launch), "attached_file": attached_file}))


async def test_a_silent_up_ends_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "attached"
    path.touch()
    one = made(tmp_path, attached_file=str(path))
    await asyncio.wait_for(one._watch_touched(), 5)
    assert one._stop.is_set()


async def test_one_that_is_heard_does_not(tmp_path: Path) -> None:
    path = tmp_path / "attached"
    path.touch()
    one = made(tmp_path, attached_file=str(path))
    watch = asyncio.create_task(one._watch_touched())
    for count in range(40):
        os.utime(path, (count, count))
        await asyncio.sleep(0.02)
    assert not one._stop.is_set()
    watch.cancel()


async def test_a_cluster_whose_file_was_taken_away_goes_on_alone(tmp_path: Path) -> None:
    path = tmp_path / "attached"
    path.touch()
    one = made(tmp_path, attached_file=str(path))
    watch = asyncio.create_task(one._watch_touched())
    await asyncio.sleep(0)
    path.unlink()
    await asyncio.wait_for(watch, 5)
    assert not one._stop.is_set()


async def test_a_detached_cluster_waits_for_nobody(tmp_path: Path) -> None:
    one = made(tmp_path)
    await asyncio.wait_for(one._watch_touched(), 5)
    assert not one._stop.is_set()


async def test_the_end_of_its_job_is_the_end_of_the_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = made(tmp_path)
    (tmp_path / "run").mkdir()
    one._go_down(LEASE_ENDS)
    one._go_down(TOLD)
    assert one._stop.is_set()
    assert "wrapper: the head's Slurm job ends" in capsys.readouterr().out
    assert read_why(str(tmp_path / "run")) == LEASE_ENDS, "the first reason counts"


def test_without_a_word_it_was_told_to(tmp_path: Path) -> None:
    assert read_why(str(tmp_path)) == TOLD


@pytest.mark.parametrize(("uid", "stays"), [("u1", False), ("its successor", True)])
def test_only_its_own_record_goes(tmp_path: Path, uid: str, stays: bool) -> None:
    record = ClusterRecord("demo", uid, "a@b", 1.0, "f", "h", "/r", "/t", "2", "3")
    places = StatePlaces(tmp_path)
    write_record(places.record, record)
    attached = tmp_path / "attached"
    attached.touch()
    places.ray_file.touch()
    made(tmp_path, attached_file=str(attached))._clean()
    assert (read_record(places.record) is not None) is stays
    assert not attached.exists()
    assert not places.ray_file.exists()


# -- a head that dies


KEPT = GcsStorage("127.0.0.1", 1, password_env="VALKEY_PASSWORD")
DIES_ONCE = """
echo "$$" >> "$1"
if [ "$(wc -l < "$1")" = 1 ]; then sleep 300 & echo "$!" >> "$1.left"; exit 3; fi
exec sleep 300
"""


@dataclass
class WithHead:
    """A wrapper whose head is a script that dies at its first start, and leaves a process behind."""

    wrapper: Wrapper
    places: StatePlaces
    uid: str

    @property
    def starts(self) -> list[int]:
        path = self.places.folder / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def left(self) -> int:
        return int((self.places.folder / "starts.left").read_text())


@pytest.fixture
async def with_head(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WithHead]:
    monkeypatch.setattr(wrapper, "RESTART_S", (0.01,))
    places, uid = StatePlaces(tmp_path), f"u{os.getpid()}{tmp_path.name}"
    record = ClusterRecord("demo", uid, "a@b", 1.0, "f", "h", "/r", "/t", "2", "3")
    write_record(places.record, replace(record, **request.param))
    argv = ["/bin/sh", "-c", DIES_ONCE, "head", str(tmp_path / "starts")]
    launch = LaunchFile(argv, {}, str(tmp_path / "temp"), "", uid, str(tmp_path / "run"), str(tmp_path))
    one = Wrapper(tmp_path, launch)
    one._head = await start_child(one._head_spec())
    yield WithHead(one, places, uid)
    await one._head.end(grace_s=5)
    await end_tagged(wrapper.HEAD_TAG, uid, grace_s=5)


@pytest.mark.parametrize("with_head", [{"gcs_storage": KEPT, "session_name": "session_1"}], indirect=True)
async def test_a_head_that_keeps_its_state_is_started_again_once_the_old_one_is_gone(
    with_head: WithHead, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping = asyncio.create_task(with_head.wrapper._keep_head())
    while len(with_head.starts) < 2:
        assert not keeping.done()
        await asyncio.sleep(0.01)
    assert process_start_ticks(with_head.left()) is None, "it would have held the ports"
    said = capsys.readouterr().out
    while (record := read_record(with_head.places.record)) is None or record.head is None:
        await asyncio.sleep(0.01)
    keeping.cancel()
    assert record.head.pid == with_head.starts[1]
    assert "Ray's head ended (exit code 3)" in said
    assert "starting the head again, with its state in redis://127.0.0.1:1" in said
    assert not with_head.wrapper._stop.is_set()


@pytest.mark.parametrize("with_head", [{"session_name": "session_1"}], indirect=True)
async def test_one_that_has_lost_its_state_is_not(with_head: WithHead) -> None:
    await asyncio.wait_for(with_head.wrapper._keep_head(), 10)
    assert len(with_head.starts) == 1
    # The controller waits for it, and then lets the workers go.
    assert not with_head.wrapper._stop.is_set()


@pytest.mark.parametrize("with_head", [{"gcs_storage": KEPT}], indirect=True)
async def test_one_that_never_answered_is_the_end_of_the_cluster(with_head: WithHead) -> None:
    await asyncio.wait_for(with_head.wrapper._keep_head(), 10)
    assert len(with_head.starts) == 1
    assert with_head.wrapper._stop.is_set()


@pytest.mark.parametrize("with_head", [{"gcs_storage": KEPT, "session_name": "session_1"}], indirect=True)
async def test_one_that_is_told_to_go_down_meanwhile_stays_down(
    with_head: WithHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper, "RESTART_S", (60.0,))
    keeping = asyncio.create_task(with_head.wrapper._keep_head())
    with_head.wrapper._stop.set()
    await asyncio.wait_for(keeping, 10)
    assert len(with_head.starts) == 1


@pytest.mark.parametrize("with_head", [{"gcs_storage": KEPT}], indirect=True)
async def test_the_controller_does_not_have_the_password(
    with_head: WithHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALKEY_PASSWORD", "secret")
    assert "VALKEY_PASSWORD" in with_head.wrapper._head_spec().environment
    assert "VALKEY_PASSWORD" not in with_head.wrapper._controller_spec().environment


def test_a_state_that_can_not_be_deleted_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = StatePlaces(tmp_path)
    record = ClusterRecord("demo", "u1", "a@b", 1.0, "f", "h", "/r", "/t", "2", "3", gcs_storage=KEPT)
    write_record(places.record, record)
    made(tmp_path)._clean()
    left = read_record(places.record)
    assert left is not None
    assert left.phase == "down"
    said = capsys.readouterr().out
    assert "keys RAYheliostat-u1@* of demo may be left in redis://127.0.0.1:1: " in said
    assert "`heliostat down demo` again deletes them" in said


# -- Ray's own autoscaler, where that decides


@pytest.mark.parametrize("with_head", [{"autoscaler": "v2"}], indirect=True)
async def test_rays_autoscaler_is_started_again_when_it_dies(
    with_head: WithHead, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = with_head.places.folder / "autoscalers"
    argv = ["/bin/sh", "-c", 'echo "$$" >> "$0"; exec sleep 300', str(starts)]
    log = with_head.places.folder / "autoscaler.log"
    spec = ChildSpec("autoscaler", argv, {}, log, end_signal=signal.SIGKILL)
    monkeypatch.setattr(Wrapper, "_autoscaler_spec", lambda _: spec)
    one = with_head.wrapper
    keeping = asyncio.create_task(one._keep_autoscaler())
    for count in (1, 2):
        while not starts.exists() or len(starts.read_text().split()) < count:
            await asyncio.sleep(0.01)
        os.kill(int(starts.read_text().split()[-1]), signal.SIGKILL)
    while len(starts.read_text().split()) < 3 or one._autoscaler is None or not one._autoscaler.running:
        await asyncio.sleep(0.01)
    assert one._autoscaler.pid in one._own_pids(), "else it would be reaped as a stranger"
    one._stop.set()
    await one._autoscaler.end(grace_s=5)
    await asyncio.wait_for(keeping, 5)
    assert "Ray's autoscaler died (signal 9); starting it again" in capsys.readouterr().out


@pytest.mark.parametrize("with_head", [{}], indirect=True)
async def test_where_heliostat_decides_there_is_none(with_head: WithHead) -> None:
    await asyncio.wait_for(with_head.wrapper._keep_autoscaler(), 5)
    assert with_head.wrapper._autoscaler is None


@pytest.mark.parametrize("with_head", [{}], indirect=True)
async def test_it_is_rays_program_in_this_clusters_folder(with_head: WithHead) -> None:
    spec = with_head.wrapper._autoscaler_spec()
    assert spec.argv[1:] == [
        "-m",
        "heliostat.launcher.rays_autoscaler",
        str(with_head.places.folder),
        str(with_head.places.folder / "temp"),
    ]
    assert find_spec("heliostat.launcher.rays_autoscaler") is not None


# -- what comes before a head


def sets_up(tmp_path: Path, command: str, *, limit_s: float = 30.0) -> Wrapper:
    uid = f"u{os.getpid()}{tmp_path.name}"
    (tmp_path / "run").mkdir()
    launch = replace(
        LaunchFile([], {}, str(tmp_path / "temp"), "", uid, str(tmp_path / "run"), str(tmp_path)),
        head_setup={"commands": [["head_setup_commands.0", command]]},
        head_setup_s=limit_s,
    )
    launch.write(tmp_path)
    return Wrapper(tmp_path, launch)


async def test_a_head_is_set_up_with_its_own_environment_and_log(tmp_path: Path) -> None:
    one = sets_up(tmp_path, "echo $HELIOSTAT_HEAD")
    assert await asyncio.wait_for(one._set_up(), 20)
    said = (tmp_path / "head.log").read_text()
    assert said.splitlines()[-1] == one._launch.cluster_uid


@pytest.mark.parametrize("told", [False, True])
async def test_a_failure_takes_nothing_from_a_cluster_that_has_kept_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    forgotten: list[ClusterRecord] = []
    monkeypatch.setattr(wrapper, "forget_storage", forgotten.append)
    one = sets_up(tmp_path, "false")
    record = ClusterRecord("demo", one._launch.cluster_uid, "a@b", 1.0, "f", "h", "/r", "/t", "2", "3")
    write_record(StatePlaces(tmp_path).record, replace(record, gcs_storage=KEPT, session_name="session_1"))
    if told:
        one._go_down(TOLD)
    await asyncio.wait_for(one.run(), 20)
    assert len(forgotten) == told
    assert (read_record(StatePlaces(tmp_path).record) is None) is told


async def test_a_setup_that_fails_is_the_end_of_the_cluster(tmp_path: Path) -> None:
    one = sets_up(tmp_path, "echo because; false")
    await asyncio.wait_for(one.run(), 20)
    log = (tmp_path / "head.log").read_text()
    assert "ended with 19: head_setup_commands.0 failed with exit code 1: because" in log
    assert not (tmp_path / "run").exists()


LONG = "setsid sleep 600 & echo $! > ~/pid; echo begun; wait"


async def begun(tmp_path: Path) -> int:
    while not (tmp_path / "pid").exists() or "begun" not in (tmp_path / "head.log").read_text():
        await asyncio.sleep(0.01)
    return int((tmp_path / "pid").read_text())


async def test_a_setup_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one = sets_up(tmp_path, LONG, limit_s=1.5)
    assert not await asyncio.wait_for(one._set_up(), 20)
    assert process_start_ticks(await begun(tmp_path)) is None
    assert "took more than 1.5 s (start_timeout_s of its type)" in (tmp_path / "head.log").read_text()


async def test_one_that_is_told_to_go_down_ends_its_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one = sets_up(tmp_path, LONG)
    running = asyncio.create_task(one.run())
    pid = await begun(tmp_path)
    one._go_down(TOLD)
    await asyncio.wait_for(running, 10)
    assert process_start_ticks(pid) is None


async def test_who_sets_a_head_up_can_be_found_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one, places = sets_up(tmp_path, LONG), StatePlaces(tmp_path)
    record = ClusterRecord("demo", one._launch.cluster_uid, "a@b", 1.0, "f", "h", "/r", "/t", "2", "3")
    write_record(places.record, record)
    running = asyncio.create_task(one.run())
    pid = await begun(tmp_path)
    now = read_record(places.record)
    assert now is not None
    assert now.wrapper is not None
    assert now.head is None
    assert now.wrapper.start_ticks == process_start_ticks(now.wrapper.pid)
    os.kill(now.wrapper.pid, signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert process_start_ticks(pid) is None
    assert not places.record.exists()
