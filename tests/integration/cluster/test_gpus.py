"""The story of examples/gpus.yaml in two terminals, with GPUs that are only declared."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.conftest import (
    Cluster,
    Terminal,
    environment_of,
    finished,
    terminal,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "gpus.yaml"
NAME = f"gpus-{os.getpid()}"
FULL = "no GPU is left: 0–3 are taken by head, w1, w2, w3"

LOOK = """
import json
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
@ray.remote(num_gpus=1)
def look():
    gpus = [str(one) for one in ray.get_gpu_ids()]
    return os.environ.get("HELIOSTAT_INSTANCE_ID", "head"), gpus, os.environ["CUDA_VISIBLE_DEVICES"]
nodes = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
looks = [look.options(scheduling_strategy=On(one, soft=False)).remote() for one in nodes]
print("seen", json.dumps(ray.get(looks, timeout=60)))
"""


def declared() -> str:
    """Return the example's text with four GPUs and eight CPUs, as its own comment says."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ("cluster_name: gpus\n", f"cluster_name: {NAME}\n"),
        (" gpus: auto\n", " gpus: 4\n"),
        (" cpus: auto\n", " cpus: 8\n"),
    ):
        assert text.count(old) == 1, f"the example no longer has {old!r}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("gpus")
    with terminal(folder, declared(), name=NAME, options=("--workers", "2")) as found:
        yield found


@pytest.fixture(scope="module")
def found(up: Terminal) -> Cluster:
    return up.cluster()


def slots(found: Cluster) -> dict[str, str]:
    """Return what each worker that runs holds, by its name."""
    return {one.name: one.slot for one in found.status().instances if one.state == "running"}


def test_one_more_by_hand_until_no_gpu_is_left(found: Cluster) -> None:
    held = until(lambda: slots(found) if len(slots(found)) == 2 else None, "two workers", 90)
    assert held == {"w1": "GPU 1", "w2": "GPU 2"}
    added = found.command("add")
    assert (added.returncode, added.stdout.splitlines()[-1]) == (0, "w3 is up"), added.stderr
    assert slots(found) == {"w1": "GPU 1", "w2": "GPU 2", "w3": "GPU 3"}
    refused = found.command("add")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [f"heliostat: {FULL}"]
    assert len(found.status().instances) == 3


def test_each_sees_its_own_gpu_and_no_other(found: Cluster) -> None:
    own = {one.instance_id: one.slot.removeprefix("GPU ") for one in found.status().instances}
    assert sorted(own.values()) == ["1", "2", "3"]
    environments = [environment_of(pid) for pid in found.processes()]
    for instance_id, gpu in own.items():
        of_it = [one for one in environments if one.get("HELIOSTAT_INSTANCE_ID") == instance_id]
        # Ray's agents change their title, which overwrites their environment from its beginning.
        visible = [one["CUDA_VISIBLE_DEVICES"] for one in of_it if "CUDA_VISIBLE_DEVICES" in one]
        assert set(visible) == {gpu}
        assert len(visible) >= 2, "at least the bootstrap and the raylet"
    (line,) = [one for one in finished(found.driver(LOOK), 90).splitlines() if one.startswith("seen ")]
    seen = {who: (gpus, visible) for who, gpus, visible in json.loads(line.removeprefix("seen "))}
    assert seen == {who: ([gpu], gpu) for who, gpu in {"head": "0", **own}.items()}


def test_ctrl_c_in_the_first_terminal_ends_it_all(up: Terminal, found: Cluster) -> None:
    assert up.interrupted() == 0
    assert up.output().splitlines()[-1] == f"{NAME} is down"
    assert found.processes() == []
