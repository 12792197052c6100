"""What a group needs of a cluster, and the values that go between them.

The only implementation that is shipped is `ray_cluster`. Handles of Ray's go through as they are: nobody
else looks into them. Expected failures are values here (`Answer`, `Death`), not exceptions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Recipe:
    """What each member is made of."""

    actor_class: Any
    bundle: Mapping[str, float]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    actor_options: Mapping[str, Any] = field(default_factory=dict)
    label_selector: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a call: exactly one of a value, an error of the method's own, or a loss."""

    value: Any = None
    error: BaseException | None = None
    lost: str | None = None
    """Why there will be no answer: the actor or its node is gone."""
    unsure: bool = False
    """Of a loss: it may have been the node or the network as well as the work."""


@dataclass(frozen=True)
class Death:
    why: str
    with_node: bool = False
    """Its node is gone, too: the actor is not to blame."""


@dataclass(frozen=True)
class Spot:
    """Where a placement group has its bundle."""

    node_id: str
    node_ip: str


@dataclass(frozen=True)
class Watch:
    """What `Cluster.look` looks at, each by the seat it belongs to."""

    places: Mapping[str, Any] = field(default_factory=dict)
    """Placement groups that wait."""
    calls: Mapping[str, Any] = field(default_factory=dict)
    actors: Mapping[str, Any] = field(default_factory=dict)
    starting: frozenset[str] = frozenset()
    """Seats whose calls are answered when their actors are up. An actor does not move after that."""


@dataclass(frozen=True)
class Facts:
    """What is so just now, by the names of the `Watch`."""

    now_s: float
    placed: Mapping[str, Spot] = field(default_factory=dict)
    answered: Mapping[str, Answer] = field(default_factory=dict)
    spots: Mapping[str, Spot] = field(default_factory=dict)
    """Where those are that were starting and are up: a placement group may have moved meanwhile."""
    dead: Mapping[str, Death] = field(default_factory=dict)
    """Actors that are, and placement groups that somebody else has removed."""
    draining: Mapping[str, float] = field(default_factory=dict)
    """Node ids, each with the seconds until its deadline; infinity where it has none."""


@dataclass(frozen=True)
class Room:
    """What a node that does not drain has free."""

    node_id: str
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


class Meter(Protocol):
    """The group's figures for Prometheus."""

    def show(self, name: str, value: float) -> None:
        """Set what goes up and down."""
        ...

    def add(self, name: str, value: float) -> None:
        """Add to what only grows; zero is nothing."""
        ...


class Cluster(Protocol):
    """Each method returns soon, but for `wait`, which has a limit."""

    def now_s(self) -> float:
        """Return seconds that never jump."""
        ...

    def connect(self) -> None:
        """Make sure that there is a cluster to ask; raise GroupError where there can't be one."""
        ...

    def run_id(self) -> str:
        """Return a short id, unlike any other group's that ever was on this cluster."""
        ...

    def look(self, watch: Watch) -> Facts:
        """Return what is so just now, at the cost of about one call however many are watched."""
        ...

    def wait(self, calls: Mapping[str, Any], *, timeout_s: float) -> dict[str, Answer]:
        """Wait until at least one call is answered, or the time is over; return all that are."""
        ...

    def pause(self, watch: Watch, *, timeout_s: float) -> None:
        """Wait until a call is answered or a placement group has its place, or the time is over."""
        ...

    def ask(self, name: str, recipe: Recipe) -> Any:
        """Make a placement group of one bundle, and return it at once: it may wait for ever."""
        ...

    def start(self, place: Any, recipe: Recipe) -> tuple[Any, Any]:
        """Start the actor in its place; return its handle and a call that is answered when it is up."""
        ...

    def call(self, actor: Any, method: str, args: tuple[Any, ...]) -> Any: ...

    def has(self, actor: Any, method: str) -> bool: ...

    def works_beside(self, recipe: Recipe) -> bool:
        """Tell whether such an actor takes a call while it works at another."""
        ...

    def end(self, actor: Any | None, place: Any) -> None:
        """End the actor, if there is one, and remove its placement group. What is gone already is fine."""
        ...

    def sweep(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Remove all placement groups whose names begin so, but for some; return how many there were."""
        ...

    def alive(self) -> frozenset[str]:
        """Return the ids of the nodes that are there."""
        ...

    def rooms(self) -> tuple[Room, ...]:
        """Return what each node has free that does not drain."""
        ...

    def meter(self, group: str) -> Meter: ...
