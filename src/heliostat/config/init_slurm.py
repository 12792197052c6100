"""The text of a cluster file for a Slurm site: pure, from what the site was found to have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heliostat.config.init_local import RAY_EMPTY

WORKER_CPUS = 8
"""What a worker without GPUs takes of a node: enough for most tasks, little enough to start soon."""

WORKERS_AT_MOST = 10
TIME_LIMIT_S = 4 * 3600.0
"""Long enough to be worth a start, short enough to be started soon by a backfill scheduler."""

HEAD_TIME_LIMIT_S = 24 * 3600.0
HEAD_MEMORY_MB = 4096
SHORT_S = 1800.0
TYPES_AT_MOST = 16
FOR_TRIALS = re.compile(r"debug|devel|test|interactive|express|short|quick|admin", re.IGNORECASE)
MIB_OF_A_GIB = 1024


@dataclass(frozen=True)
class Nodes:
    """`count` alike nodes that jobs may use; `gpu_type` "" where the site names none."""

    cpus: int
    memory_mb: int
    count: int
    gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True)
class Place:
    """A partition. `trouble`: why no job of this user would start in it, "" if it would.

    `account` is what the partition wants, if it is choosy.
    """

    name: str
    nodes: tuple[Nodes, ...] = ()
    is_default: bool = False
    max_time_s: float = math.inf
    whole_nodes: bool = False
    account: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class FoundSite:
    """What was found. `interfaces` are (name, address) of this host; `ssh` the host asked, "" for this one.

    `memory_is_counted` false: Slurm gives jobs CPUs and no share of memory.
    """

    cluster: str
    version: str
    places: tuple[Place, ...]
    accounts: tuple[str, ...] = ()
    interfaces: tuple[tuple[str, str], ...] = ()
    ssh: str = ""
    memory_is_counted: bool = True


@dataclass(frozen=True)
class _Type:
    """One node type to be: a share of one kind of node. `why_not`: why it is only a comment."""

    name: str
    place: Place
    nodes: Nodes
    cpus: int
    gpus: int
    workers: int
    why_not: str


def slurm_cluster_file(site: FoundSite, *, name: str) -> str:
    """Return a commented cluster file, one node type for each sensible partition and kind of GPU.

    `name` has passed the rule for `cluster_name`. The default partition comes first; what is
    for short trials, or takes no job now, comes last and as a comment. ValueError if no
    partition would take a job.
    """
    types = _types(site)
    shown = types[:TYPES_AT_MOST]
    workers = sum(one.workers for one in shown if not one.why_not)
    if not workers:
        said = "; ".join(f"{place.name}: {place.trouble or 'no node of it is up'}" for place in site.places)
        raise ValueError(f"no partition would take a job now: {said or 'there is none'}")
    more = len(types) - len(shown)
    parts = [
        _top(site, types, name=name, workers=workers),
        *(_entry(one, site) for one in shown),
        f"  # And {more} more, which `scontrol show partition` lists.\n\n" if more else "",
        "head_node_type: head\n\n",
        RAY_EMPTY,
    ]
    return "".join(parts)


def _types(site: FoundSite) -> list[_Type]:
    """Return what could be started, what is best first; each has a name of its own."""
    places = sorted(site.places, key=lambda place: not place.is_default)
    found = [one for place in places for one in _types_of(place)]
    found.sort(key=lambda one: bool(one.why_not))
    names: set[str] = {"head"}
    named = []
    for one in found:
        free = next(name for name in _names_like(one.name) if name not in names)
        names.add(free)
        named.append(replace(one, name=free))
    return named


def _types_of(place: Place) -> Iterator[_Type]:
    """Yield one type for the nodes without GPUs, and one for each kind of GPU."""
    without = [nodes for nodes in place.nodes if not nodes.gpus]
    if without:
        yield _type(place, without, name=place.name)
    for gpu_type in dict.fromkeys(nodes.gpu_type for nodes in place.nodes if nodes.gpus):
        alike = [nodes for nodes in place.nodes if nodes.gpus and nodes.gpu_type == gpu_type]
        yield _type(place, alike, name=f"{place.name}-{gpu_type or 'gpu'}")


def _type(place: Place, alike: Sequence[Nodes], *, name: str) -> _Type:
    """Return a type for the most frequent of these nodes: a GPU and its share, or some CPUs."""
    nodes = max(alike, key=lambda one: one.count)
    gpus = 1 if nodes.gpus else 0
    on_one = nodes.gpus or max(1, nodes.cpus // min(WORKER_CPUS, nodes.cpus))
    cpus = max(1, nodes.cpus // nodes.gpus) if nodes.gpus else min(WORKER_CPUS, nodes.cpus)
    if place.whole_nodes:
        gpus, cpus, on_one = nodes.gpus, nodes.cpus, 1
    workers = min(WORKERS_AT_MOST, nodes.count * on_one)
    label = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "worker"
    return _Type(label, place, nodes, cpus, gpus, workers, _why_not(place, workers))


def _why_not(place: Place, workers: int) -> str:
    if place.trouble:
        return place.trouble
    if not workers:
        return "no node of it is up now"
    if place.max_time_s < SHORT_S:
        return f"for trials: jobs end after {_minutes(place.max_time_s)} minutes"
    if FOR_TRIALS.search(place.name) and not place.is_default:
        return "for trials, to judge by its name"
    return ""


def _names_like(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in range(2, 1000))


def _top(site: FoundSite, types: Sequence[_Type], *, name: str, workers: int) -> str:
    where = f" through {site.ssh}" if site.ssh else ""
    return f"""\
# A Ray cluster on the Slurm site {_one_line(site.cluster)} (Slurm {_one_line(site.version)}{where}).
# {len(site.places)} partitions were found. Those that take jobs now have node types, the default first.
# The head runs where `heliostat up` is called. Workers are jobs: they come when Ray has
# work, and go when they are idle or their time is over.
#   heliostat check FILE    is the file right, and does it fit this site?
#   heliostat up FILE       start it
cluster_name: "{name}"
# Workers of all types together, the head not counted.
max_workers: {workers}
# A worker that has had nothing to do for so long goes.
idle_timeout_minutes: 5
# Ray would ask for five at a time until some run; a queue is where to wait, so all are asked for at once.
upscaling_speed: 0

provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends:
    local: {{}}
    # What all jobs have in common; a node_config may say otherwise.
    slurm:
{_section(site)}
available_node_types:
  # The head runs Ray's own services and no tasks, so it has no CPU to give.
  head:
    resources: {{CPU: 0}}
    node_config: {{backend: local}}
{_head_as_job(site, types[0].place)}
"""


def _head_as_job(site: FoundSite, place: Place) -> str:
    """Return how the head would be a job, as a comment: many sites end what runs long on a login node."""
    if site.ssh:
        # Its files must be on a file system that its node sees, which this host's may not be.
        return ""
    keys = {"backend": "slurm", "partition": _quoted(place.name)}
    keys |= {"account": _quoted(place.account)} if place.account else {}
    keys |= {"time_limit": f'"{_time(min(place.max_time_s, HEAD_TIME_LIMIT_S))}"'}
    most_mb = max((nodes.memory_mb for nodes in place.nodes), default=0)
    keys |= {"memory": _size(min(HEAD_MEMORY_MB, most_mb), sign="")} if site.memory_is_counted else {}
    listed = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"""\
    # Where nothing may run for long on a login node, the head can be a job; its time limit is the cluster's.
    # node_config: {{{listed}}}
"""


def _section(site: FoundSite) -> str:
    lines = [f"      ssh: {_quoted(site.ssh)}"] if site.ssh else []
    lines += _network_lines(site)
    accounts = ", ".join(map(_one_line, site.accounts))
    yours = (
        f"  # yours: {accounts}" if accounts else "  # whom the time is charged to, if your default is wrong"
    )
    account = _quoted(site.accounts[0]) if site.accounts else "project"
    lines += [
        f"      # account: {account}{yours}",
        "      # What runs in each job before Ray, where Python is not on every node's PATH as it is here.",
        "      # setup: [module load python]",
        "      # A folder that all nodes share, for logs, if your home folder is none.",
        "      # work_dir: /shared/me",
        "      # Slurm's default for everything else; any option of sbatch may be given.",
        "      # sbatch: [--mail-type=FAIL]",
    ]
    return "\n".join(lines) + "\n"


def _network_lines(site: FoundSite) -> list[str]:
    """Return the lines on the network: a fast one is taken, the others are named."""
    there = [(name, address) for name, address in site.interfaces if not address.startswith("127.")]
    fast = [name for name, _ in there if name.startswith("ib")]
    known = ", ".join(f"{name} ({address})" for name, address in there)
    lines = ["      # The network on which head and workers meet, an interface or a CIDR."]
    lines += [f"      # This host has: {known}"] if known else []
    return [*lines, f"      network: {fast[0]}" if fast else "      # network: ib0"]


def _entry(one: _Type, site: FoundSite) -> str:
    """Return one node type's lines, as comments where it should not be used as it is."""
    gpu = f", GPU: {one.gpus}" if one.gpus else ""
    lines = [
        f"  {_quoted(one.name)}:" if _is_odd(one.name) else f"  {one.name}:",
        f"    resources: {{CPU: {one.cpus}{gpu}}}",
        "    min_workers: 0",
        f"    max_workers: {one.workers}",
        "    node_config:",
        "      backend: slurm",
        *(f"      {line}" for line in _job_lines(one, site)),
    ]
    if one.why_not:
        lines = [f"  # {line[2:]}" for line in lines]
    return "\n".join([*_remarks(one), *lines, "", ""])


def _remarks(one: _Type) -> list[str]:
    nodes = one.nodes
    gpus = f", {nodes.gpus} × {_one_line(nodes.gpu_type) or 'GPU'}" if nodes.gpus else ""
    count = f"{nodes.count} nodes" if nodes.count != 1 else "1 node"
    has = f"{count} of {nodes.cpus} CPUs, {_size(nodes.memory_mb)}{gpus}"
    default = ", the default" if one.place.is_default else ""
    lines = [f"  # Partition {_one_line(one.place.name)}{default}: {has}."]
    lines += ["  # It gives whole nodes only."] if one.place.whole_nodes else []
    return [*lines, f"  # Left out, {_one_line(one.why_not)}:"] if one.why_not else lines


def _job_lines(one: _Type, site: FoundSite) -> Iterator[str]:
    place, nodes = one.place, one.nodes
    yield f"partition: {_quoted(place.name)}"
    if place.account:
        yield f"account: {_quoted(place.account)}"
    yield f'time_limit: "{_time(min(place.max_time_s, TIME_LIMIT_S))}"'
    memory_mb = nodes.memory_mb * one.cpus // max(1, nodes.cpus)
    if nodes.gpus:
        memory_mb = nodes.memory_mb * one.gpus // nodes.gpus
    if site.memory_is_counted and memory_mb:
        yield f"memory: {_size(memory_mb, sign='')}"
    if nodes.gpu_type:
        yield f"gpu_type: {_quoted(nodes.gpu_type)}"


def _size(megabytes: int, *, sign: str = " ") -> str:
    """Return Slurm's megabytes, which are MiB, rounded down to whole GiB where that loses little."""
    if megabytes >= 16 * MIB_OF_A_GIB:
        return f"{megabytes // MIB_OF_A_GIB}{sign}GiB"
    return f"{megabytes}{sign}MiB"


def _time(seconds: float) -> str:
    minutes = _minutes(seconds)
    return f"{minutes // 60:02}:{minutes % 60:02}:00"


def _minutes(seconds: float) -> int:
    return max(1, int(seconds // 60))


def _is_odd(name: str) -> bool:
    """Say whether YAML could take a bare name for something else."""
    return not re.fullmatch(r"[a-z][a-z0-9._-]*", name) or name in {
        "y",
        "n",
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
    }


def _quoted(text: str) -> str:
    escaped = _one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
