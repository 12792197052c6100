"""What an ElasticGroup can be told, and what is said of mistakes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from heliostat.train import ElasticGroup, Options, Roles, Throughput
from heliostat.train.options import Settings, parse
from tests.unit.train.fake_cluster import FakeCluster


class Trainer:
    pass


def parsed(**options: Any) -> Settings:
    sizes = (options.pop("min_size", 1), options.pop("max_size", 4))
    bundle = options.pop("bundle", {"GPU": 1})
    return parse(options.pop("actor_class", Trainer), Options(**options), bundle=bundle, sizes=sizes, args=())


def test_defaults() -> None:
    settings = parsed()
    assert (settings.name, settings.weight, settings.timeout_s) == ("Trainer", 1.0, 600.0)
    assert (settings.max_restarts, settings.restart_window_s) == (10, 600.0)


def test_a_wrapped_class_gives_its_own_name() -> None:
    wrapped = type("ActorClass(Trainer)", (), {})
    assert parsed(actor_class=wrapped).name == "Trainer"
    assert parsed(actor_class=wrapped, name="policy").name == "policy"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_size": 5}, "min_size is 5 and max_size 4"),
        ({"min_size": -1}, "min_size is -1"),
        ({"min_size": 0, "max_size": 0}, "max_size at least 1"),
        ({"bundle": {}}, "bundle is {}"),
        ({"bundle": {"GPU": 0}}, "each more than 0"),
        ({"target": "many"}, "target is 'many': None, a whole number, a function, or Throughput"),
        ({"target": True}, "target is True"),
        ({"target": 2.5}, "target is 2.5"),
        ({"weight": 0}, "weight is 0: it must be more than 0"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"max_restarts": -1}, "max_restarts is -1"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"actor_options": {"lifetime": "detached"}}, "actor_options has lifetime"),
        ({"weight": -1, "timeout_s": -1}, "weight is -1: it must be more than 0; timeout_s is -1"),
    ],
)
def test_wrong_values_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parsed(**options)


@pytest.mark.parametrize("target", [None, 3, Throughput(), len])
def test_targets(target: Any) -> None:
    assert parsed(target=target).target is target


def test_unknown_options_are_told_with_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"unknown option colour; there are name, kwargs, target"):
        ElasticGroup(
            Trainer,
            bundle={"GPU": 1},
            min_size=1,
            max_size=1,
            colour="red",  # type: ignore[call-arg]
        )


def test_roles_need_groups_with_names_of_their_own() -> None:
    one, other = (
        ElasticGroup(Trainer, bundle={"GPU": 1}, min_size=1, max_size=1, cluster=FakeCluster())
        for _ in range(2)
    )
    with pytest.raises(ValueError, match="names of their own"):
        Roles(one=one, other=other)
    with pytest.raises(ValueError, match="no group"):
        Roles()
