"""Who decides: what `up` makes of the file and of the variable that `ray up` reads, and what it refuses."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import autoscaler, view
from heliostat.cli.autoscaler import (
    V1_VARIABLE,
    FitForV1,
    autoscaler_of,
    head_for,
    refuse_unusable_autoscaler,
)
from heliostat.cli.driver import driver_variables
from heliostat.cli.files import load
from heliostat.cli.head import HeadPlan
from heliostat.cli.preparing import keep_workers
from heliostat.cli.trial import Trial, _of_autoscaler
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import ConfigError, HeliostatError
from tests.unit.api.fakes import report

CLUSTER = """
cluster_name: demo
provider: {{type: external, autoscaler: {autoscaler}, backends: {{local: {{}}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  cpu: {{resources: {{CPU: 2}}, max_workers: {most}, node_config: {{backend: local}}}}
head_node_type: head
"""
RECORD = ClusterRecord("demo", "u1", "a@b", 1.0, "f", "h", "/r", "/t", "2", "3")
HEAD = HeadPlan((), {"RAY_enable_autoscaler_v2": "1", "A": "b"}, {}, "/t", "h:1", "", "", 1, ())


def spec_of(tmp_path: Path, decides: str = "ray", most: int = 3) -> ClusterSpec:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(autoscaler=decides, most=most))
    return load(path)


@pytest.mark.parametrize(
    ("decides", "variable", "found"),
    [
        ("heliostat", None, ""),
        ("heliostat", "0", ""),
        ("ray", None, "v2"),
        ("ray", "1", "v2"),
        ("ray", "0", "v1"),
    ],
)
def test_the_version_is_chosen_as_by_ray_up(
    tmp_path: Path, decides: str, variable: str | None, found: str
) -> None:
    environment = {} if variable is None else {V1_VARIABLE: variable}
    assert autoscaler_of(spec_of(tmp_path, decides), environment) == found


def test_a_ray_that_is_not_tested_is_refused_and_only_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoscaler, "version", lambda _: "2.99.0")
    with pytest.raises(HeliostatError, match=r"Ray 2\.99\.0 is installed, and 2\.56\.1 to .* are supported"):
        refuse_unusable_autoscaler(spec_of(tmp_path), {})
    refuse_unusable_autoscaler(spec_of(tmp_path, "heliostat"), {})


def test_v1_is_refused_where_it_can_not_tell_workers_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.yaml: workers of cpu may share .*{V1_VARIABLE}=0"):
        refuse_unusable_autoscaler(spec_of(tmp_path), {V1_VARIABLE: "0"})
    refuse_unusable_autoscaler(spec_of(tmp_path, most=1), {V1_VARIABLE: "0"})


def test_so_is_a_changed_file_of_a_cluster_that_runs(tmp_path: Path) -> None:
    class Source:
        most = 1

        def load(self) -> ClusterSpec:
            return spec_of(tmp_path, most=self.most)

    source = Source()
    assert FitForV1(source).load().policy.ray_decides
    source.most = 2
    with pytest.raises(ConfigError):
        FitForV1(source).load()


@pytest.mark.parametrize(("chosen", "switch"), [("", "1"), ("v2", "1"), ("v1", "0")])
def test_head_and_drivers_speak_to_the_autoscaler_that_decides(chosen: str, switch: str) -> None:
    record = replace(RECORD, autoscaler=chosen)
    assert head_for(HEAD, record).environment == {"RAY_enable_autoscaler_v2": switch, "A": "b"}
    assert driver_variables(record)["RAY_enable_autoscaler_v2"] == switch


def test_the_record_keeps_it(tmp_path: Path) -> None:
    write_record(tmp_path / "cluster.json", replace(RECORD, autoscaler="v1"))
    found = read_record(tmp_path / "cluster.json")
    assert found is not None
    assert found.autoscaler == "v1"


def test_workers_by_hand_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match="write min_workers in the file"):
        keep_workers(StatePlaces(tmp_path), spec=spec_of(tmp_path), cluster_uid="u", workers=1)


def test_check_says_who_decides_and_what_is_wrong_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(V1_VARIABLE, raising=False)
    trial = Trial(spec_of(tmp_path), [])
    assert trial.summary.endswith("; Ray's own autoscaler decides")
    plan = trial.plan_for({"CPU": 1}, 3)
    assert (plan["launches"], plan["note"].split(" how ")[0]) == ([], "Ray's own autoscaler decides")
    assert _of_autoscaler(trial.spec) == []
    monkeypatch.setenv(V1_VARIABLE, "0")
    assert os.environ[V1_VARIABLE] == "0"
    assert "may share an IP address" in _of_autoscaler(trial.spec)[0]


def test_status_says_who_decides() -> None:
    assert "decides    Ray's own autoscaler" in view.plain(report(autoscaler="ray"))
    assert "decides" not in view.plain(report())
