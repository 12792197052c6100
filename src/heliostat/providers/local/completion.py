"""The memory of a node type that does not say it: a share of the machine by its CPUs. Pure.

    share               = CPU of the type / CPUs of the machine, at most 1;
                          5 % for a type without CPU
    memory              = share × 60 % of the machine's memory
    object_store_memory = share × 30 % of it, or share × 95 % of /dev/shm if that is less,
                          and never below Ray's least, 75 MiB; what that adds, and
                          what the type itself says beyond 30 %, is taken from memory

The 30 % are Ray's own default; 10 % stay with the system. Bytes are whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heliostat.model.node_type import NodeType
from heliostat.model.resources import SCALE, Resources
from heliostat.ports.errors import InvalidRequest, ProviderError
from heliostat.providers.local.inventory import Machine
from heliostat.providers.local.options import parse_bytes
from heliostat.providers.local.room import ASKED_FOR, Holder, Room

MEMORY_PART = 0.6
OBJECT_STORE_PART = 0.3
SHM_PART = 0.95
SHARE_WITHOUT_CPU = 0.05
MEMORY_LEAST_BYTES = 2**20  # With none at all Ray would count the whole machine's.
OBJECT_STORE_LEAST_BYTES = 75 * 2**20  # Ray refuses to start with less.


def complete_type(node_type: NodeType, machine: Machine) -> NodeType:
    """Return the type with `memory` and `object_store_memory`; what it says itself stands."""
    units = node_type.resources.units()
    share = min(1.0, units.get("CPU", 0) / machine.cpus) or SHARE_WITHOUT_CPU
    if "object_store_memory" not in units:
        units["object_store_memory"] = _object_store(node_type.options, share, machine)
    if "memory" not in units:
        units["memory"] = _memory(share, machine, int(units["object_store_memory"]))
    return replace(node_type, resources=Resources.of(units))


def _memory(share: float, machine: Machine, object_store: int) -> int:
    both = (MEMORY_PART + OBJECT_STORE_PART) * machine.memory_bytes
    heap = min(share * MEMORY_PART * machine.memory_bytes, share * both - object_store)
    return max(MEMORY_LEAST_BYTES, int(heap))


def _object_store(options: Mapping[str, object], share: float, machine: Machine) -> int:
    if options.get("object_store_memory") is not None:
        return _declared_object_store(options["object_store_memory"])
    most = min(OBJECT_STORE_PART * machine.memory_bytes, SHM_PART * machine.shm_bytes)
    return max(OBJECT_STORE_LEAST_BYTES, int(share * most))


def _declared_object_store(value: object) -> int:
    size = parse_bytes(value)
    if size is None:
        raise InvalidRequest(
            f'object_store_memory is {value!r}; allowed: a number of bytes, or a size such as "1GiB"'
        )
    return size


def misfits(node_types: Sequence[NodeType], room: Room) -> list[str]:
    """Return what would go wrong with these types on this machine, a sentence each.

    Each type must fit by itself beside the head; then every type's `min_workers` together.
    """
    problems: list[str] = []
    for node_type in node_types:
        wanted = node_type.resources
        _, error = room.how_many(wanted, 1)
        if error is not None:
            problems.append(f"{node_type.name}: {error}")
        store = wanted.get("object_store_memory") // SCALE
        shm = room.machine.shm_bytes
        if store > shm > 0:
            problems.append(
                f"{node_type.name}: its object store of {store} bytes is larger than /dev/shm ({shm} bytes)"
            )
    return problems or _minimum_misfits(node_types, room)


def _minimum_misfits(node_types: Sequence[NodeType], room: Room) -> list[str]:
    for node_type in node_types:
        for index in range(node_type.min_workers):
            try:
                gpus = room.place(node_type.resources)
            except ProviderError as error:
                return [
                    f"{node_type.name}: only {index} of its min_workers {node_type.min_workers} fit: {error}"
                ]
            room = room.with_holder(Holder(ASKED_FOR, node_type.resources, gpus))
    return []
