"""What makes a head's wrapper go down: an `up` elsewhere that fell silent, and the end of its job."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from heliostat.cli import wrapper
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.why_file import LEASE_ENDS, TOLD, read_why
from heliostat.cli.wrapper import Wrapper
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record, write_record


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
    made(tmp_path, attached_file=str(attached))._clean()
    assert (read_record(places.record) is not None) is stays
    assert not attached.exists()
