"""Whether one node type's job could ever start in one partition. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from heliostat.model.node_type import NodeType
from heliostat.model.resources import SCALE
from heliostat.providers.slurm.inventory import NodeKind, Partition
from heliostat.providers.slurm.options import JobOptions

MIB = 2**20
SHOWN_AT_MOST = 8


class Shortcoming(NamedTuple):
    """The key at fault, and what is wrong in words for people; `may_pass`: the site may cure it by itself."""

    key: str
    words: str
    may_pass: bool = False


Demand = tuple[Shortcoming, Callable[[NodeKind], bool]]
"""What is wrong where no node meets a demand, and whether a kind of node does."""

WAITING_STATES = {
    "DOWN": "is down: jobs wait in it until an administrator brings it up",
    "DRAIN": "is drained: it takes no new jobs",
    "INACTIVE": "is inactive: it takes no jobs",
}


@dataclass(frozen=True)
class Need:
    """What a job of a node type asks for on each of its nodes. `memory_mb` None: it is not asked for."""

    cpus: int
    memory_mb: int | None
    gpus: int
    gpu_type: str | None
    constraint: str | None
    whole_node: bool


def need_of(node_type: NodeType, job: JobOptions) -> Need:
    """Return what `sbatch` is asked for."""
    cpus = job.cpus_per_task or max(1, math.ceil(node_type.resources.get("CPU") / SCALE))
    memory = job.memory_bytes or _memory_bytes(node_type)
    return Need(
        cpus=cpus,
        memory_mb=math.ceil(memory / MIB) if memory and job.memory_request else None,
        gpus=0 if job.gpu_request == "none" else math.ceil(node_type.resources.get("GPU") / SCALE),
        gpu_type=job.gpu_type,
        constraint=job.constraint,
        whole_node=bool(job.exclusive),
    )


def shortcomings(need: Need, job: JobOptions, partition: Partition) -> list[Shortcoming]:
    """Return why a job would never start in the partition, whoever asks; empty if it may."""
    return [*_of_partition(job, partition), *_of_time(job, partition), *_of_nodes(need, partition)]


def fits(need: Need, kind: NodeKind, partition: Partition) -> bool:
    """Say whether such a job fits on one of these nodes when it is empty."""
    return all(is_met(kind) for _, is_met in _demands(need, partition))


def jobs_on(need: Need, kind: NodeKind, partition: Partition) -> int:
    """Return how many such jobs fit beside one another on one of these nodes."""
    if not fits(need, kind, partition):
        return 0
    if need.whole_node or partition.exclusive:
        return 1
    rooms = [_most_cpus(kind, partition) // need.cpus]
    if need.memory_mb:
        rooms.append(kind.memory_mb // need.memory_mb)
    if need.gpus:
        rooms.append(_gpus_for(need, kind) // need.gpus)
    return min(rooms)


def meant(found: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` where one of `known` is near."""
    near = difflib.get_close_matches(found, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def listed(names: Iterable[str]) -> str:
    """Return names for a sentence, the first few of them."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN_AT_MOST} more" if len(every) > SHOWN_AT_MOST else ""
    return (", ".join(every[:SHOWN_AT_MOST]) + more) or "none"


def slurm_time(seconds: float) -> str:
    """Return a time as Slurm writes it: `1-12:00:00`."""
    if not math.isfinite(seconds):
        return "UNLIMITED"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hour:02}:{minute:02}:{second:02}"


def features_in(constraint: str) -> set[str]:
    """Return the features that a constraint such as `ib&[rack1|rack2]*2` names."""
    return {one for one in re.split(r"[&|,!()\[\]]|\*\d+", constraint) if one.strip()}


def _memory_bytes(node_type: NodeType) -> int:
    names = ("memory", "object_store_memory")
    return sum(node_type.resources.get(name) for name in names) // SCALE


def _of_partition(job: JobOptions, partition: Partition) -> Iterator[Shortcoming]:
    if partition.state != "UP":
        words = WAITING_STATES.get(partition.state, f"is {partition.state}")
        yield Shortcoming("partition", f"{partition.name} {words}", may_pass=True)
    if partition.reserved_only and job.reservation is None:
        yield Shortcoming("reservation", f"partition {partition.name} takes only jobs with a reservation")
    if partition.root_only:
        yield Shortcoming("partition", f"{partition.name} is for root's jobs only")
    if not partition.kinds:
        yield Shortcoming("partition", f"{partition.name} has no nodes")


def _of_time(job: JobOptions, partition: Partition) -> Iterator[Shortcoming]:
    for key, asked in (("time_limit", job.time_limit_s), ("time_min", job.time_min_s)):
        if asked is not None and asked > partition.max_time_s:
            most = slurm_time(partition.max_time_s)
            words = f"{slurm_time(asked)} is more than partition {partition.name} allows, {most}"
            yield Shortcoming(key, words)


def _of_nodes(need: Need, partition: Partition) -> Iterator[Shortcoming]:
    if not partition.kinds:
        return
    unmet = [
        shortcoming
        for shortcoming, is_met in _demands(need, partition)
        if not any(map(is_met, partition.kinds))
    ]
    fitting = [kind for kind in partition.kinds if fits(need, kind, partition)]
    if unmet:
        yield from unmet
    elif not fitting:
        kinds = "; ".join(kind_words(kind) for kind in partition.kinds)
        words = f"no node of partition {partition.name} has all of it at once; it has {kinds}"
        yield Shortcoming("resources", words)
    elif not any(kind.usable for kind in fitting):
        count = sum(kind.count for kind in fitting)
        words = f"no node of {partition.name} that fits is up now (of {count})"
        yield Shortcoming("partition", words, may_pass=True)


def kind_words(kind: NodeKind) -> str:
    """Return a kind of node for people: `2 nodes with 8 CPUs, 8000 MB, 2 GPUs (a100), ib`."""
    gpus = f", {kind.gpu_count} GPUs ({listed(filter(None, kind.gpus)) or 'no type'})" if kind.gpus else ""
    features = f", {listed(kind.features)}" if kind.features else ""
    nodes = "1 node" if kind.count == 1 else f"{kind.count} nodes"
    return f"{nodes} with {kind.cpus} CPUs, {kind.memory_mb} MB{gpus}{features}"


def _demands(need: Need, partition: Partition) -> Iterator[Demand]:
    """Yield each demand on a node of the partition, which has some."""
    place = f"partition {partition.name}"
    most_cpus = max(_most_cpus(kind, partition) for kind in partition.kinds)
    words = f"no node of {place} gives {need.cpus} CPUs to a job, the largest gives {most_cpus}"
    yield Shortcoming("resources.CPU", words), lambda kind: _most_cpus(kind, partition) >= need.cpus
    memory_mb = need.memory_mb
    if memory_mb is not None:
        most_mb = max(_most_mb(kind, partition) for kind in partition.kinds)
        words = f"no node of {place} gives {memory_mb} MB to a job, the largest gives {most_mb}"
        yield Shortcoming("resources.memory", words), lambda kind: _most_mb(kind, partition) >= memory_mb
    if need.gpus:
        yield _gpu_demand(need, partition)
    if need.constraint:
        yield _constraint_demand(need.constraint, partition)


def _gpu_demand(need: Need, partition: Partition) -> Demand:
    types = {name for kind in partition.kinds for name in kind.gpus if name}
    most = max(_gpus_for(need, kind) for kind in partition.kinds)
    if need.gpu_type and most == 0:
        words = f"no {need.gpu_type} in partition {partition.name}{meant(need.gpu_type, types)}"
        lacking = Shortcoming("gpu_type", f"{words}; it has {listed(types)}")
        return lacking, lambda kind: _gpus_for(need, kind) > 0
    what = f"{need.gpu_type} GPUs" if need.gpu_type else "GPUs"
    words = f"no node of partition {partition.name} has {need.gpus} {what}, the largest has {most or 'none'}"
    return Shortcoming("resources.GPU", words), lambda kind: _gpus_for(need, kind) >= need.gpus


def _constraint_demand(constraint: str, partition: Partition) -> Demand:
    known = {name for kind in partition.kinds for name in kind.features}
    unknown = sorted(features_in(constraint) - known)
    words = f"no node of partition {partition.name} has {listed(unknown or [constraint])}"
    hint = meant(unknown[0], known) if unknown else ""
    lacking = Shortcoming("constraint", f"{words}{hint}; it has {listed(known)}")
    return lacking, lambda kind: _has(kind, constraint)


def _has(kind: NodeKind, constraint: str) -> bool:
    """Say whether a node may be part of what a constraint means; one with brackets is not worked out."""
    if re.search(r"[\[\]()*!]", constraint):
        return True
    return any(
        all(name.strip() in kind.features for name in re.split("[&,]", part))
        for part in constraint.split("|")
    )


def _most_cpus(kind: NodeKind, partition: Partition) -> int:
    return min(kind.cpus, partition.max_cpus_per_node or kind.cpus)


def _most_mb(kind: NodeKind, partition: Partition) -> int:
    return min(kind.memory_mb, partition.max_memory_mb_per_node or kind.memory_mb)


def _gpus_for(need: Need, kind: NodeKind) -> int:
    return kind.gpus.get(need.gpu_type, 0) if need.gpu_type else kind.gpu_count
