"""`heliostat train-demo` as a person types it: what it prints, the picture, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.record import read_record
from tests.integration.cluster.conftest import places_of, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NAME = "train-demo"
COMMAND = [sys.executable, "-m", "heliostat.cli.main", NAME]
KEYS = [
    "steps",
    "lost_steps",
    "sizes",
    "throughput",
    "sync_ms",
    "join_to_first_step_s",
    "final_accuracy",
    "fixed_accuracy",
]


@pytest.fixture(autouse=True)
def extra() -> None:
    for module in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason="the extra `train` brings it")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Processes are looked for at the end of every run of the tests."""
    yield
    assert not places_of(NAME).folder.exists()


@pytest.mark.nightly
@pytest.mark.usefixtures("nothing_left")
def test_it_grows_shrinks_and_tells_the_figures(tmp_path: Path) -> None:
    picture = tmp_path / "training.png"
    words = ("--auto", "--json", "--steps", "80", "--picture", str(picture))
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == KEYS
    assert found["sizes"] == [1, 2, 3, 2]
    assert found["steps"] >= 80
    assert found["lost_steps"] == 0
    assert list(found["throughput"]) == ["1", "3"]
    assert found["throughput"]["3"] > 1.5 * found["throughput"]["1"]
    assert 0 < found["sync_ms"] < 100
    assert 0 < found["join_to_first_step_s"] < 60
    assert abs(found["final_accuracy"] - found["fixed_accuracy"]) < 0.02
    assert found["final_accuracy"] > 0.8
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "heliostat remove" in done.stderr
    assert "drained" in done.stderr


@pytest.mark.nightly
@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_takes_everything_down(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [*COMMAND, "--picture", str(tmp_path / "p.png")], stdout=output, stderr=output
        )
    try:
        until(lambda: _trains(log, demo), "first step", 120)
        uid = getattr(read_record(places_of(NAME).record), "cluster_uid", "")
        assert tagged_processes("HELIOSTAT_CLUSTER_UID", uid)
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(90) == 128 + signal.SIGINT, log.read_text()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(90)
    assert "nothing of it is left" in log.read_text()
    assert not (tmp_path / "p.png").exists()


def _trains(log: Path, demo: subprocess.Popen[bytes]) -> bool | None:
    text = log.read_text(errors="replace")
    assert demo.poll() is None, text
    return True if "step   5:" in text else None
