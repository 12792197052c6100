"""A cluster on a virtual clock: nodes with room, placement groups that wait, actors that take their time.

Time goes on in `wait` and `pause` only, from event to event. What is to happen to the cluster is put on its
timetable (`at`), or done at once between two calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.train.cluster import Answer, Death, Facts, Recipe, Room, Spot, Watch


@dataclass(eq=False)
class Node:
    id: str
    total: dict[str, float]
    drain_at_s: float | None = None
    """Its deadline; None while it does not drain."""


@dataclass(eq=False)
class Group:
    """A placement group."""

    name: str
    bundle: Mapping[str, float]
    node: Node | None = None
    removed: bool = False


@dataclass(eq=False)
class Actor:
    group: Group
    thing: Any
    free_at_s: float
    died: str | None = None
    ended: bool = False
    with_node: bool = False
    unsure: bool = False
    """Nobody knows yet that it is dead; calls just fail."""


@dataclass(eq=False)
class Call:
    actor: Actor
    run: Callable[[], Any]
    due_s: float
    answer: Answer | None = None


@dataclass
class FakeMeter:
    shown: dict[str, float] = field(default_factory=dict)
    added: dict[str, float] = field(default_factory=dict)

    def show(self, name: str, value: float) -> None:
        self.shown[name] = value

    def add(self, name: str, value: float) -> None:
        self.added[name] = self.added.get(name, 0.0) + value


class FakeCluster:
    """`heliostat.train.cluster.Cluster`. `takes` says how long a method takes, `start_s` how long a start."""

    def __init__(self, *nodes: str, bundle: Mapping[str, float] | None = None) -> None:
        self.clock_s = 100.0
        self.nodes: dict[str, Node] = {}
        self.groups: list[Group] = []
        self.actors: list[Actor] = []
        self.takes: Callable[[Actor, str], float] = lambda actor, method: 0.0
        self.start_s = 0.0
        self.beside = False
        """Whether actors take calls while they work."""
        self.rooms_lag_s = 0.0
        """How late the figures of free resources are."""
        self._rooms: tuple[float, tuple[Room, ...]] = (-1e9, ())
        self.figures = FakeMeter()
        self.calls: list[tuple[str, str]] = []
        self.made: list[Call] = []
        self.looks = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = itertools.count(1)
        for name in nodes:
            self.join(name, bundle)

    # --- What tests do to it ---------------------------------------------------------------

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        self._events.append((self.clock_s + seconds, next(self._ids), event))

    def join(self, name: str, total: Mapping[str, float] | None = None) -> None:
        self.nodes[name] = Node(name, dict(total or {"GPU": 1.0, "CPU": 1.0}))
        self._place()

    def drain(self, name: str, *, deadline_s: float | None = 30.0) -> None:
        self.nodes[name].drain_at_s = float("inf") if deadline_s is None else self.clock_s + deadline_s

    def lose(self, name: str) -> None:
        """Let a node go with all that is on it."""
        node = self.nodes.pop(name)
        for actor in self.actors:
            if actor.group.node is node and not actor.ended:
                self.kill(actor, "the node died", with_node=True)
        begun = [one.group for one in self.actors]
        for group in self.open_groups:
            if group.node is node and group not in begun:
                # Ray places it anew.
                group.node = None

    def vanish(self, name: str) -> None:
        """Let a node go without a word: its actors do not answer, and are not known to be dead."""
        for actor in self.on(name):
            actor.unsure = True
            self.kill(actor, "unavailable")

    def kill(self, actor: Actor, why: str = "killed by signal 9", *, with_node: bool = False) -> None:
        actor.died, actor.with_node = actor.died or why, with_node

    def remove(self, group: Group) -> None:
        """Remove a placement group, with the actor in it."""
        group.removed = True
        for actor in self.actors:
            actor.ended = actor.ended or actor.group is group

    def finish(self, actor: Actor) -> None:
        """Let its calls be answered now: what comes after is too late to lose them."""
        for call in self.made:
            if call.actor is actor:
                self._answer(call)

    def on(self, name: str) -> list[Actor]:
        """Return the living actors of a node."""
        living = (one for one in self.actors if one.died is None and not one.ended)
        return [one for one in living if one.group.node is not None and one.group.node.id == name]

    @property
    def living(self) -> list[Actor]:
        return [one for one in self.actors if one.died is None and not one.ended]

    @property
    def open_groups(self) -> list[Group]:
        return [one for one in self.groups if not one.removed]

    @property
    def demand(self) -> int:
        """What an autoscaler sees: placement groups that wait."""
        self._place()
        return sum(one.node is None for one in self.open_groups)

    # --- Cluster ---------------------------------------------------------------------------

    def now_s(self) -> float:
        return self.clock_s

    def connect(self) -> None: ...

    def run_id(self) -> str:
        return f"run{next(self._ids)}"

    def look(self, watch: Watch) -> Facts:
        self.looks += 1
        self._place()
        placed = {name: group.node.id for name, group in watch.places.items() if group.node is not None}
        dead = {
            name: actor for name, actor in watch.actors.items() if actor.died is not None and not actor.unsure
        }
        removed = [name for name, group in watch.places.items() if group.removed]
        return Facts(
            now_s=self.clock_s,
            placed={name: Spot(node, f"ip-{node}") for name, node in placed.items()},
            answered=self._answered(watch.calls),
            spots={
                name: Spot(actor.group.node.id, f"ip-{actor.group.node.id}")
                for name, actor in watch.actors.items()
                if actor.group.node is not None and name in watch.starting
            },
            dead={name: Death(str(actor.died), actor.with_node) for name, actor in dead.items()}
            | {name: Death("its placement group was removed") for name in removed},
            draining={
                one.id: one.drain_at_s - self.clock_s
                for one in self.nodes.values()
                if one.drain_at_s is not None
            },
        )

    def wait(self, calls: Mapping[str, Call], *, timeout_s: float) -> dict[str, Answer]:
        end_s = self.clock_s + timeout_s
        while not (found := self._answered(calls)) and self.clock_s < end_s:
            self._go_on(end_s, [one.due_s for one in calls.values()])
        return found

    def pause(self, watch: Watch, *, timeout_s: float) -> None:
        self._go_on(self.clock_s + timeout_s, [one.due_s for one in watch.calls.values()])

    def ask(self, name: str, recipe: Recipe) -> Group:
        self.groups.append(Group(name, recipe.bundle))
        return self.groups[-1]

    def start(self, place: Group, recipe: Recipe) -> tuple[Actor, Call]:
        assert place.node is not None
        assert place.node.drain_at_s is None, "nothing may be started on a node that drains"
        actor = Actor(place, None, self.clock_s + self.start_s)
        self.actors.append(actor)

        def begin() -> None:
            actor.thing = recipe.actor_class(*recipe.args, **recipe.kwargs)

        return actor, Call(actor, begin, actor.free_at_s)

    def call(self, actor: Actor, method: str, args: tuple[Any, ...]) -> Call:
        begun_s = self.clock_s if self.beside else max(actor.free_at_s, self.clock_s)
        actor.free_at_s = begun_s + self.takes(actor, method)
        self.calls.append((str(actor.group.node and actor.group.node.id), method))
        self.made.append(Call(actor, lambda: getattr(actor.thing, method)(*args), actor.free_at_s))
        return self.made[-1]

    def has(self, actor: Actor, method: str) -> bool:
        return hasattr(actor.thing, method)

    def works_beside(self, recipe: Recipe) -> bool:
        return self.beside

    def end(self, actor: Actor | None, place: Group) -> None:
        if actor is not None:
            actor.ended = True
        self.remove(place)

    def sweep(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        left = [one for one in self.open_groups if one.name.startswith(prefix) and one.name not in keep]
        for group in left:
            self.remove(group)
        return len(left)

    def alive(self) -> frozenset[str]:
        return frozenset(self.nodes)

    def rooms(self) -> tuple[Room, ...]:
        self._place()
        living = (one for one in self.nodes.values() if one.drain_at_s is None)
        if self.clock_s - self._rooms[0] >= self.rooms_lag_s:
            self._rooms = (self.clock_s, tuple(Room(one.id, self._free(one)) for one in living))
        return self._rooms[1]

    def meter(self, group: str) -> FakeMeter:
        return self.figures

    # --- Inside ----------------------------------------------------------------------------

    def _free(self, node: Node) -> dict[str, float]:
        free = dict(node.total)
        for group in self.open_groups:
            if group.node is node:
                for name, amount in group.bundle.items():
                    free[name] = free.get(name, 0.0) - amount
        return free

    def _place(self) -> None:
        for group in self.open_groups:
            for node in self.nodes.values() if group.node is None else ():
                free = self._free(node)
                fits = all(free.get(name, 0.0) >= amount for name, amount in group.bundle.items())
                if fits and node.drain_at_s is None:
                    group.node = node
                    break

    def _answered(self, calls: Mapping[str, Call]) -> dict[str, Answer]:
        answers = {name: self._answer(call) for name, call in calls.items()}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def _answer(self, call: Call) -> Answer | None:
        if call.answer is None:
            if call.actor.died is not None or call.actor.ended:
                call.answer = Answer(lost=call.actor.died or "ended", unsure=call.actor.unsure)
            elif call.due_s <= self.clock_s:
                try:
                    call.answer = Answer(value=call.run())
                except (RuntimeError, ValueError) as error:
                    call.answer = Answer(error=error)
        return call.answer

    def _go_on(self, end_s: float, due_s: list[float]) -> None:
        """Go to what comes next: an event, an answer, or the end of the wait."""
        self._events.sort(key=lambda one: one[:2])
        times = [end_s, *(one for one in due_s if one > self.clock_s), *(one[0] for one in self._events)]
        self.clock_s = min(times)
        while self._events and self._events[0][0] <= self.clock_s:
            self._events.pop(0)[2]()
