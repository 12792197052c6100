"""Ray's own launcher, run as a person would: its commands as processes, a home folder of their own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record
from tests import slurm_site
from tests.integration.slurm.conftest import give_up_over
from tests.slurm_site import SlurmSite

COMMAND_TIMEOUT_S = 150

# What Ray wants written, though it is all empty.
LISTS = """
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
"""

WORK = """
import ray, sys, time
ray.init(logging_level="ERROR")
@ray.remote(num_cpus=1)
def square(number):
    time.sleep(0.5)
    return number * number
print("squares", ray.get([square.remote(one) for one in range(4)]), *sys.argv[1:])
"""


@dataclass
class Launcher:
    """A person with a cluster file in a folder."""

    folder: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "cluster.yaml"

    @property
    def places(self) -> StatePlaces:
        return StatePlaces(Path(os.environ["HELIOSTAT_STATE_DIR"]) / self.name)

    @property
    def record(self) -> ClusterRecord | None:
        return read_record(self.places.record)

    def ray(self, *words: str, code: int = 0, **variables: str) -> str:
        """Run one of Ray's commands on the file; it must end with that code. Returns all that it printed."""
        command, *more = words
        return self._run(self.program, command, str(self.file), *more, code=code, **variables)

    def heliostat(self, *words: str, code: int = 0) -> str:
        return self._run(sys.executable, "-m", "heliostat.cli.main", *words, code=code)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.heliostat("status", "--json", self.name))
        return found

    def workers(self) -> list[str]:
        return [one["node_type"] for one in self.status()["instances"]]

    def first_line_of(self, command: str, *words: str) -> str:
        """Return the first line of Heliostat's that a command shows which runs on and on; end it then."""
        argv = [self.program, command, str(self.file), *words]
        shown = subprocess.Popen(
            argv,
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        end = threading.Timer(COMMAND_TIMEOUT_S, shown.kill)
        end.start()
        try:
            assert shown.stdout is not None
            return next((line for line in shown.stdout if " heliostat -- " in line), "")
        finally:
            end.cancel()
            shown.terminate()
            shown.communicate(timeout=30)

    def typed(self, command: str, text: str) -> tuple[int, str]:
        """Run one of Ray's commands on a terminal and type `text`; return its code and all that was shown."""
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.folder)
            os.execve(self.program, [self.program, command, str(self.file)], self._environment())
        os.write(terminal, text.encode())
        shown, until_s = b"", time.monotonic() + COMMAND_TIMEOUT_S
        try:
            while time.monotonic() < until_s:
                ready, _, _ = select.select([terminal], [], [], 1.0)
                # At its end a terminal answers with an error.
                shown += os.read(terminal, 65536) if ready else b""
        except OSError:
            pass
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode(errors="replace")

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start one of Ray's commands on the file; whoever calls waits for its end."""
        command, *more = words
        return subprocess.Popen(
            [self.program, command, str(self.file), *more],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def program(self) -> str:
        return str(Path(sys.executable).parent / "ray")

    def _environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, **self.environment, "HOME": str(self.home), **variables}

    def _run(self, *argv: str, code: int, **variables: str) -> str:
        done = subprocess.run(
            argv,
            env=self._environment(**variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def nothing_is_left(self, record: ClusterRecord) -> None:
        assert self.record is None
        assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []
        # No script, no bootstrap config; Python may have kept its caches.
        assert [one.name for one in self.home.iterdir() if not one.name.startswith(".")] == []


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path, "up")
    made.home.mkdir()
    yield made
    if made.record is not None:
        made.heliostat("down", made.name)


@pytest.fixture(scope="session")
def shared_site(private_folder: Path) -> Iterator[SlurmSite]:
    give_up_over(slurm_site.obstacle())
    folder = private_folder / "ray-up"
    folder.mkdir()
    private_folder.chmod(0o711)
    folder.chmod(0o711)
    with slurm_site.start(folder / "site") as site:
        yield site


@pytest.fixture
def slurm(shared_site: SlurmSite, launcher: Launcher) -> Iterator[SlurmSite]:
    """A site of four idle nodes, which `launcher` uses; no job is left of a test that failed."""
    shared_site.wait_for(shared_site.all_idle, "all nodes are idle")
    launcher.environment = shared_site.environment
    yield shared_site
    if launcher.record is not None:
        launcher.heliostat("down", launcher.name)
    shared_site.cancel_all()
