"""A script in plain Ray, without a word of Heliostat, runs as it is and sees the workers that are added."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cli.driver import driver_environment
from tests.integration.cluster.conftest import Cluster, terminal, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

SCRIPT = Path(__file__).with_name("plain_ray_script.py")
NAME = f"plain-{os.getpid()}"
STEPS = 100_000
"""More than it will make: it is ended with Ctrl-C, as by a person."""

CLUSTER = f"""
cluster_name: {NAME}
max_workers: 3
idle_timeout_minutes: 5
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends: {{local: {{gpus: 3, cpus: 6}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  gpu: {{resources: {{CPU: 1, GPU: 1}}, min_workers: 0, node_config: {{backend: local}}}}
head_node_type: head
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("plain")
    with terminal(folder, CLUSTER, name=NAME, options=("--workers", "1")) as up:
        yield up.cluster()


def test_it_sees_the_workers_that_are_added(found: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "script.log"
    with log.open("wb") as output:
        script = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--steps", str(STEPS)],
            env=driver_environment(found.record),
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: _said(log, script, r"step \d+: 1 workers"), "step on one worker", 90)
        added = found.command("add", "gpu", "-n", "2", "--cluster", NAME)
        assert added.returncode == 0, added.stderr
        until(lambda: _said(log, script, r"step \d+: 3 workers"), "step on three workers", 60)
    finally:
        # Not with SIGINT: what a shell started in the background may have inherited to ignore that.
        script.terminate()
        script.wait(30)
    text = log.read_text()
    workers = re.findall(r"new worker on node (\w+), GPU (\d)", text)
    assert len({node for node, _ in workers}) == 3, "each on a node of its own"
    assert sorted(gpu for _, gpu in workers) == ["0", "1", "2"], "each with a GPU of its own"
    steps = [int(one) for one in re.findall(r"^step (\d+):", text, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1)), "no step was lost while workers came"


def _said(log: Path, script: subprocess.Popen[bytes], pattern: str) -> bool | None:
    text = log.read_text(errors="replace")
    assert script.poll() is None, text
    return True if re.search(pattern, text) else None
