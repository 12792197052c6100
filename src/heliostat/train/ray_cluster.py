"""Ray, as a group sees it. The only module here that touches Ray, and all that is private in Ray is in it.

Private are: which nodes drain (`state.get_draining_nodes`, as Ray Train's own preemption watcher reads it),
why an actor died (`state.actor_table`), what a node has free (`state.available_resources_per_node`), and
whether an actor lives (`_get_local_state`: what Ray has told this process already, so it costs no call).
Tried with Ray 2.60.0; 2.56.1 has the same names and signatures.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions
from ray._private.state import state
from ray.core.generated import gcs_pb2
from ray.util.metrics import Counter, Gauge
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat.train.cluster import Answer, Death, Facts, Meter, Recipe, Room, Spot, Watch
from heliostat.train.errors import GroupError

log = logging.getLogger("heliostat.train")

WAIT_S = 1.0
"""The longest wait at once: a Ctrl-C or a cancelled task is never farther away."""
GET_S = 60.0
"""For the result of a call that is done already: it may have to come from another node."""
BREATH_S = 0.01
"""Between two looks, however much is answered."""
ASK_AGAIN_S = 1.0
"""How often one of the waiting placement groups is looked up, should Ray's message about it be lost."""

NO_NODE = ray.NodeID.nil().hex()
"""Ray's address of an actor that is on no node yet."""

UNSURE = (
    exceptions.ActorUnavailableError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.GetTimeoutError,
)
LOST = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.ActorPlacementGroupRemoved,
    exceptions.ActorUnschedulableError,
    exceptions.GetTimeoutError,
)
"""What Ray raises in place of an answer that will never come; `UNSURE` are those that say little of why."""

GAUGES = {
    "size": "Members of the group",
    "target": "Members that would help",
}
COUNTERS = {
    "steps": "Maps that returned their results",
    "joins": "Members that joined",
    "leaves": "Members that left, for whatever reason",
    "replaced": "Members and starts that failed, each with a successor",
    "lost_work_s": "Seconds of members' work on a map that did not count",
}


@dataclass(frozen=True)
class Place:
    """A placement group, and what is answered when it has its place."""

    group: Any
    ready: Any


class RayCluster:
    """`heliostat.train.cluster.Cluster`, for the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._asked_s = -math.inf
        self._turn = 0
        self._classes: dict[Any, Any] = {}

    def now_s(self) -> float:
        return time.monotonic()

    def connect(self) -> None:
        """Connect as any Ray script does that has not called `ray.init` yet."""
        if not ray.is_initialized():
            ray.init()
        if ray.util.client.ray.is_connected():
            raise GroupError(
                "a group does not work through Ray Client (ray://): run the script on the cluster, for "
                "example as a Ray job"
            )

    def run_id(self) -> str:
        return f"heliostat-train-{secrets.token_hex(4)}"

    # --- Looking ---------------------------------------------------------------------------

    def look(self, watch: Watch) -> Facts:
        answered = _answers(watch.calls, timeout_s=0.0)
        up = [name for name, answer in answered.items() if answer.lost is None and name in watch.starting]
        rows = self._rows(watch.places)
        nodes = {name: node_id for name, row in rows.items() if (node_id := _node_of(row))}
        return Facts(
            now_s=self.now_s(),
            placed={name: Spot(node_id, _address(node_id)) for name, node_id in nodes.items()},
            answered=answered,
            spots={name: _spot(watch.actors[name]) for name in up},
            dead=_dead(watch.actors) | _removed(rows),
            draining=_draining(),
        )

    def wait(self, calls: Mapping[str, Any], *, timeout_s: float) -> dict[str, Answer]:
        """Return what is answered within the time, or within a second: the caller waits again."""
        return _answers(calls, timeout_s=min(timeout_s, WAIT_S))

    def pause(self, watch: Watch, *, timeout_s: float) -> None:
        refs = [*watch.calls.values(), *(place.ready for place in watch.places.values())]
        if refs:
            ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)
            # A group that Ray places anew is still answered from its first time.
            timeout_s = min(timeout_s, BREATH_S)
        time.sleep(timeout_s)

    def _rows(self, places: Mapping[str, Place]) -> dict[str, Mapping[str, Any]]:
        """Return what Ray knows of those placement groups that may have changed."""
        refs = {place.ready: name for name, place in places.items()}
        found = {refs[one] for one in _ready(list(refs), timeout_s=0.0)} | self._next(places)
        return {name: placement_group_table(places[name].group) for name in found}

    def _next(self, places: Mapping[str, Place]) -> set[str]:
        """Return one group now and then, each in its turn."""
        if not places or self.now_s() - self._asked_s < ASK_AGAIN_S:
            return set()
        self._asked_s = self.now_s()
        self._turn += 1
        return {list(places)[self._turn % len(places)]}

    # --- Doing -----------------------------------------------------------------------------

    def ask(self, name: str, recipe: Recipe) -> Place:
        selector = [dict(recipe.label_selector)] if recipe.label_selector else None
        group = placement_group([dict(recipe.bundle)], name=name, bundle_label_selector=selector)
        return Place(group, group.ready())

    def start(self, place: Place, recipe: Recipe) -> tuple[Any, Any]:
        made = self._wrapped(recipe.actor_class)
        strategy = PlacementGroupSchedulingStrategy(place.group, placement_group_bundle_index=0)
        options = {**_resources(recipe.bundle), **recipe.actor_options, "scheduling_strategy": strategy}
        # The class may have options of its own, which are for one actor and not for a group.
        own = {"max_restarts": 0, "max_task_retries": 0, "lifetime": "non_detached", "name": None}
        actor = made.options(**options, **own).remote(*recipe.args, **recipe.kwargs)
        return actor, actor.__ray_ready__.remote()

    def _wrapped(self, actor_class: Any) -> Any:
        """Return Ray's wrapper of a class, always the same: each new one is pickled and exported again."""
        if isinstance(actor_class, ray.actor.ActorClass):
            return actor_class
        if actor_class not in self._classes:
            self._classes[actor_class] = ray.remote(actor_class)
        return self._classes[actor_class]

    def call(self, actor: Any, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(actor, method).remote(*args)

    def has(self, actor: Any, method: str) -> bool:
        return hasattr(actor, method)

    def works_beside(self, recipe: Recipe) -> bool:
        made, options = recipe.actor_class, recipe.actor_options
        if isinstance(made, ray.actor.ActorClass):
            options = {**made._default_options, **options}
            made = made.__ray_metadata__.modified_class
        most = options.get("max_concurrency")
        # As Ray does it: a class with an async method is an async actor, of a thousand calls by default.
        return most > 1 if most is not None else bool(inspect.getmembers(made, _is_async))

    def end(self, actor: Any | None, place: Place) -> None:
        if not ray.is_initialized():
            # With the driver's connection goes all that belongs to it.
            return
        try:
            if actor is not None:
                with _going("end an actor"):
                    ray.kill(actor, no_restart=True)
        finally:
            with _going("remove a placement group"):
                remove_placement_group(place.group)

    def sweep(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        if not ray.is_initialized():
            return 0
        left: list[str] = []
        with _going("look for placement groups"):
            rows = placement_group_table().values()
            ours = [one for one in rows if one["name"].startswith(prefix) and one["name"] not in keep]
            left = [one["name"] for one in ours if one["state"] != "REMOVED"]
        for name in left:
            # Somebody else may have been quicker.
            with _going("remove a placement group"), contextlib.suppress(ValueError):
                remove_placement_group(ray.util.get_placement_group(name))
        return len(left)

    def alive(self) -> frozenset[str]:
        return frozenset(_alive())

    def rooms(self) -> tuple[Room, ...]:
        draining = _draining()
        free = state.available_resources_per_node()
        return tuple(
            Room(one["NodeID"], dict(free.get(one["NodeID"], {})), dict(one.get("Labels") or {}))
            for one in ray.nodes()
            if one["Alive"] and one["NodeID"] not in draining
        )

    def meter(self, group: str) -> Meter:
        return RayMeter(group)


class RayMeter:
    """Ray exports these with its own metrics, as `ray_heliostat_train_…`, with the label `group`."""

    def __init__(self, group: str) -> None:
        self._tags = {"group": group}
        self._shown: dict[str, float] = {}
        self._made: dict[str, Any] = {}

    def show(self, name: str, value: float) -> None:
        if self._shown.get(name) != value and ray.is_initialized():
            self._metric(Gauge, name, GAUGES[name]).set(value, self._tags)
            self._shown[name] = value

    def add(self, name: str, value: float) -> None:
        if value > 0 and ray.is_initialized():
            self._metric(Counter, name, COUNTERS[name]).inc(value, self._tags)

    def _metric(self, kind: Any, name: str, text: str) -> Any:
        if name not in self._made:
            self._made[name] = kind(f"heliostat_train_{name}", description=text, tag_keys=("group",))
        return self._made[name]


@contextlib.contextmanager
def _going(what: str) -> Iterator[None]:
    """Bear Ray's errors: the cluster is going, and what is left goes with this process's connection."""
    try:
        yield
    except exceptions.RayError as error:
        log.warning("could not %s: %s", what, _first_lines(str(error)))


def _ready(refs: list[Any], *, timeout_s: float) -> list[Any]:
    if not refs:
        return []
    done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
    if done and len(refs) > 1:
        # Ray returns no more than it was asked for.
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return list(done)


def _answers(calls: Mapping[str, Any], *, timeout_s: float) -> dict[str, Answer]:
    names = {ref: name for name, ref in calls.items()}
    return {names[ref]: _answer(ref) for ref in _ready(list(names), timeout_s=timeout_s)}


def _answer(ref: Any) -> Answer:
    try:
        return Answer(value=ray.get(ref, timeout=GET_S))
    except exceptions.RayTaskError as error:
        # The method itself raised, whatever it was: it may be the loss of an actor of its own.
        return Answer(error=error)
    except LOST as error:
        failed = isinstance(error, exceptions.RayActorError) and error.actor_init_failed
        why = _last_line(str(error)) if failed else _first_lines(str(error))
        return Answer(lost=why, unsure=isinstance(error, UNSURE))
    except exceptions.RayError as error:
        return Answer(error=error)


def _draining() -> dict[str, float]:
    now_s = time.time()
    nodes: Mapping[str, int] = state.get_draining_nodes()
    # Ray's 0 is «no deadline».
    return {node: at_ms / 1000 - now_s if at_ms else math.inf for node, at_ms in nodes.items()}


def _dead(actors: Mapping[str, Any]) -> dict[str, Death]:
    dead = {name: actor for name, actor in actors.items() if _is_dead(actor)}
    if not dead:
        return {}
    alive = _alive()
    return {name: _death(actor, alive) for name, actor in dead.items()}


def _alive() -> set[str]:
    return {one["NodeID"] for one in ray.nodes() if one["Alive"]}


def _is_dead(actor: Any) -> bool:
    return bool(actor._get_local_state() == gcs_pb2.ActorTableData.ActorState.DEAD)


def _spot(actor: Any) -> Spot:
    address = state.actor_table(actor._actor_id.hex())["Address"]
    return Spot(str(address["NodeID"]), str(address["IPAddress"]))


def _death(actor: Any, alive: set[str]) -> Death:
    row = state.actor_table(actor._actor_id.hex())
    cause = row.get("DeathCause")
    node_id = row.get("Address", {}).get("NodeID") or NO_NODE
    # One that never had a node (its runtime_env can't be made, say) has itself to blame.
    return Death(_cause(cause), with_node=node_id != NO_NODE and node_id not in alive)


def _cause(cause: Any) -> str:
    kind = cause.WhichOneof("context") if cause is not None else None
    if kind is None:
        return "its actor died"
    context = getattr(cause, kind)
    if kind == "creation_task_failure_context":
        return _last_line(context.formatted_exception_string) or "its actor could not be made"
    return _first_lines(getattr(context, "error_message", "")) or "its actor died"


def _last_line(text: str) -> str:
    """Return the error itself, which stands below its traceback."""
    *_, last = ["", *_told(text.splitlines())]
    return last


def _first_lines(text: str, *, lines: int = 6, chars: int = 600) -> str:
    """Return the beginning of what Ray says, in one line: the rest is advice on where to read logs."""
    kept: Iterable[str] = _told(text.splitlines())
    return "; ".join(line for line, _ in zip(kept, range(lines), strict=False))[:chars]


def _told(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip())


def _removed(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Death]:
    gone = [name for name, row in rows.items() if row and row["state"] == "REMOVED"]
    return {name: Death("its placement group was removed") for name in gone}


def _node_of(row: Mapping[str, Any]) -> str:
    """Return the node that a placement group has its bundle on; empty while it waits."""
    if not row or row["state"] != "CREATED":
        return ""
    return str(next(iter(row["bundles_to_node_id"].values()), ""))


def _address(node_id: str) -> str:
    return next((str(one["NodeManagerAddress"]) for one in ray.nodes() if one["NodeID"] == node_id), "")


def _is_async(member: Any) -> bool:
    return inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)


def _resources(bundle: Mapping[str, float]) -> dict[str, Any]:
    """Return Ray's options by which an actor gets its whole bundle."""
    rest = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU", "memory")}
    options = {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0), "resources": rest}
    return options | ({"memory": bundle["memory"]} if "memory" in bundle else {})
