"""A cluster whose journal is lost, or whose disk is full: workers stay, none is doubled, work goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster, finished, places_of, until
from tests.small_disk import small_disk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SQUARES = """
@ray.remote(num_cpus=1, max_retries=0)
def square(n):
    time.sleep(3)
    return n * n
print(sum(ray.get([square.remote(n) for n in range(8)])))
"""


def text(name: str) -> str:
    return CLUSTER.format(name=name, workers=2, idle_timeout_s=3, orphan_timeout_s=120)


def kill_controller(found: Cluster) -> None:
    """Kill it, and wait for the next one."""
    old = found.status().controller_pid
    os.kill(old, signal.SIGKILL)
    until(lambda: found.status().controller_pid != old or None, "another controller", 60)


def names(found: Cluster) -> dict[str, str]:
    return {one.instance_id: one.name for one in found.status().instances}


def test_without_its_journal_a_controller_takes_up_the_workers_by_their_tags(tmp_path: Path) -> None:
    with cluster(tmp_path, text("forgetful")) as found:
        driver = found.driver(SQUARES)
        until(lambda: len(found.running()) == 2 or None, "two workers", 90)
        before = names(found)
        # While the controller holds it: the next one is started within a tenth of a second.
        for path in places_of("forgetful").folder.glob("journal.db*"):
            path.unlink()
        kill_controller(found)
        until(lambda: sorted(found.running()) == sorted(before) or None, "sight of the same workers", 30)
        assert names(found) == before
        adopted = [one.instance_id for one in found.client.events(limit=500) if one.kind == "adopt"]
        assert sorted(adopted) == sorted(before)
        assert "140" in finished(driver, 90)
        found.wait_empty()
        assert not [one for one in found.client.events(limit=500) if one.kind == "launch"]


def test_on_a_full_disk_nothing_is_launched_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "state") as disk:
        monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(disk.folder))
        with cluster(tmp_path, text("full"), workers=1) as found:
            until(lambda: found.running() or None, "a worker", 90)
            disk.fill()
            driver = found.driver(SQUARES)
            trouble = until(lambda: found.status().journal or None, "word of it", 60)
            assert "the disk is full" in trouble
            # A controller that dies meanwhile is followed by one that can't write either.
            kill_controller(found)
            until(lambda: found.status().journal or None, "word of it from the next one", 60)
            assert len(found.status().instances) == 1
            disk.free()
            until(lambda: len(found.running()) == 2 or None, "a second worker", 60)
            assert found.status().journal == ""
            assert "140" in finished(driver, 90)
