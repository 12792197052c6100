"""`heliostat up --gateway`: a gateway in the background that lives and goes with its cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.start import stop_cluster
from tests.hypha_server import HyphaServer
from tests.integration.cluster.conftest import CLUSTER, Cluster, came_up, until
from tests.integration.gateway.conftest import OWNER

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NAME = f"gateway-up-{os.getpid()}"
SECTION = """\
  gateway:
    server_url: {url}
    token_file: {token}
    allow:
      - {{people: [owner@example.org], rights: [admin]}}
"""


def heliostat(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "heliostat.cli.main", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def connected() -> dict[str, Any] | None:
    done = heliostat("gateway", "status", NAME, "--json")
    facts = json.loads(done.stdout) if done.returncode == 0 else None
    return facts if facts and facts["connection"]["connected"] else None


def test_it_comes_with_the_cluster_bears_a_kill_and_goes_with_it(hypha: HyphaServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(hypha.token(OWNER))
    text = CLUSTER.format(name=NAME, workers=1, idle_timeout_s=60, orphan_timeout_s=60)
    section = SECTION.format(url=hypha.url, token=token)
    file = tmp_path / "cluster.yaml"
    file.write_text(text.replace("provider:\n", f"provider:\n{section}"))
    done = heliostat("up", str(file), "--detach", "--gateway")
    record = came_up(NAME)
    assert record is not None, done.stderr
    found = Cluster(record, file)
    try:
        first = until(connected, "gateway that is connected", 60)
        os.kill(first["pid"], signal.SIGKILL)
        again = until(lambda: other_than(first["pid"]), "gateway that was started again", 60)
    finally:
        stop_cluster(found.record, say=print)
    until(lambda: None if Path(f"/proc/{again['pid']}").exists() else True, "end of the gateway", 60)
    assert "no gateway" in heliostat("gateway", "status", NAME).stderr


def other_than(pid: int) -> dict[str, Any] | None:
    facts = connected()
    return facts if facts and facts["pid"] != pid else None


def test_without_its_section_nothing_is_started(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(name=f"{NAME}-none", workers=1, idle_timeout_s=60, orphan_timeout_s=60))
    done = heliostat("up", str(file), "--detach", "--gateway")
    assert done.returncode != 0
    assert "provider.gateway" in done.stderr
    assert came_up(f"{NAME}-none") is None
