"""What holds for every test: private folders, bounded examples, and no process left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import examples
from tools import processes

RUN_TAG = "HELIOSTAT_TEST_RUN"
# Ray's daemons notice within seconds that their head is gone; what is there after that was forgotten.
LEFTOVERS_S = 20.0
LEFT = "left_behind"
TRACKER = "from multiprocessing.resource_tracker import main"

examples.load(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_left: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def private_folder() -> Iterator[Path]:
    """A short folder of this run; state, sockets and the token are in it, never in the home folder.

    Short because a socket's path may have 107 bytes only. Tests that make clusters use it, or
    folders in it, by the environment that is set here.
    """
    folder = Path(tempfile.mkdtemp(prefix="hel-", dir="/tmp"))
    (folder / "run").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELIOSTAT_STATE_DIR", str(folder / "state"))
        patch.setenv("HELIOSTAT_RUNTIME_DIR", str(folder / "run"))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "auth_token"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "HELIOSTAT_CLUSTER_UID"):
            patch.delenv(name, raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    # A fresh tag for each run, inherited by whatever it starts: that is how leftovers are found.
    os.environ[RUN_TAG] = f"{os.getpid()}-{os.urandom(4).hex()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        many = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if many and item.get_closest_marker("timeout") is None:
            item.add_marker(examples.timeout())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a process that it started is still there; end it, by its pid."""
    if not session.config.getoption("numprocesses", None):
        tag = f"{RUN_TAG}={os.environ[RUN_TAG]}".encode()
        # Python's own tracker of shared memory is this process's child, and ends with it.
        trackers = {one.key for one in processes.find(lambda _: True) if TRACKER in one.command}
        found = processes.wait_until_gone(
            lambda environ: tag in environ.split(b"\0"), known=trackers, timeout_s=LEFTOVERS_S
        )
        processes.end(found)
        _left[:] = [str(one) for one in found]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[LEFT] = _left
    elif _left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear of what one of the processes that share a run has left behind: each looks for its own."""
    _left.extend(getattr(node, "workeroutput", {}).get(LEFT, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left:
        terminalreporter.section("processes left behind", red=True)
        for process in _left:
            terminalreporter.line(process)
