"""What must be remembered between rounds. Losing it costs patience, never correctness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heliostat.model.host_time import HostTime
from heliostat.model.instance import InstanceState
from heliostat.model.resources import Resources


@dataclass(frozen=True)
class Backoff:
    """How a node type has failed lately; nothing of it is launched before `until_s`.

    The last attempt that counted failed at `stepped_at_s`, in the shape `shape_id` (empty: not known).
    `refused`: its backend did not accept it, and has not accepted all of an ask since; `permanent`:
    nor will it, as it is. `as_asked`: the backend itself named the wait.
    """

    failures: int
    until_s: float
    last_error: str
    stepped_at_s: float = 0.0
    shape_id: str = ""
    refused: bool = False
    permanent: bool = False
    as_asked: bool = False

    def waits(self, now_s: float) -> bool:
        """Say whether nothing of the type is launched now. A clock that was set back ends the wait."""
        return self.stepped_at_s <= now_s < self.until_s


@dataclass(frozen=True)
class Breaker:
    """How a backend has refused launches, `failures` calls in a row, with nothing accepted between.

    `node_types` are those that met it. From `opened_at_s` on it is open until `until_s`: nothing is
    launched there. Then, half open, one launch at a time is. None: it is closed. It has opened `trips`
    times since something was accepted. `as_asked`: the backend itself named the wait.
    """

    failures: int = 0
    node_types: frozenset[str] = frozenset()
    last_error: str = ""
    trips: int = 0
    opened_at_s: float | None = None
    until_s: float | None = None
    as_asked: bool = False

    def is_open(self, now_s: float) -> bool:
        """Say whether nothing is launched now. A clock that was set back ends the wait."""
        if self.opened_at_s is None or self.until_s is None:
            return False
        return self.opened_at_s <= now_s < self.until_s

    def is_half_open(self, now_s: float) -> bool:
        return self.until_s is not None and not self.is_open(now_s)


@dataclass(frozen=True)
class Down:
    """So many of a type went down by themselves, or never came up, and were not replaced; the last `at_s`."""

    count: int
    at_s: float


@dataclass(frozen=True)
class Held:
    """Since when something stays for a gang that lacks what is not launched just then, and until when."""

    since_s: float
    last_s: float


@dataclass(frozen=True)
class Failure:
    """One instance that failed, told once: the backend's own words, for `status` and `explain`.

    `began`: it had left the queue. What was refused has not.
    """

    instance_id: str
    node_type: str
    at_s: float
    error: str
    began: bool = False


@dataclass(frozen=True)
class Shares:
    """Amounts of devices (name, amount) that stayed pending through `reports` more reports of a node whose
    `available` devices, which hold them as a sum, did not change."""

    available: Resources
    asked: frozenset[tuple[str, int]]
    reports: int = 0


@dataclass(frozen=True)
class History:
    """A frozen fold of every observation so far; all times in Unix seconds.

    waiting_since  demand (its text) or gang (its id) -> since when Ray has waited for it; of
                   what `request_resources` asks, since when living nodes lack it
    idle_since     node id -> since when every report called it idle
    reports        node id -> how many reports in a row showed the node idle
    first_listed   instance id -> when a fresh listing first had it
    absent_since   instance id -> since when fresh listings lack it, after it was asked for
    joined_at      instance id -> when Ray first showed its node
    states         instance id -> its state in the last round
    backoff        node type -> how it has failed
    breakers       backend -> how it has refused whoever asked
    proven         node type -> the `shape_id` of it that has come up at least once
    start_s        node type -> the last observed times from launch to join, newest last
    failures       the last failures, newest last, at most `FAILURES_KEPT`
    rounds_at_s    when the last round with a readable GCS was
    starting_since instance id -> since when it has been STARTING; it goes on while nobody can see it
    unneeded_since instance id -> since when nothing has needed it, while it is on its way
    outlived_since instance id -> since which listing its backend calls over what Ray shows alive
    shares         node id -> demand for shares of devices that waits although the node's sum has room for it
    held           instance id -> since when it stays for what a gang lacks that is not launched just now
    drained        instance ids that drained, or were idle, when Ray last showed them alive
    prices         node type -> the last known $/h of one instance, where it costs anything
    down           node type -> how many went down lately
    fallen         instance ids that were counted there
    host           how the controller's clock stood to its host's, for the next controller to go on with
    """

    waiting_since: Mapping[str, float] = field(default_factory=dict)
    idle_since: Mapping[str, float] = field(default_factory=dict)
    reports: Mapping[str, int] = field(default_factory=dict)
    first_listed: Mapping[str, float] = field(default_factory=dict)
    absent_since: Mapping[str, float] = field(default_factory=dict)
    joined_at: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, InstanceState] = field(default_factory=dict)
    backoff: Mapping[str, Backoff] = field(default_factory=dict)
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    proven: Mapping[str, str] = field(default_factory=dict)
    start_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    rounds_at_s: float | None = None
    starting_since: Mapping[str, float] = field(default_factory=dict)
    unneeded_since: Mapping[str, float] = field(default_factory=dict)
    outlived_since: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    shares: Mapping[str, Shares] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    down: Mapping[str, Down] = field(default_factory=dict)
    fallen: frozenset[str] = frozenset()
    host: HostTime | None = None

    def has_come_up(self, node_type: str, shape_id: str) -> bool:
        """Say whether this very shape of the type works: one that `apply` has changed is unproven."""
        return self.proven.get(node_type) == shape_id


FAILURES_KEPT = 50
STARTS_KEPT = 10
