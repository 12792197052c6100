"""`provider.autoscaler: ray`: what it takes and refuses of a file, and what Ray's autoscaler reads of it."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.config.autoscaler import refused_by_v1
from heliostat.config.ray_file import ray_form, write_ray_file
from heliostat.model.resources import Resources
from heliostat.ports.errors import HeliostatError
from tests.unit.config.files import GOOD, Load, Problems

RAYS = GOOD.replace("provider:\n", "provider:\n  autoscaler: ray\n")
REASON = "leave it out, or let Heliostat decide (autoscaler: heliostat)"


def with_provider(line: str) -> str:
    return RAYS.replace("provider:\n", f"provider:\n  {line}\n")


def test_heliostat_decides_unless_the_file_says_otherwise(load: Load) -> None:
    assert not load(GOOD).policy.ray_decides
    assert load(RAYS).policy.ray_decides
    assert not load(GOOD.replace("provider:\n", "provider:\n  autoscaler: heliostat\n")).policy.ray_decides


def test_another_word_is_refused(problems: Problems) -> None:
    assert problems(GOOD.replace("provider:\n", "provider:\n  autoscaler: v1\n")) == [
        'cluster.yaml:4: provider.autoscaler: "v1"; allowed is heliostat or ray'
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_surge: 1", "provider.max_surge: 1: Ray's own autoscaler decides here, and it asks for nothing"),
        ("max_draining: 3", "provider.max_draining: 3: Ray's own autoscaler decides here, and it drains"),
        ("gangs_across_backends: true", "provider.gangs_across_backends: true: Ray's own autoscaler decides"),
        ("gcs_storage: {address: 'redis://a:1'}", "provider.gcs_storage: "),
    ],
)
def test_what_only_our_planner_does_is_refused_with_the_reason(
    problems: Problems, line: str, said: str
) -> None:
    [found] = problems(with_provider(line))
    assert found.startswith(f"cluster.yaml:4: {said}")
    assert found.endswith(REASON)


def test_so_is_what_a_node_config_says(problems: Problems) -> None:
    worker, config = "resources: {CPU: 1}\n", "    node_config: {"
    [found] = problems(RAYS.replace(worker + config, f"{worker}{config}patience_s: 5, "))
    assert found.startswith("cluster.yaml:12: available_node_types.worker.node_config.patience_s: 5: Ray's")


@pytest.mark.parametrize("line", ["max_surge: 0", "gangs_across_backends: false", "max_cost_usd_per_h: 3"])
def test_what_says_nothing_and_what_limits_asks_is_taken(load: Load, line: str) -> None:
    assert load(with_provider(line)).policy.ray_decides


TWO = RAYS.replace("    resources: {CPU: 1}\n", "    resources: {CPU: 1}\n    max_workers: 1\n")


def test_v1_takes_one_worker_that_has_its_address_alone(load: Load) -> None:
    assert refused_by_v1(load(TWO)) == []


def test_v1_can_not_tell_workers_of_one_address_apart(load: Load) -> None:
    [found] = refused_by_v1(load(RAYS))
    assert "workers of worker may share an IP address" in found
    assert "use v2" in found


@pytest.mark.parametrize(("exclusive", "fine"), [("true", True), ("user", False), ("false", False)])
def test_slurm_jobs_that_take_whole_nodes_do_not_share(load: Load, exclusive: str, fine: bool) -> None:
    both = f"backends: {{local: {{}}, slurm: {{exclusive: {exclusive}}}}}"
    worker = "resources: {CPU: 1}\n    node_config: "
    text = RAYS.replace("backends: {local: {}}", both)
    text = text.replace(f"{worker}{{backend: local}}", f"{worker}{{backend: slurm}}")
    assert (refused_by_v1(load(text)) == []) is fine


def test_v1_does_not_read_all_that_v2_reads(load: Load) -> None:
    text = TWO.replace("    max_workers: 1\n", "    max_workers: 1\n    idle_timeout_s: 5\n    priority: 2\n")
    said = refused_by_v1(load(text))
    assert [one.split(":")[0] for one in said] == [
        "available_node_types.worker.idle_timeout_s",
        "available_node_types.worker.priority",
    ]


RICH = """\
cluster_name: demo
max_workers: 7
idle_timeout_minutes: 0.5
upscaling_speed: 2
provider: {autoscaler: ray, backends: {local: {}, slurm: {}}}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  gpu:
    resources: {CPU: 8, GPU: 1, licence: 2}
    min_workers: 1
    max_workers: 3
    idle_timeout_s: 2.5
    priority: -1
    labels: {tier: fast, ray.io/accelerator-type: A100}
    node_config: {backend: slurm, account: secret-project}
  plain: {resources: {CPU: 2}, node_config: {backend: local}}
head_node_type: head
"""


def form(load: Load, text: str = RICH) -> dict[str, Any]:
    return ray_form(load(text), control_socket="/r/control.sock")


def test_ray_reads_counts_shapes_and_times_and_none_of_our_options(load: Load) -> None:
    found = form(load)
    assert found["available_node_types"]["gpu"] == {
        "resources": {"CPU": 8, "GPU": 1, "licence": 2, "accelerator_type:A100": 1},
        "node_config": {},
        "min_workers": 1,
        "max_workers": 3,
        "labels": {"tier": "fast", "ray.io/accelerator-type": "A100"},
        "idle_timeout_s": 2.5,
        "priority": -1,
    }
    assert (found["max_workers"], found["idle_timeout_minutes"], found["upscaling_speed"]) == (7, 0.5, 2)
    assert "secret-project" not in json.dumps(found)


def test_what_older_versions_do_not_know_is_not_written_in_vain(load: Load) -> None:
    plain = form(load)["available_node_types"]["plain"]
    assert plain == {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 7}


def test_rays_own_reader_takes_it(load: Load, tmp_path: Path) -> None:
    from ray.autoscaler.v2.instance_manager.config import FileConfigReader

    path = tmp_path / "ray-autoscaler.yaml"
    write_ray_file(path, load(RICH), control_socket="/r/control.sock")
    read = FileConfigReader(str(path), skip_content_hash=True).get_cached_autoscaling_config()
    types = read.get_node_type_configs()
    assert {name: (one.min_worker_nodes, one.max_worker_nodes) for name, one in types.items()} == {
        "head": (0, 1),
        "gpu": (1, 3),
        "plain": (0, 7),
    }
    assert (read.get_idle_timeout_s(), read.get_upscaling_speed()) == (30.0, 2)
    assert read.disable_node_updaters()
    assert read.disable_launch_config_check()
    assert read.get_head_node_type() == "head"


def test_what_a_backend_adds_to_a_type_is_in_it(load: Load) -> None:
    spec = load(RICH)
    known = Resources.of({"CPU": 2, "memory": 1_000_000_000})
    types = tuple(replace(one, resources=known) for one in spec.policy.node_types)
    spec = replace(spec, policy=replace(spec.policy, node_types=types))
    found = ray_form(spec, control_socket="s")
    assert found["available_node_types"]["plain"]["resources"] == {"CPU": 2, "memory": 1_000_000_000}


def test_a_head_whose_type_has_workers_too_keeps_their_number(load: Load) -> None:
    text = RICH.replace("head: {resources: {CPU: 0},", "head: {max_workers: 2, resources: {CPU: 0},")
    assert form(load, text)["available_node_types"]["head"]["max_workers"] == 2


def test_the_file_is_its_owners_alone_and_replaced_whole(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "ray-autoscaler.yaml"
    for text in (RICH, RICH.replace("max_workers: 7", "max_workers: 9")):
        write_ray_file(path, load(text), control_socket="s")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text())["max_workers"] == 9
    assert [one.name for one in tmp_path.iterdir() if "autoscaler" in one.name] == [path.name]


def test_a_folder_that_can_not_be_written_is_said(load: Load, tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match="can't be written"):
        write_ray_file(tmp_path / "missing" / "ray.yaml", load(RICH), control_socket="s")
