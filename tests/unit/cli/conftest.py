"""Commands against a fake controller: a state folder, a record of ourselves, and a socket."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heliostat.cli import attachment, queued_end, queued_head, queued_start, queued_wait
from heliostat.cli.head_queue import HeadQueue
from heliostat.cli.main import cli
from heliostat.cli.system import process_start_ticks
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, ProcessMark, write_record
from heliostat.providers.slurm.options import SlurmOptions
from tests.unit.api.fakes import NOW_S, FakeOperations, controller
from tests.unit.cli.fake_slurm import FakeSlurm
from tests.unit.cli.login_site import Site

LOOKS_AT_MOST = 40
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeOperations, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    operations = FakeOperations()
    with controller(operations, folder / "control.sock"):
        yield operations, folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def operations(served: tuple[FakeOperations, Path]) -> FakeOperations:
    served[0].reset()
    return served[0]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state root, and an environment without anyone's wishes."""
    for name in ("NO_COLOR", "HELIOSTAT_DEBUG", "HELIOSTAT_CLUSTER", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HELIOSTAT_SITE_FILE", "")
    return tmp_path


def record_cluster(state: Path, name: str, runtime_dir: Path) -> ClusterRecord:
    """Write the record of a cluster whose wrapper is this process, so it counts as running."""
    record = ClusterRecord(
        cluster_name=name,
        cluster_uid="u123",
        owner="ada@here",
        created_at_s=NOW_S,
        source=str(state / "cluster.yaml"),
        host=socket.gethostname(),
        runtime_dir=str(runtime_dir),
        token_path="/home/ada/.ray/auth_token",
        ray_version="2.60.0",
        python_version="3.11",
        phase="running",
        address="127.0.0.1:6379",
        dashboard_url="http://127.0.0.1:8265",
        wrapper=ProcessMark(os.getpid(), process_start_ticks(os.getpid()) or 0),
    )
    (state / name).mkdir()
    write_record(state / name / "cluster.json", record)
    return record


@pytest.fixture
def cluster(state: Path, served: tuple[FakeOperations, Path], operations: FakeOperations) -> ClusterRecord:
    return record_cluster(state, "demo", served[1])


@pytest.fixture
def invoke(state: Path) -> Invoke:
    runner = CliRunner()

    def run(*arguments: str) -> Result:
        return runner.invoke(cli, list(arguments), prog_name="heliostat")

    return run


@pytest.fixture
def site(
    state: Path,
    served: tuple[FakeOperations, Path],
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Site:
    slurm = FakeSlurm()
    queue = HeadQueue(slurm, SlurmOptions())
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster_name: demo\n")
    made = Site(path, StatePlaces(state / "demo"), slurm, served[1], operations)
    looks: list[float] = []

    def no_sleep(seconds: float) -> None:
        looks.append(seconds)
        assert len(looks) < LOOKS_AT_MOST, "it waits for ever"

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    for module in (queued_start, queued_end, queued_head):
        monkeypatch.setattr(module, "queue_of", lambda spec: queue)
    for module in (queued_end, queued_head):
        monkeypatch.setattr(module, "applied_spec", lambda record, places: made.spec)
    monkeypatch.setattr(queued_end.time, "sleep", no_sleep)
    monkeypatch.setattr(queued_wait, "LOOK_S", (0.0,))
    clock = replace(queued_wait.STANDARD, sleep=no_sleep)
    defaults = {**(queued_wait.wait_until_running.__kwdefaults__ or {}), "clock": clock}
    monkeypatch.setattr(queued_wait.wait_until_running, "__kwdefaults__", defaults)
    monkeypatch.setattr(attachment, "_keep_touching", lambda path: None)
    return made
