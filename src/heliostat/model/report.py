"""What `status` says, as plain values: the controller makes it, CLI and page show it.

Every field is JSON-ready; times are Unix seconds, durations end in `_s`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class InstanceReport:
    """One line of `heliostat status`. `state` is an InstanceState's value; `why` says why it came, `detail`
    is the backend's words, `stays` what keeps it: empty while it works, unless it was removed by hand."""

    instance_id: str
    name: str
    node_type: str
    backend: str
    state: str
    since_s: float
    why: str
    stays: str = ""
    detail: str = ""
    slot: str = ""
    host: str = ""
    node_id: str = ""
    idle_s: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    activity: list[str] = field(default_factory=list)
    protected: bool = False
    expected_start_s: float | None = None
    expires_at_s: float | None = None


@dataclass(frozen=True)
class DemandReport:
    """One shape that Ray waits for, or one placement group.

    `verdict`: «waits», «deferred» (a limiter holds back `deferred` of the `count`), «infeasible».
    `resources` are those of one, and of all its bundles together for a group; `gang_id` is the group's
    full id, empty for a shape.
    """

    text: str
    count: int
    waiting_s: float
    verdict: str
    why: str
    deferred: int = 0
    resources: dict[str, float] = field(default_factory=dict)
    gang_id: str = ""


@dataclass(frozen=True)
class TypeReport:
    """`held` says in words why nothing of it is launched until `backoff_until_s`, or few just after."""

    name: str
    backend: str
    alive: int
    running: int
    target: int
    min_workers: int
    max_workers: int
    floor: int = 0
    backoff_until_s: float | None = None
    last_error: str = ""
    held: str = ""


@dataclass(frozen=True)
class FailureReport:
    instance_id: str
    node_type: str
    at_s: float
    error: str
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BackendReport:
    """`breaker` says in words that it is open or half open; empty where it is closed. `listed_s_ago` is 0
    until it has answered once."""

    name: str
    fresh: bool
    listed_s_ago: float
    error: str = ""
    breaker: str = ""


@dataclass(frozen=True)
class StatusReport:
    """`phase`: «starting», «running», «head lost», «going down». `journal` says why it can't be written, so
    that nothing is launched; `version` is the controller's. `autoscaler`: «heliostat», or «ray» where Ray's
    own decides."""

    cluster_name: str
    cluster_uid: str
    phase: str
    address: str
    dashboard_url: str
    session_name: str
    controller_pid: int
    at_s: float
    uptime_s: float
    paused: bool
    cluster_idle_s: float
    head: dict[str, object]
    instances: list[InstanceReport]
    foreign_nodes: int
    node_types: list[TypeReport]
    demands: list[DemandReport]
    next: list[str]
    backends: list[BackendReport]
    failures: list[FailureReport]
    measures: dict[str, dict[str, float]]
    journal: str = ""
    version: str = ""
    autoscaler: str = "heliostat"
