"""What this machine has: parsers of what the system says (pure), and one place that asks it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.model.resources import SCALE, Resources
from heliostat.ports.errors import InvalidRequest, Unavailable
from heliostat.providers.local.options import LocalOptions

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader")
NVIDIA_SMI_DEADLINE_S = 10.0
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
CGROUP_ROOT = Path("/sys/fs/cgroup")
SHM = "/dev/shm"
NO_LIMIT_BYTES = 2**60  # cgroup v1 says «no limit» as a number near 2**63.


@dataclass(frozen=True)
class Machine:
    """What workers and head may use of this machine together."""

    cpus: int
    memory_bytes: int
    shm_bytes: int


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi. `memory_bytes` is 0 where the driver does not say."""

    index: int
    uuid: str
    memory_bytes: int = 0
    name: str = ""


# Parsers.


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Read `index, uuid, memory.total, name` lines; anything else in between is left out."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",", 3)]
        if len(fields) == 4 and fields[0].isdigit():
            mebibytes = re.match(r"(\d+) MiB", fields[2])
            size = int(mebibytes[1]) * 2**20 if mebibytes else 0
            found.append(Gpu(int(fields[0]), fields[1], size, fields[3]))
    return tuple(sorted(found, key=lambda gpu: gpu.index))


def parse_driver_information(texts: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Read the driver's `information` files by PCI address, in whose order GPUs are numbered."""
    gpus = []
    for index, (_, text) in enumerate(sorted(texts.items())):
        fields = dict(re.findall(r"^([\w .]+?):\s*(.*?)\s*$", text, re.MULTILINE))
        gpus.append(Gpu(index, fields.get("GPU UUID", ""), 0, fields.get("Model", "")))
    return tuple(gpus)


def parse_visible_devices(value: str | None) -> tuple[str, ...] | None:
    """Return the entries of CUDA_VISIBLE_DEVICES; None if it is not set, empty if it hides all."""
    if value is None:
        return None
    entries = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    if not entries or entries[0] in ("-1", "NoDevFiles", "none", "void"):
        return ()
    # CUDA stops at the first entry that is no device.
    return entries[: entries.index("-1")] if "-1" in entries else entries


def usable_gpus(found: Sequence[Gpu], visible: Sequence[str] | None) -> tuple[str, ...]:
    """Return the ids to hand out: those found, within what an outer CUDA_VISIBLE_DEVICES allows.

    UUIDs and MIG devices named there pass through as they are; a number that is no GPU
    hides what comes after it, as in CUDA.
    """
    if visible is None:
        return tuple(str(gpu.index) for gpu in found)
    indexes = {gpu.index for gpu in found}
    kept: list[str] = []
    for entry in visible:
        if entry.isdigit() and int(entry) not in indexes:
            break
        if entry not in kept:
            kept.append(entry)
    return tuple(kept)


def declared_gpus(declared: int | Sequence[str], visible: Sequence[str] | None) -> tuple[str, ...]:
    """Return declared ids as they are; of a declared number, the first that are visible."""
    if not isinstance(declared, int):
        return tuple(declared)
    if visible:
        return tuple(visible[:declared])
    return tuple(map(str, range(declared)))


def head_gpus(gpus: Sequence[str], head_resources: Mapping[str, float]) -> tuple[str, ...]:
    """Return the GPUs that the head gets: the first ones; InvalidRequest if there are too few."""
    scaled = Resources.of({"GPU": head_resources.get("GPU", 0)}).get("GPU")
    wanted = -(-scaled // SCALE)
    if wanted > len(gpus):
        has = len(gpus) or "none"
        raise InvalidRequest(f"the head asks for {wanted} GPU(s), this machine has {has}")
    return tuple(gpus[:wanted])


def parse_meminfo(text: str) -> int:
    """Return MemTotal of /proc/meminfo in bytes; 0 if it is not there."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def parse_cgroup_paths(text: str) -> dict[str, str]:
    """Return controller -> path of /proc/self/cgroup; version 2 has the one controller ``""``."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            paths.update(dict.fromkeys(fields[1].split(","), fields[2]))
    return paths


def parse_cpu_max(text: str) -> float | None:
    """Return the CPUs of cgroup v2's `cpu.max` («quota period»); None for no limit."""
    fields = text.split()
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit():
        return None
    return int(fields[0]) / int(fields[1]) if int(fields[1]) else None


def parse_cpu_quota(quota: str, period: str) -> float | None:
    """Return the CPUs of cgroup v1's quota and period; None for no limit (-1)."""
    return parse_cpu_max(f"{quota.strip()} {period.strip()}")


def parse_memory_limit(text: str) -> int | None:
    """Return the bytes of v2's `memory.max` or v1's `memory.limit_in_bytes`; None for no limit."""
    value = text.strip()
    return int(value) if value.isdigit() and int(value) < NO_LIMIT_BYTES else None


def whole_cpus(affinity: int, limits: Sequence[float]) -> int:
    """Return how many whole CPUs a process may use, one at least."""
    return max(1, int(min([float(affinity), *limits])))


# The one place that asks the system.


def read_machine(options: LocalOptions) -> Machine:
    """Ask for CPUs, memory and shared memory. Takes about a millisecond."""
    paths = parse_cgroup_paths(_text(Path("/proc/self/cgroup")))
    affinity = len(os.sched_getaffinity(0))
    cpus = options.cpus or whole_cpus(affinity, _cgroup_cpus(paths))
    sizes = [parse_meminfo(_text(Path("/proc/meminfo"))), *_cgroup_memory(paths)]
    memory_bytes = options.memory_bytes or min(size for size in sizes if size)
    return Machine(cpus, memory_bytes, _shm_bytes())


def read_gpus(options: LocalOptions, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs that may be handed out, asking nvidia-smi or the driver unless declared.

    Blocks for `NVIDIA_SMI_DEADLINE_S` at most; raises Unavailable when nvidia-smi hangs.
    """
    visible = parse_visible_devices(environment.get("CUDA_VISIBLE_DEVICES"))
    if options.gpus is not None:
        return declared_gpus(options.gpus, visible)
    return usable_gpus(_found_gpus(), visible)


def _found_gpus() -> tuple[Gpu, ...]:
    try:
        done = subprocess.run(
            NVIDIA_SMI,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=NVIDIA_SMI_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"nvidia-smi did not answer within {NVIDIA_SMI_DEADLINE_S:g} s; "
            "declare the GPUs with provider.backends.local.gpus, or mend the driver"
        ) from error
    except OSError:
        return _driver_gpus()
    return parse_nvidia_smi(done.stdout) if done.returncode == 0 else _driver_gpus()


def _driver_gpus() -> tuple[Gpu, ...]:
    try:
        folders = list(DRIVER_FOLDER.iterdir())
    except OSError:
        return ()
    return parse_driver_information({one.name: _text(one / "information") for one in folders})


def _cgroup_cpus(paths: Mapping[str, str]) -> list[float]:
    """Return every CPU limit that holds for this process, its ancestors' included."""
    limits = [parse_cpu_max(_text(one / "cpu.max")) for one in _ancestors(CGROUP_ROOT, paths.get(""))]
    limits += [
        parse_cpu_quota(_text(one / "cpu.cfs_quota_us"), _text(one / "cpu.cfs_period_us"))
        for one in _ancestors(CGROUP_ROOT / "cpu", paths.get("cpu"))
    ]
    return [limit for limit in limits if limit]


def _cgroup_memory(paths: Mapping[str, str]) -> list[int]:
    limits = [parse_memory_limit(_text(one / "memory.max")) for one in _ancestors(CGROUP_ROOT, paths.get(""))]
    limits += [
        parse_memory_limit(_text(one / "memory.limit_in_bytes"))
        for one in _ancestors(CGROUP_ROOT / "memory", paths.get("memory"))
    ]
    return [limit for limit in limits if limit]


def _ancestors(root: Path, path: str | None) -> list[Path]:
    """Return the folders of a cgroup and of all above it; inside a container some are not there."""
    if path is None:
        return []
    leaf = Path(os.path.normpath(f"{root}/{path.lstrip('/')}"))
    inside = leaf if leaf.is_relative_to(root) else root
    return [inside, *(one for one in inside.parents if one.is_relative_to(root))]


def _text(path: Path) -> str:
    """Return a small file's text; empty where there is none to read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _shm_bytes() -> int:
    try:
        stat = os.statvfs(SHM)
    except OSError:
        return 0
    return stat.f_frsize * stat.f_blocks
