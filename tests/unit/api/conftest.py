from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.fakes import FakeOperations, controller


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short private folder: a socket's path has 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeOperations, Path]]:
    path = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    operations = FakeOperations()
    with controller(operations, path / "control.sock"):
        yield operations, path / "control.sock"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def operations(served: tuple[FakeOperations, Path]) -> FakeOperations:
    served[0].reset()
    return served[0]


@pytest.fixture
def socket_path(served: tuple[FakeOperations, Path], operations: FakeOperations) -> Path:
    return served[1]
