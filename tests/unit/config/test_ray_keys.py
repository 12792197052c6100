"""No key of Ray's is passed over: each is done, said to do nothing, or refused, and the page says which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.config.errors import KeyPath
from heliostat.config.ray_keys import AUTH_KEYS, CLOUD_KEYS, RAY_KEYS, RAYS_DEFAULTS, Treatment
from heliostat.config.schema import AuthModel
from tests.unit.config.files import GOOD, Load, Problems

ROOT = Path(__file__).parents[3]
TYPE: KeyPath = ("available_node_types", "*")


def rays_schema() -> dict[str, Any]:
    import ray.autoscaler

    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["properties"]
    return found


def keys_of_ray() -> Iterator[KeyPath]:
    schema = rays_schema()
    yield from ((key,) for key in schema)
    yield from (("provider", key) for key in schema["provider"]["properties"])
    one = schema["available_node_types"]["patternProperties"][".*"]
    yield from ((*TYPE, key) for key in one["properties"])


def test_every_key_of_the_installed_ray_is_in_the_table() -> None:
    assert [key for key in keys_of_ray() if key not in RAY_KEYS] == []
    # An older Ray lacks some; none is made up beyond these.
    assert set(RAY_KEYS) - set(keys_of_ray()) <= {(*TYPE, "priority"), (*TYPE, "idle_timeout_s")}


def test_the_same_keys_of_auth() -> None:
    assert set(rays_schema()["auth"]["properties"]) <= set(AUTH_KEYS)
    assert set(AUTH_KEYS) == set(AuthModel.model_fields)


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "cluster-file.md").read_text(encoding="utf-8")
    for path, key in RAY_KEYS.items():
        if path[0] != "provider" or key.treatment is Treatment.HONOURED:
            row = f"| `{'.'.join(map(str, path))}` | {key.treatment.value} | {key.words} |"
            assert row in page


VALUES: dict[str, str] = {"no_restart": "true"}


@pytest.mark.parametrize("path", [one for one in RAY_KEYS if RAY_KEYS[one].treatment is Treatment.REFUSED])
def test_what_is_not_done_is_refused_with_the_reason(problems: Problems, path: KeyPath) -> None:
    key = str(path[-1])
    line = f"{key}: {VALUES.get(key, '[x]' if key.endswith('commands') else '{x: y}')}\n"
    text = GOOD + line
    if path[0] == "provider":
        text = GOOD.replace("provider:\n", f"provider:\n  {line}")
    elif path[0] == "available_node_types":
        text = GOOD.replace("  worker:\n", f"  worker:\n    {line}")
    (found,) = [one for one in problems(text) if key in one]
    assert RAY_KEYS[path].words in found


RAYS_OWN = [
    "head_start_ray_commands: [ray stop, 'ulimit -n 65536; ray start --head --port=6379 "
    "--object-manager-port=8076 --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=0.0.0.0']",
    "head_start_ray_commands: [ray stop, 'ulimit -c unlimited;  ray start --head --port=6379 "
    "--autoscaling-config=~/ray_bootstrap_config.yaml']",
    "worker_start_ray_commands: [ray stop, 'ray start --address=$RAY_HEAD_IP:6379']",
    "worker_start_ray_commands: ['ray stop && ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379 "
    "--object-manager-port=8076']",
]


@pytest.mark.parametrize("line", RAYS_OWN)
def test_rays_own_start_commands_are_accepted_and_it_is_said(load: Load, line: str) -> None:
    spec = load(f"{GOOD}{line}\n")
    (note,) = spec.notes
    assert note.endswith(f"cluster.yaml:13: {line.partition(':')[0]}: {RAYS_DEFAULTS}")
    assert spec == load(GOOD)


@pytest.mark.parametrize("kind", ["aws", "gcp", "azure", "local", "vsphere"])
def test_so_are_those_of_rays_own_files(kind: str, load: Load) -> None:
    import ray.autoscaler
    import yaml

    path = Path(ray.autoscaler.__file__).parent / kind / "defaults.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    assert len(load(GOOD + yaml.safe_dump({key: given[key] for key in keys})).notes) == 2


@pytest.mark.parametrize(
    "command",
    ["ray start --head --num-cpus=4", "ray stop; echo hello", "ray start --port=6380", "FOO=1 ray start"],
)
def test_any_other_start_command_is_refused(problems: Problems, command: str) -> None:
    (found,) = problems(f"{GOOD}head_start_ray_commands: [ray stop, {command!r}]\n")
    assert found.startswith(f'cluster.yaml:13: head_start_ray_commands.1: "{command}": Heliostat starts Ray')


def test_that_nobody_logs_in_is_said(load: Load) -> None:
    (note,) = load(GOOD + "auth: {ssh_user: me}\n").notes
    assert note.endswith("cluster.yaml:13: auth: Heliostat logs in to no node by itself, so it has no effect")
    assert load(GOOD + "auth: {}\n").notes == ()


def test_the_clouds_keys_have_one_reason() -> None:
    assert all(RAY_KEYS["provider", key].treatment is Treatment.REFUSED for key in CLOUD_KEYS)
