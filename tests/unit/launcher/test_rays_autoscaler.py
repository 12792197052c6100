"""What the process of Ray's own autoscaler checks and sets before it is Ray's."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, write_record
from heliostat.launcher import rays_autoscaler
from heliostat.launcher.rays_autoscaler import (
    METRICS_VARIABLE,
    TIMEOUTS,
    missing_parts,
    prepare,
    wait_for_head,
)
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.supported import NEWEST, OLDEST, unsupported

RECORD = ClusterRecord("demo", "u1", "a@b", 1.0, "f", "h", "/r", "/t", "2", "3", autoscaler="v2")


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
def test_this_ray_has_all_that_is_used(autoscaler: str) -> None:
    assert missing_parts(autoscaler) == ""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (("ray.autoscaler.v3.monitor", "Monitor", ""), r"has no ray\.autoscaler\.v3\.monitor\.Monitor"),
        (("ray.autoscaler.v2.monitor", "Overseer", ""), r"has no ray\.autoscaler\.v2\.monitor\.Overseer"),
        (("ray.autoscaler.v2.monitor", "AutoscalerMonitor", "moon"), "does not take moon"),
    ],
)
def test_what_a_ray_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, part: tuple[str, str, str], said: str
) -> None:
    import re

    monkeypatch.setitem(rays_autoscaler.PARTS, "v2", (part,))
    assert re.search(said, missing_parts("v2"))


@pytest.mark.parametrize(
    ("version", "fine"),
    [
        (OLDEST, True),
        (NEWEST, True),
        ("2.60.9", True),
        ("2.58.0", True),
        ("2.56.0", False),
        ("2.61.0", False),
        ("3.0.0", False),
        ("3.0.0.dev0", False),
        ("nightly", False),
    ],
)
def test_versions_that_are_not_tested_are_said_to_be_so(version: str, fine: bool) -> None:
    assert (unsupported(version) == "") is fine
    if not fine:
        assert f"{OLDEST} to {NEWEST} are supported" in unsupported(version)


def test_the_range_is_that_of_the_versions_that_are_tested() -> None:
    root = Path(__file__).parents[3]
    lines = (root / "tools" / "ray-versions.txt").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line and not line.startswith("#")]
    assert (versions[0], versions[-1]) == (OLDEST, NEWEST)


def test_rays_own_timeouts_do_not_end_what_waits_in_a_queue() -> None:
    environment: dict[str, str] = {}
    prepare(environment)
    assert all(int(environment[name]) > 365 * 24 * 3600 for name in TIMEOUTS)


def test_the_variables_are_those_that_ray_reads() -> None:
    from ray.autoscaler.v2.instance_manager import config

    text = Path(config.__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in text for name in TIMEOUTS)


def test_metrics_go_to_a_port_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        wish = taken.getsockname()[1]
        monkeypatch.setattr(rays_autoscaler, "METRICS_PORT", wish)
        environment: dict[str, str] = {}
        prepare(environment)
    assert environment[METRICS_VARIABLE] != str(wish)
    given = {METRICS_VARIABLE: "5"}
    prepare(given)
    assert given[METRICS_VARIABLE] == "5"


def test_without_a_cluster_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match="the cluster is down"):
        wait_for_head(StatePlaces(tmp_path))


def test_a_head_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    places = StatePlaces(tmp_path)
    write_record(places.record, replace(RECORD, session_name="s", runtime_dir=str(tmp_path)))
    with pytest.raises(HeliostatError, match="no head and controller within 0 s"):
        wait_for_head(places, wait_s=0.3)


def test_reports_go_on_from_the_last_version_that_ray_has_seen() -> None:
    from ray.core.generated.autoscaler_pb2 import AutoscalingState

    class Gcs:
        heard = b""

        def report_autoscaling_state(self, state: bytes) -> None:
            self.heard = state

    monitor, gcs = object.__new__(rays_autoscaler._continued()), Gcs()
    monitor.seen_before = 40
    monitor._report_autoscaling_state(gcs, AutoscalingState(autoscaler_state_version=2))
    assert AutoscalingState.FromString(gcs.heard).autoscaler_state_version == 42
