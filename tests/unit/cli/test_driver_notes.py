from __future__ import annotations

import json
from pathlib import Path

from heliostat.cli.driver_notes import note_for_drivers


def test_drivers_and_ray_monitor_get_the_line(tmp_path: Path) -> None:
    note_for_drivers(str(tmp_path), "the head's Slurm job ends in 5 min")
    event = json.loads((tmp_path / "events" / "event_AUTOSCALER.log").read_text())
    assert (event["severity"], event["message"]) == ("WARNING", "the head's Slurm job ends in 5 min")
    assert "the head's Slurm job ends in 5 min" in (tmp_path / "monitor.log").read_text()


def test_a_disk_that_refuses_costs_only_the_line(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("")
    note_for_drivers(str(tmp_path), "x")
