"""Commands against a fake controller: a state folder, a record of ourselves, and a socket."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heliostat.cli.main import cli
from heliostat.cli.system import process_start_ticks
from heliostat.config.record import ClusterRecord, ProcessMark, write_record
from tests.unit.api.fakes import NOW_S, FakeOperations, controller

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
