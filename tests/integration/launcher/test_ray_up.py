"""`ray up`, work, scale up, idle, scale down, a changed file, `ray down`: on this machine."""

from __future__ import annotations

import pytest

from tests.integration.launcher.conftest import LISTS, WORK, Launcher
from tests.integration.slurm.login import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

FILE = """
cluster_name: up
max_workers: {workers}
idle_timeout_minutes: 1
upscaling_speed: 1
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends: {{local: {{cpus: 4}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  cpu: {{resources: {{CPU: 1}}, max_workers: 3, idle_timeout_s: 3, node_config: {{backend: local}}}}
head_node_type: head
"""


def test_the_whole_life_of_a_cluster(launcher: Launcher) -> None:
    launcher.file.write_text(FILE.format(workers=2) + LISTS)
    (launcher.folder / "work.py").write_text(WORK)
    launcher.ray("up", "--yes")
    record = launcher.record
    assert record is not None
    assert (record.source, launcher.workers()) == (str(launcher.file), [])
    assert "squares [0, 1, 4, 9] --fast" in launcher.ray("submit", "work.py", "--", "--fast")
    assert "is running" in launcher.heliostat("events", "--cluster", "up")
    said = launcher.ray("exec", "ray status && python -c 'import os; print(os.getcwd())'; exit 7", code=7)
    assert "Node status" in said
    assert str(launcher.folder) in said
    until(lambda: not launcher.workers(), "zero workers")

    launcher.file.write_text(FILE.format(workers=3) + LISTS)
    assert "max_workers: 2 → 3" in launcher.ray("up", "--yes")
    again = launcher.record
    assert again is not None
    assert (again.cluster_uid, again.session_name) == (record.cluster_uid, record.session_name)
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)


@pytest.mark.nightly
def test_rays_own_autoscaler_decides_where_the_file_says_so(launcher: Launcher) -> None:
    text = FILE.replace("provider:\n", "provider:\n  autoscaler: ray\n")
    launcher.file.write_text(text.format(workers=2) + LISTS)
    (launcher.folder / "work.py").write_text(WORK)
    launcher.ray("up", "--yes")
    record = launcher.record
    assert record is not None
    assert record.autoscaler == "v2"
    assert "squares [0, 1, 4, 9]" in launcher.ray("submit", "work.py")
    until(lambda: not launcher.workers(), "zero workers", 120)
    launcher.file.write_text(text.format(workers=3) + LISTS)
    assert "max_workers: 2 → 3" in launcher.ray("up", "--yes")
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)


@pytest.mark.nightly
def test_a_wrong_file_starts_nothing(launcher: Launcher) -> None:
    launcher.file.write_text(FILE.format(workers=2).replace("CPU: 1", "CPU: 0.5") + LISTS)
    said = launcher.ray("up", "--yes", code=2)
    assert f"{launcher.file}:12: available_node_types.cpu.resources.CPU: 0.5; allowed is a whole" in said
    assert launcher.record is None
    assert "up is not up: there is nothing to take down" in launcher.ray("down", "--yes")


@pytest.mark.nightly
def test_names_limits_addresses_and_the_log(launcher: Launcher) -> None:
    text = FILE.format(workers=2).replace("cluster_name: up", "cluster_name: other") + LISTS
    launcher.file.write_text(text.replace("max_workers: 3", "min_workers: 1, max_workers: 3"))
    (launcher.folder / "work.py").write_text(WORK)
    named = ("--cluster-name", "up")
    launcher.ray("up", "--yes", "--max-workers", "1", *named)
    record = launcher.record
    assert record is not None
    assert "max_workers: 1\n" in launcher.places.config.read_text()
    assert "squares [0, 1, 4, 9]" in launcher.ray("submit", "work.py", *named)
    (address,) = set(launcher.ray("get-worker-ips", *named).split())
    assert address == launcher.ray("get-head-ip", *named).strip()
    assert "scales this cluster" in launcher.first_line_of("monitor", *named)

    launcher.file.write_text(text.replace("head: {resources: {CPU: 0}", "head: {resources: {CPU: 1}"))
    assert "head" in launcher.ray("up", "--yes", *named, code=1)
    launcher.ray("exec", "exit 5", "--stop", *named, code=5)
    launcher.nothing_is_left(record)


@pytest.mark.nightly
def test_a_second_up_while_the_head_is_set_up_and_a_shell_on_a_terminal(launcher: Launcher) -> None:
    begun, go_on = launcher.folder / "begun", launcher.folder / "go-on"
    waits = f"touch {begun}; while [ ! -e {go_on} ]; do sleep 0.1; done"
    setup = LISTS.replace("head_setup_commands: []", f"head_setup_commands: ['{waits}']")
    launcher.file.write_text(FILE.format(workers=2) + setup)
    first = launcher.begin("up", "--yes")
    try:
        until(begun.exists, "setup of the head")
        record = launcher.record
        said = launcher.ray("up", "--yes", code=1)
        assert "another `heliostat up` of this cluster is under way" in said
        assert launcher.record == record
    finally:
        go_on.touch()
        told, _ = first.communicate(timeout=120)
    assert first.returncode == 0, told
    code, shown = launcher.typed("attach", "echo the $((40 + 2)) of $RAY_ADDRESS\nexit 3\n")
    record = launcher.record
    assert record is not None
    assert f"the 42 of {record.address}" in shown
    assert code == 3
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)
