"""What a Slurm site has, and how its commands print it. Pure.

The parsers are strict: text that is not as Slurm prints it raises ValueError, because half
an inventory would call a good node type wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from heliostat.providers.slurm.keys import time_s
from heliostat.providers.slurm.values import Wrong

SEPARATOR = "\x1f"  # Can't be in a feature, a name or a state.
NODE_FIELDS = ("%R", "%D", "%c", "%m", "%G", "%f", "%T")
ASSOCIATION_FIELDS = ("DefaultAccount", "Account", "Partition", "QOS", "DefaultQOS")
CLUSTER_QOS = "normal"  # What Slurm gives the root of all accounts, unless a site changes that.
# A node in one of these takes no job; the signs behind a state say more: * is one that does not answer.
UNUSABLE_STATES = frozenset(
    {"down", "drained", "draining", "drain", "fail", "failing", "error", "unknown", "inval", "future"}
)
NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "(null)", "N/A", "")


@dataclass(frozen=True)
class NodeKind:
    """`count` alike nodes of a partition, of which `usable` take jobs now or when they are free.

    `gpus` has the number by type on each; GPUs without a type are under "".
    """

    cpus: int
    memory_mb: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    count: int = 1
    usable: int = 1

    @property
    def gpu_count(self) -> int:
        return sum(self.gpus.values())


@dataclass(frozen=True)
class Partition:
    """One partition. A limit that is None does not exist; `default_time_s` None: it is `max_time_s`.

    `allow_accounts` and `allow_qos` None mean all of them. `state` is Slurm's word: UP takes and
    starts jobs, DOWN takes them, DRAIN starts what it has, INACTIVE neither. A partition with
    `exclusive` gives whole nodes only; one with `reserved_only` wants a reservation.
    """

    name: str
    state: str = "UP"
    is_default: bool = False
    max_time_s: float = math.inf
    default_time_s: float | None = None
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_mb_per_node: int | None = None
    allow_accounts: frozenset[str] | None = None
    deny_accounts: frozenset[str] = frozenset()
    allow_qos: frozenset[str] | None = None
    deny_qos: frozenset[str] = frozenset()
    exclusive: bool = False
    reserved_only: bool = False
    root_only: bool = False
    priority_tier: int = 1
    kinds: tuple[NodeKind, ...] = ()


@dataclass(frozen=True)
class Association:
    """That a user may use an account, in `partition` or in all (""), with these QOS.

    `is_default`: it is charged where a job names no account.
    """

    account: str
    partition: str = ""
    qos: frozenset[str] = frozenset()
    default_qos: str = ""
    is_default: bool = False

    @property
    def usual_qos(self) -> str:
        """The QOS of a job that names none, as slurmctld chooses it; "" where that is not known."""
        if self.default_qos or len(self.qos) == 1:
            return self.default_qos or min(self.qos)
        return CLUSTER_QOS if CLUSTER_QOS in self.qos else ""


@dataclass(frozen=True)
class Config:
    """What `scontrol show config` says that matters here.

    `enforced` is what accounting enforces (associations, limits, qos, …): empty means that a
    wrong account is accepted. `memory_is_counted`: jobs get a share of a node's memory.
    """

    version: str
    cluster: str
    max_array_size: int
    max_job_count: int
    kill_wait_s: float
    min_job_age_s: float
    message_timeout_s: float
    enforce_part_limits: str
    has_accounting: bool
    enforced: frozenset[str]
    memory_is_counted: bool
    whole_nodes_only: bool

    @property
    def release(self) -> int:
        """Return the release as one number, 2205 of `22.05.8`; 0 where the version is no such thing."""
        found = re.match(r"(\d\d)\.(\d\d)", self.version)
        return int(found[1] + found[2]) if found else 0


def parse_config(text: str) -> Config:
    """Parse `scontrol show config`."""
    rows = (line.partition("=") for line in text.splitlines() if "=" in line)
    values = {key.strip(): value.strip() for key, _, value in rows}
    try:
        enforced = values["AccountingStorageEnforce"].lower()
        return Config(
            version=values["SLURM_VERSION"],
            cluster=values["ClusterName"],
            max_array_size=int(values["MaxArraySize"]),
            max_job_count=int(values["MaxJobCount"]),
            kill_wait_s=_first_number(values["KillWait"]),
            min_job_age_s=_first_number(values["MinJobAge"]),
            message_timeout_s=_first_number(values["MessageTimeout"]),
            enforce_part_limits=values["EnforcePartLimits"].upper(),
            has_accounting=values["AccountingStorageType"].endswith("/slurmdbd"),
            enforced=frozenset() if enforced in {"none", "0"} else frozenset(enforced.split(",")),
            memory_is_counted="MEMORY" in values["SelectTypeParameters"].upper(),
            whole_nodes_only=values["SelectType"] == "select/linear",
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"`scontrol show config` printed something unknown: {error}") from error


def parse_partitions(text: str, kinds: Mapping[str, tuple[NodeKind, ...]]) -> tuple[Partition, ...]:
    """Parse `scontrol show partition --oneliner`, in Slurm's order; `kinds` are of `parse_nodes`."""
    return tuple(_partition(line, kinds) for line in text.splitlines() if line.startswith("PartitionName="))


def parse_nodes(text: str) -> dict[str, tuple[NodeKind, ...]]:
    """Parse what `sinfo` prints in `NODE_FIELDS`: each partition's kinds of nodes, in its order."""
    found: dict[str, dict[tuple[str, ...], NodeKind]] = {}
    for line in text.splitlines():
        fields = [one.strip() for one in line.split(SEPARATOR)]
        if len(fields) != len(NODE_FIELDS):
            raise ValueError(f"`sinfo` printed {len(fields)} fields instead of {len(NODE_FIELDS)}: {line!r}")
        partition, _, *shape, state = fields
        try:
            number, kind = int(fields[1]), _kind(*shape)
        except ValueError as error:
            raise ValueError(f"`sinfo` printed something unknown, {error}: {line!r}") from error
        kinds = found.setdefault(partition, {})
        if number:
            # A row for each state: they are the same kind all the same.
            before = kinds.get(tuple(shape), replace(kind, count=0, usable=0))
            kinds[tuple(shape)] = replace(
                before,
                count=before.count + number,
                usable=before.usable + (number if is_usable(state) else 0),
            )
    return {partition: tuple(kinds.values()) for partition, kinds in found.items()}


def is_usable(state: str) -> bool:
    """Say whether a node in this state, as `sinfo` prints it, takes jobs now or once it is free."""
    word = re.sub(r"[^a-z_].*", "", state.lower())
    return word not in UNUSABLE_STATES and "*" not in state


def parse_associations(text: str) -> tuple[Association, ...]:
    """Parse what `sacctmgr --parsable2` prints in `ASSOCIATION_FIELDS`."""
    found = []
    for line in filter(None, text.splitlines()):
        fields = line.split("|")
        if len(fields) != len(ASSOCIATION_FIELDS):
            raise ValueError(
                f"`sacctmgr` printed {len(fields)} fields instead of {len(ASSOCIATION_FIELDS)}: {line!r}"
            )
        default, account, partition, qos, default_qos = fields
        found.append(Association(account, partition, _names(qos), default_qos, account == default))
    return tuple(found)


def _kind(cpus: str, memory: str, gres: str, features: str) -> NodeKind:
    # Where nodes differ, some versions print the least and a plus.
    return NodeKind(int(cpus.rstrip("+")), int(memory.rstrip("+")), _gpus(gres), _names(features))


def _gpus(gres: str) -> dict[str, int]:
    """Return GPUs by type of `gpu:a100:4(S:0-1),nvme:1`."""
    found: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = one.split(":")
        if name == "gpu":
            number = int(rest.pop()) if rest and rest[-1].isdigit() else 1
            kind = ":".join(rest)
            found[kind] = found.get(kind, 0) + number
    return found


def _partition(line: str, kinds: Mapping[str, tuple[NodeKind, ...]]) -> Partition:
    values = dict(re.findall(r"(\S+?)=(\S*)", line))
    try:
        name = values["PartitionName"]
        return Partition(
            name=name,
            state=values["State"].upper(),
            is_default=values["Default"] == "YES",
            max_time_s=_time_s(values["MaxTime"]) or math.inf,
            default_time_s=_time_s(values["DefaultTime"]),
            max_nodes=_limit(values["MaxNodes"]),
            max_cpus_per_node=_limit(values["MaxCPUsPerNode"]),
            max_memory_mb_per_node=_limit(values.get("MaxMemPerNode", "")),
            allow_accounts=_allowed(values.get("AllowAccounts", "ALL")),
            deny_accounts=_names(values.get("DenyAccounts", "")),
            allow_qos=_allowed(values.get("AllowQos", "ALL")),
            deny_qos=_names(values.get("DenyQos", "")),
            exclusive=values["OverSubscribe"].startswith("EXCLUSIVE"),
            reserved_only=values["ReqResv"] == "YES",
            root_only=values["RootOnly"] == "YES",
            priority_tier=int(values["PriorityTier"]),
            kinds=kinds.get(name, ()),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"`scontrol show partition` printed something unknown, {error}: {line!r}") from error


def _time_s(value: str) -> float | None:
    """Return seconds; infinite for UNLIMITED, None where there is no such time."""
    if value in {"NONE", "(null)", "N/A"}:
        return None
    try:
        return time_s(value)
    except Wrong as error:
        raise ValueError(f"no time: {value!r}") from error


def _limit(value: str) -> int | None:
    return None if value in NO_LIMIT else int(value)


def _allowed(value: str) -> frozenset[str] | None:
    return None if value == "ALL" else _names(value)


def _names(value: str) -> frozenset[str]:
    return frozenset(one for one in value.split(",") if one not in NO_LIMIT)


def _first_number(value: str) -> int:
    return int(value.split(maxsplit=1)[0])
