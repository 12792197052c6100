"""The text of a cluster file for this machine: pure, from what the machine was found to have."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
WORKER_MEMORY_BYTES = GIB
"""What a worker needs at least: Ray's own processes take about 0.4 GiB of it."""

CPU_WORKERS_PREFERRED = 4

RAY_EMPTY = """\
# Ray's own validator wants these even when they are empty; Heliostat does not need them.
file_mounts: {}
cluster_synced_files: []
initialization_commands: []
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
head_start_ray_commands: []
worker_start_ray_commands: []
"""


@dataclass(frozen=True)
class Machine:
    """What was found: whole CPUs, memory in bytes, number of GPUs and the name of the first."""

    cpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_name: str = ""


def local_cluster_file(machine: Machine, *, name: str) -> str:
    """Return a commented cluster file for `machine`, one node type for each sensible shape.

    `name` has passed the rule for `cluster_name`. The head takes no CPU, so that all of
    the machine is for workers; capacity is counted by the backend, so several types may
    name more together than there is.
    """
    cpu_workers = _cpu_workers(machine)
    workers = cpu_workers + machine.gpus
    parts = [
        _top(machine, name=name, workers=workers),
        _cpu_type(machine, workers=cpu_workers),
        _gpu_type(machine) if machine.gpus else "",
        "head_node_type: head\n\n",
        RAY_EMPTY,
    ]
    return "".join(parts)


def _cpu_workers(machine: Machine) -> int:
    by_memory = max(1, machine.memory_bytes // WORKER_MEMORY_BYTES)
    return max(1, min(machine.cpus, CPU_WORKERS_PREFERRED, by_memory))


def _top(machine: Machine, *, name: str, workers: int) -> str:
    gpus = f", {machine.gpus} × {_one_line(machine.gpu_name) or 'GPU'}" if machine.gpus else ", no GPU"
    memory = machine.memory_bytes / GIB
    return f"""\
# A Ray cluster on this machine: {machine.cpus} CPUs, {memory:.1f} GiB of memory{gpus}.
# Workers are processes that come when Ray has work and go when they are idle.
#   heliostat check FILE    is the file right?
#   heliostat up FILE       start it
cluster_name: "{name}"
# Workers of all types together, the head not counted.
max_workers: {workers}
# A worker that has had nothing to do for so long goes.
idle_timeout_minutes: 5

provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends:
    # auto: what this machine has. Write numbers to use less of it.
    local: {{cpus: auto, gpus: auto, memory: auto}}

available_node_types:
  # The head runs Ray's own services and no tasks, so it has no CPU to give.
  head:
    resources: {{CPU: 0}}
    node_config: {{backend: local}}
"""


def _cpu_type(machine: Machine, *, workers: int) -> str:
    cpus = max(1, machine.cpus // workers)
    return f"""\
  # {workers} of these fill the machine.
  cpu:
    resources: {{CPU: {cpus}}}
    min_workers: 0
    max_workers: {workers}
    node_config: {{backend: local}}
"""


def _gpu_type(machine: Machine) -> str:
    cpus = max(1, machine.cpus // machine.gpus)
    return f"""\
  # One GPU each, which no other worker can see.
  gpu:
    resources: {{CPU: {cpus}, GPU: 1}}
    min_workers: 0
    max_workers: {machine.gpus}
    node_config: {{backend: local}}
"""


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
