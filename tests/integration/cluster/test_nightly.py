"""What is too long for every change: many demos in a row, and a controller that is killed again and again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.api.client import NoAnswer, NotRunning
from tests.integration.cluster.conftest import CLUSTER, cluster, finished, until

pytestmark = [pytest.mark.integration, pytest.mark.nightly]

DEMOS = 20
KILLS = 12

LAST_LINE = re.compile(
    r"demo: workers 0 -> \d+ -> 0, (\d+) tasks done, 0 lost, first worker [\d.]+ s after demand, "
    r"all down [\d.]+ s after the last task"
)

CHURN = """
@ray.remote(num_cpus=1)
def work(n):
    time.sleep(0.3 + n % 5 * 0.3)
    return n
for wave in range(6):
    assert sum(ray.get([work.remote(n) for n in range(10)])) == 45
    time.sleep(5)
print("all waves done")
"""


@pytest.mark.timeout(DEMOS * 100)
def test_twenty_demos_in_a_row_leave_nothing_and_lose_nothing() -> None:
    for number in range(DEMOS):
        argv = [sys.executable, "-m", "heliostat.cli.main", "demo"]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
        assert ran.returncode == 0, f"demo {number}: {ran.stdout}{ran.stderr}"
        assert LAST_LINE.fullmatch(ran.stdout.splitlines()[-1]), ran.stdout


@pytest.mark.timeout(600)
def test_a_controller_killed_again_and_again_loses_no_task(tmp_path: Path) -> None:
    """Kills come at whatever the loop is at: scaling up, working, draining, releasing."""
    text = CLUSTER.format(name="killed", workers=2, idle_timeout_s=2, orphan_timeout_s=120)
    with cluster(tmp_path, text) as found:
        driver = found.driver(CHURN)
        killed = 0
        while driver.poll() is None and killed < KILLS:
            pid = found.status().controller_pid
            os.kill(pid, signal.SIGKILL)
            killed += 1
            until(lambda old=pid: _is_another(found, old), "new controller", 60)
        assert "all waves done" in finished(driver, 300)
        assert killed >= 5
        found.wait_empty(120)
        launches = [one.data["launch_id"] for one in found.client.events(limit=5000) if one.kind == "launch"]
        assert len(launches) == len(set(launches))


def _is_another(found: object, old: int) -> bool | None:
    try:
        pid = found.client.status().controller_pid  # type: ignore[attr-defined]
    except (NotRunning, NoAnswer):
        return None
    return pid != old or None
