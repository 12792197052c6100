"""What is done before Ray starts, on a real cluster: on the head's host, for workers, and when it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from heliostat.cli.system import tagged_processes
from heliostat.model.report import InstanceReport
from tests.integration.cluster.conftest import (
    CLUSTER,
    Cluster,
    cluster,
    finished,
    places_of,
    terminal,
    until,
)
from tests.packages import lacking

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

BROKEN, SLOW = "broken", "slow"


def text(name: str, folder: Path, **more: object) -> str:
    found = yaml.safe_load(CLUSTER.format(name=name, workers=3, idle_timeout_s=600, orphan_timeout_s=60))
    worker = found["available_node_types"]["worker"]
    quick = {**worker, "node_config": {"backend": "local", "log_monitor": False}}
    found["available_node_types"] = {
        "head": found["available_node_types"]["head"],
        "worker": {**quick, "priority": 1},
        BROKEN: {**quick, "worker_setup_commands": ["echo no such module; exit 7"]},
        SLOW: {**quick, "worker_setup_commands": [f"sleep 600 & echo $! > {folder}/slow; wait"]},
    }
    return str(yaml.safe_dump({**found, **more}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("setup")


@pytest.fixture(scope="module")
def set_up(folder: Path) -> Iterator[Cluster]:
    (folder / "data").mkdir()
    (folder / "data" / "file").write_text("mounted")
    # Where there is no rsync only a copy onto itself can be asked for.
    target = folder / "data" if lacking(["rsync"], ["rsync"]) else folder / "copy"
    steps = {
        "file_mounts": {str(target): "data"},
        "setup_commands": [f"cat '{target}/file'; echo \"both $RAY_NODE_TYPE_NAME\" >> '{folder}/order'"],
        "head_setup_commands": [f"echo head >> '{folder}/order'; sleep 600 & echo $! > '{folder}/left'"],
        "worker_setup_commands": [f"echo worker >> '{folder}/order'"],
    }
    with cluster(folder, text(f"setup-{os.getpid()}", folder, **steps)) as found:
        yield found
    until(lambda: is_gone((folder / "left").read_text()) or None, "end of what the head's setup has left", 10)


def test_head_and_worker_are_set_up_before_ray_starts_there(set_up: Cluster, folder: Path) -> None:
    order = folder / "order"
    assert order.read_text().splitlines() == ["both head", "head"]
    head_log = places_of(set_up.record.cluster_name).head_log.read_text()
    assert head_log.startswith("bootstrap: setup, step 1 of ")
    assert "mounted" in head_log
    script = f"print(ray.get(ray.remote(num_cpus=1)(lambda: open({str(order)!r}).read()).remote()))\n"
    assert "both head\nhead\nboth worker\nworker\n" in finished(set_up.driver(script), 90)
    (running,) = set_up.running()
    log = (places_of(set_up.record.cluster_name).logs / f"{running}.log").read_text()
    assert "mounted" in log
    assert log.index("setup, step") < log.index("Ray starts")


def of_type(found: Cluster, name: str) -> InstanceReport | None:
    return next((one for one in found.status().instances if one.node_type == name), None)


def starting(found: Cluster, name: str) -> InstanceReport | None:
    one = of_type(found, name)
    return one if one is not None and one.state == "starting" else None


def test_a_setup_that_fails_is_told_and_backs_off(set_up: Cluster) -> None:
    why = "broken.worker_setup_commands.0 failed with exit code 7: no such module"
    added = set_up.command("add", BROKEN)
    assert added.returncode == 1
    assert why in added.stderr + added.stdout
    for command in (("status",), ("explain", BROKEN)):
        shown = set_up.command(*command)
        assert why in " ".join(shown.stdout.split()), shown.stdout
    kinds = {one.name: one for one in set_up.status().node_types}
    assert kinds[BROKEN].backoff_until_s is not None


def test_one_that_takes_long_is_starting_and_ends_at_once_when_it_is_told_to(
    set_up: Cluster, folder: Path
) -> None:
    assert set_up.command("add", SLOW, "--no-wait").returncode == 0
    pid = until(lambda: written(folder / "slow"), "a setup that runs", 60)
    slow = until(lambda: starting(set_up, SLOW), "a worker that starts", 10)
    until(lambda: "setup, step" in set_up.command("status").stdout or None, "a word on its setup", 20)
    began_s = time.monotonic()
    assert set_up.command("remove", slow.instance_id, "--deadline", "1s").returncode == 0
    until(lambda: not tagged_processes("HELIOSTAT_INSTANCE_ID", slow.instance_id) or None, "its end", 30)
    until(lambda: is_gone(pid) or None, "end of the step", 10)
    assert time.monotonic() - began_s < 20


def is_gone(pid: str) -> bool:
    """Say whether a process has ended; one that nobody has collected yet has."""
    try:
        text = Path("/proc", pid.strip(), "stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def written(path: Path) -> str | None:
    return path.read_text().strip() or None if path.exists() else None


def test_a_heads_setup_that_fails_is_the_end_of_up(tmp_path: Path) -> None:
    name = f"nohead-{os.getpid()}"
    steps = {"head_setup_commands": ["echo no such module; exit 7"]}
    with terminal(tmp_path, text(name, tmp_path, **steps), name=name) as up:
        assert up.ended(60) == 1
        assert "head_setup_commands.0 failed with exit code 7: no such module" in up.output()
    assert not places_of(name).record.exists()


def test_ctrl_c_in_a_heads_setup_ends_it_with_all_its_processes(tmp_path: Path) -> None:
    name = f"stopped-{os.getpid()}"
    steps = {"head_setup_commands": [f"setsid sleep 600 & echo $! > {tmp_path}/pid; wait"]}
    with terminal(tmp_path, text(name, tmp_path, **steps), name=name) as up:
        pid = until(lambda: written(tmp_path / "pid"), "a setup that runs", 60)
        assert up.interrupted(60) == 130
    until(lambda: is_gone(pid) or None, "end of the step", 10)
    assert not places_of(name).record.exists()
