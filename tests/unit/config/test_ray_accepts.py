"""Ray's own reading of our files, as `ray up` does it: defaults filled in, then its schema."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.config.checks import Checked, label_syntax
from heliostat.config.cluster_file import load_cluster_file
from heliostat.config.errors import Position
from heliostat.config.init_local import local_cluster_file
from heliostat.config.positions import Document
from heliostat.config.schema import ClusterModel, NodeTypeModel
from tests.unit.config.files import GOOD, INSTALLED
from tests.unit.config.test_init_local import MACHINES
from tests.unit.config.test_setup import OWN, STEPS

RAYS = """\
idle_timeout_minutes: 5
upscaling_speed: 1.0
provider:
  type: external
  module: heliostat.launcher.NodeProvider"""
"""What Ray has no default for."""

ROOT = Path(__file__).parents[3]
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.yaml"))}
FILES |= {f"init on a {kind}": local_cluster_file(machine, name="mine") for kind, machine in MACHINES.items()}

FILES["every step before Ray"] = f"""\
{GOOD.replace("head_node_type", OWN).replace("provider:", RAYS)}{STEPS}
docker: {{}}
auth: {{ssh_user: ada}}
head_start_ray_commands: [ray stop, "ulimit -n 65536; ray start --head --port=6379"]
worker_start_ray_commands: [ray stop, "ray start --address=$RAY_HEAD_IP:6379"]
"""

SHOWS_EVERY_KEY = "full.yaml"


@cache
def _rays_keys() -> tuple[set[str], set[str]]:
    """Return the keys that the schema of the installed Ray knows: of a file, and of a node type."""
    import ray.autoscaler

    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    of_file = json.loads(path.read_text(encoding="utf-8"))["properties"]
    return set(of_file), set(of_file["available_node_types"]["patternProperties"][".*"]["properties"])


def _later_keys() -> set[str]:
    """Return the keys of a node type that, as our page says, not every Ray knows."""
    page = (ROOT / "docs" / "cluster-file.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \| Ray \|.*Ray before 2\.\d+ refuses", page, flags=re.MULTILINE))


def _for_ray(name: str) -> dict[str, Any]:
    """Return the file's content; only the one that shows every key is rid of what this Ray is too old for."""
    config: dict[str, Any] = yaml.safe_load(FILES[name])
    if name == SHOWS_EVERY_KEY:
        for one in config["available_node_types"].values():
            for key in _later_keys() - _rays_keys()[1]:
                one.pop(key, None)
    return config


def _as_ray_up_reads_it(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    found: dict[str, Any] = prepare_config(config)
    validate_config(found)
    return found


@pytest.mark.parametrize("name", FILES)
def test_rays_validator_accepts_it(name: str) -> None:
    assert _as_ray_up_reads_it(_for_ray(name))["provider"]["type"] == "external"


@pytest.mark.parametrize("name", FILES)
def test_ray_and_we_read_the_same(name: str, tmp_path: Path) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    ray = AutoscalingConfig(_for_ray(name), skip_content_hash=True)
    path = tmp_path / "cluster.yaml"
    path.write_text(FILES[name], encoding="utf-8")
    spec = load_cluster_file(path, backends=INSTALLED)
    assert spec.head_type.name == ray.get_head_node_type()
    assert spec.policy.max_workers == ray.get_max_num_worker_nodes()
    assert spec.policy.idle_timeout_s == ray.get_idle_timeout_s()
    types = ray.get_node_type_configs()
    assert {one.name for one in spec.policy.node_types} | {spec.head_type.name} == set(types)
    for one in spec.policy.node_types:
        theirs = types[one.name]
        assert (one.min_workers, one.max_workers) == (theirs.min_worker_nodes, theirs.max_worker_nodes)
        assert one.idle_timeout_s == theirs.idle_timeout_s
        if "priority" in _rays_keys()[1]:
            assert one.priority == theirs.priority
        assert one.labels == theirs.labels
        assert one.resources.units() == {key: value for key, value in theirs.resources.items() if value}


@pytest.mark.parametrize("name", FILES)
def test_ray_would_run_the_same_before_its_start(name: str, tmp_path: Path) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    ray = AutoscalingConfig(_for_ray(name), skip_content_hash=True)
    path = tmp_path / "cluster.yaml"
    path.write_text(FILES[name], encoding="utf-8")
    spec = load_cluster_file(path, backends=INSTALLED)
    assert [one.text for one in spec.head_setup.commands] == ray.get_head_setup_commands()
    mounts = [one.remote for one in spec.head_setup.mounts]
    assert mounts == list(_as_ray_up_reads_it(_for_ray(name))["file_mounts"])
    for one in spec.policy.node_types:
        assert [each.text for each in one.setup.commands] == ray.get_worker_setup_commands(one.name)
        assert [each.text for each in one.setup.initialization] == ray.get_initialization_commands(one.name)


def test_rays_validator_would_see_a_mistake() -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        _as_ray_up_reads_it(yaml.safe_load(FILES["minimal.yaml"].replace("CPU: 1", "CPU: 0.5")))


def test_we_know_every_key_that_ray_knows() -> None:
    of_file, of_node_type = _rays_keys()
    assert of_file == set(ClusterModel.model_fields)
    assert of_node_type | _later_keys() == set(NodeTypeModel.model_fields)


LABELS = [
    ("a", "b"),
    ("a", ""),
    ("A.b_c-d", "1"),
    ("-a", "b"),
    ("a-", "b"),
    ("", "b"),
    ("a b", "c"),
    ("a" * 63, "b" * 63),
    ("a" * 64, "b"),
    ("a", "b" * 64),
    ("a", "b/c"),
    ("example.org/a", "b"),
    ("example.org/", "b"),
    ("/a", "b"),
    ("a@b/c", "d"),
    ("ray.io/market-type", "spot"),
    ("x/y/z", "b"),
    ("a", "-"),
    ("é", "b"),
    ("a", "b\n"),
]


@pytest.mark.parametrize(("key", "value"), LABELS)
def test_labels_that_ray_refuses_are_refused(key: str, value: str) -> None:
    from ray._private.label_utils import validate_node_label_syntax

    data = {"available_node_types": {"w": {"labels": {key: value}}}}
    checked = Checked(Document(data, {(): Position("f", 1)}), INSTALLED)
    ours = not list(label_syntax(checked))
    try:
        validate_node_label_syntax({key: value})
        theirs = True
    except ValueError:
        theirs = False
    # Ray's pattern lets an empty prefix pass, against its own words.
    assert ours == (theirs and not key.startswith("/"))
