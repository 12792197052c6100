from __future__ import annotations

import pytest

from heliostat.config.init_local import GIB, Machine, local_cluster_file
from heliostat.model.resources import Resources
from tests.unit.config.files import Load

MACHINES = {
    "laptop": Machine(cpus=2, memory_bytes=4 * GIB),
    "one core": Machine(cpus=1, memory_bytes=GIB // 2),
    "server": Machine(cpus=64, memory_bytes=512 * GIB),
    "gpu box": Machine(cpus=32, memory_bytes=256 * GIB, gpus=4, gpu_name="NVIDIA A100-SXM4-80GB"),
    "more gpus than cpus": Machine(cpus=4, memory_bytes=64 * GIB, gpus=8, gpu_name="odd: {name}\n# x"),
}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
def test_what_is_written_loads(load: Load, machine: Machine) -> None:
    spec = load(local_cluster_file(machine, name="mine"))
    assert spec.name == "mine"
    assert spec.head_type.resources == Resources()
    names = [one.name for one in spec.policy.node_types]
    assert names == (["cpu", "gpu"] if machine.gpus else ["cpu"])
    for one in spec.policy.node_types:
        assert 1 <= one.resources.units()["CPU"] <= machine.cpus
        assert one.max_workers <= spec.policy.max_workers


def test_workers_of_one_type_fill_the_machine_and_no_more(load: Load) -> None:
    for machine in (MACHINES["laptop"], MACHINES["server"], MACHINES["gpu box"]):
        for one in load(local_cluster_file(machine, name="mine")).policy.node_types:
            assert one.resources.times(one.max_workers).units()["CPU"] == machine.cpus


def test_each_gpu_is_a_worker(load: Load) -> None:
    gpu = load(local_cluster_file(MACHINES["gpu box"], name="mine")).policy.node_type("gpu")
    assert gpu is not None
    assert (gpu.max_workers, gpu.resources.units()) == (4, {"CPU": 8, "GPU": 1})


def test_the_machine_is_named() -> None:
    text = local_cluster_file(MACHINES["gpu box"], name="mine")
    assert "32 CPUs, 256.0 GiB of memory, 4 × NVIDIA A100-SXM4-80GB." in text
    assert ", no GPU." in local_cluster_file(MACHINES["laptop"], name="mine")


@pytest.mark.parametrize("name", ["mine", "no", "on", "null", "yes", "y"])
def test_a_name_stays_a_name(load: Load, name: str) -> None:
    assert load(local_cluster_file(MACHINES["laptop"], name=name)).name == name
