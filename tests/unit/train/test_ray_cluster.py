"""What the adapter makes of Ray's values, without a cluster: the rest is tried on a real one."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray import exceptions
from ray.core.generated import common_pb2

from heliostat.train import ray_cluster
from heliostat.train.cluster import Answer, Spot, Watch

TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 3, in __init__
    raise ValueError("no such data set")
ValueError: no such data set
"""


@pytest.mark.parametrize(
    ("bundle", "options"),
    [
        ({"GPU": 1, "CPU": 2}, {"num_cpus": 2, "num_gpus": 1, "resources": {}}),
        ({"slot": 1}, {"num_cpus": 0, "num_gpus": 0, "resources": {"slot": 1}}),
        ({"CPU": 1, "memory": 2**30}, {"num_cpus": 1, "num_gpus": 0, "resources": {}, "memory": 2**30}),
    ],
)
def test_an_actor_gets_its_whole_bundle(bundle: dict[str, float], options: dict[str, Any]) -> None:
    assert ray_cluster._resources(bundle) == options


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (None, "its actor died"),
        (common_pb2.ActorDeathCause(), "its actor died"),
        (
            common_pb2.ActorDeathCause(
                creation_task_failure_context=common_pb2.RayException(formatted_exception_string=TRACEBACK)
            ),
            "ValueError: no such data set",
        ),
        (
            common_pb2.ActorDeathCause(
                actor_died_error_context=common_pb2.ActorDiedErrorContext(
                    error_message="\nThe actor is dead.\n\n  It was killed. "
                )
            ),
            "The actor is dead.; It was killed.",
        ),
    ],
)
def test_why_an_actor_died_is_told_in_a_line(cause: Any, said: str) -> None:
    assert ray_cluster._cause(cause) == said


class Handle:
    """Stands for an actor's."""

    _actor_id = ray.ActorID.nil()


@pytest.mark.parametrize(
    ("row", "with_node"),
    [
        ({"Address": {"NodeID": "a" * 56}}, False),
        ({"Address": {"NodeID": "b" * 56}}, True),
        # Its runtime_env could not be made, or it could not be scheduled.
        ({"Address": {"NodeID": "f" * 56}}, False),
        ({"Address": {"NodeID": ""}}, False),
        ({}, False),
    ],
)
def test_an_actor_that_never_had_a_node_did_not_go_with_one(
    row: dict[str, Any], with_node: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster.state, "actor_table", lambda actor_id: row)
    assert ray_cluster._death(Handle(), {"a" * 56}).with_node is with_node


def test_a_class_is_wrapped_once_for_all_its_members() -> None:
    class Plain: ...

    cluster, wrapped = ray_cluster.RayCluster(), ray.remote(Plain)
    assert cluster._wrapped(Plain) is cluster._wrapped(Plain)
    assert isinstance(cluster._wrapped(Plain), ray.actor.ActorClass)
    assert cluster._wrapped(wrapped) is wrapped


def test_ray_is_asked_where_an_actor_is_only_when_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    seats = {name: Handle() for name in ("new", "well", "lost")}
    asked: list[Any] = []

    def spot(actor: Any) -> Spot:
        asked.append(actor)
        return Spot("a", "ip")

    answers = {name: Answer(lost="killed" if name == "lost" else None) for name in seats}
    monkeypatch.setattr(ray_cluster, "_answers", lambda calls, timeout_s: answers)
    monkeypatch.setattr(ray_cluster, "_spot", spot)
    monkeypatch.setattr(ray_cluster, "_dead", lambda actors: {})
    monkeypatch.setattr(ray_cluster, "_draining", dict)
    watch = Watch(calls=seats, actors=seats, starting=frozenset({"new", "lost"}))
    assert ray_cluster.RayCluster().look(watch).spots == {"new": Spot("a", "ip")}
    assert asked == [seats["new"]]


def test_a_placement_group_is_removed_even_if_its_actor_could_not_be_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def kill(actor: Any, *, no_restart: bool) -> None:
        raise exceptions.RaySystemError("the connection is gone")

    removed: list[Any] = []
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_cluster.ray, "kill", kill)
    monkeypatch.setattr(ray_cluster, "remove_placement_group", removed.append)
    ray_cluster.RayCluster().end(Handle(), ray_cluster.Place("group", None))
    assert removed == ["group"]
    assert "could not end an actor: " in caplog.text


@pytest.mark.parametrize(
    ("state", "node_id", "dead"),
    [("PENDING", "", False), ("CREATED", "a", False), ("REMOVED", "", True), ("RESCHEDULING", "", False)],
)
def test_a_placement_group_that_is_removed_is_no_demand(
    state: str, node_id: str, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"state": state, "bundles_to_node_id": {0: "a"}}
    monkeypatch.setattr(ray_cluster, "_ready", lambda refs, timeout_s: [])
    monkeypatch.setattr(ray_cluster, "placement_group_table", lambda group: row)
    places = {"x": ray_cluster.Place("group", "ref")}
    cluster = ray_cluster.RayCluster()
    rows = cluster._rows(places)
    assert ray_cluster._node_of(rows["x"]) == node_id
    assert bool(ray_cluster._removed(rows)) is dead
    # One is looked up once a second.
    assert cluster._rows(places) == {}


def test_a_sweep_removes_what_has_the_prefix_and_no_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        number: {"name": name, "state": state}
        for number, (name, state) in enumerate(
            [("r-1", "CREATED"), ("r-10", "PENDING"), ("r-2", "REMOVED"), ("s-1", "CREATED"), ("", "CREATED")]
        )
    }
    removed: list[Any] = []
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_cluster, "placement_group_table", lambda: table)
    monkeypatch.setattr(ray_cluster.ray.util, "get_placement_group", str.upper)
    monkeypatch.setattr(ray_cluster, "remove_placement_group", removed.append)
    assert ray_cluster.RayCluster().sweep("r-", keep=["r-1"]) == 1
    assert removed == ["R-10"]


def test_what_ray_says_is_cut() -> None:
    assert ray_cluster._first_lines("x\n" * 100) == "; ".join("x" * 6)
    assert len(ray_cluster._first_lines("y" * 9999)) == 600


class Raises:
    """Stands for `ray.get`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, ref: object, *, timeout: float) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (exceptions.ActorDiedError(), True),
        (exceptions.ActorUnavailableError("socket closed", None), True),
        (exceptions.NodeDiedError("its node died"), True),
        (exceptions.OutOfMemoryError("out of memory"), True),
        (exceptions.GetTimeoutError(), True),
        (exceptions.TaskCancelledError(), False),
        (exceptions.RayTaskError("work", "trace", ValueError("bad")), False),
        (exceptions.RayTaskError("work", "trace", exceptions.ActorDiedError()).as_instanceof_cause(), False),
    ],
)
def test_a_loss_is_told_from_an_error_of_the_method(
    error: Exception, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster.ray, "get", Raises(error))
    answer = ray_cluster._answer(object())
    assert (answer.lost is not None) is lost
    assert (answer == Answer(error=error)) is not lost


def test_deadlines_are_seconds_from_now_and_none_is_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.time, "time", lambda: 1000.0)
    monkeypatch.setattr(ray_cluster.state, "get_draining_nodes", lambda: {"a": 0, "b": 1_030_500})
    assert ray_cluster._draining() == {"a": float("inf"), "b": 30.5}
