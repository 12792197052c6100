"""The options of a group: parsed once, then a frozen value with everything in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from heliostat.train.cluster import Cluster, Recipe
from heliostat.train.target import Target, Throughput, whole
from heliostat.train.types import Member, Reason, World

OWN_OPTIONS = ("scheduling_strategy", "lifetime", "max_restarts", "max_task_retries", "name", "get_if_exists")
"""Options of Ray's that a group sets, or that are at odds with it: it replaces what died by itself."""


class Options(TypedDict, total=False):
    """Options of `ElasticGroup`, all with a default."""

    name: str
    """Of the group, for metrics and logs; the class's by default."""
    kwargs: Mapping[str, Any]
    """Keyword arguments of the actor's class."""
    target: Target
    """How many would help: None (`max_size`), a number, a function of the group, or `Throughput(…)`."""
    weight: float
    """Against other groups in `Roles`; 1 by default."""
    timeout_s: float
    """How long fewer than `min_size` are borne; 600 by default."""
    leave_timeout_s: float
    """The longest wait for a member's `leaving`; 30 by default."""
    start_timeout_s: float
    """How long an actor may take to come up once it has its place, its `take_over` apart; 300 by default."""
    health_every_s: float
    """How often members that have `check_health` are asked, in a `sync` that does not wait; 30 by default."""
    health_timeout_s: float
    """How long a member may owe that answer before it is replaced; 60 by default."""
    max_restarts: int
    """Failures within `restart_window_s` that are borne; 10 by default."""
    restart_window_s: float
    """600 by default."""
    actor_options: Mapping[str, Any]
    """Ray's options for the actor. It gets its whole bundle unless this says otherwise."""
    label_selector: Mapping[str, str]
    """Labels that a node must have, as in Ray's placement groups."""
    on_join: Callable[[Member], Any]
    """Called in `sync` for each new member, once it is up and has taken over."""
    on_leave: Callable[[Member, Reason], Any]
    """Called in `sync` for each that left."""
    on_resize: Callable[[World], Any]
    """Called last in a `sync` that changed who is in the group."""
    cluster: Cluster
    """What plays Ray in tests."""


@dataclass(frozen=True)
class Settings:
    recipe: Recipe
    min_size: int
    max_size: int
    name: str
    target: Target = None
    weight: float = 1.0
    timeout_s: float = 600.0
    leave_timeout_s: float = 30.0
    start_timeout_s: float = 300.0
    health_every_s: float = 30.0
    health_timeout_s: float = 60.0
    max_restarts: int = 10
    restart_window_s: float = 600.0
    on_join: Callable[[Member], Any] | None = None
    on_leave: Callable[[Member, Reason], Any] | None = None
    on_resize: Callable[[World], Any] | None = None

    def __post_init__(self) -> None:
        """Say all that is wrong at once."""
        wrong = [*_wrong_sizes(self), *wrong_target(self.target), *_wrong_recipe(self.recipe)]
        if self.weight <= 0:
            wrong.append(f"weight is {self.weight}: it must be more than 0")
        times = [name for name in Options.__annotations__ if name.endswith("_s")]
        wrong += [
            f"{name} is {value}: it must be more than 0"
            for name in times
            if (value := getattr(self, name)) <= 0
        ]
        if self.max_restarts < 0:
            wrong.append(f"max_restarts is {self.max_restarts}: it must be 0 or more")
        if not re.fullmatch(r"[\w.-]+", self.name):
            wrong.append(f"name is {self.name!r}: letters, digits, «.», «_» and «-» are allowed")
        if wrong:
            raise ValueError("; ".join(wrong))


def parse(
    actor_class: Any,
    options: Options,
    *,
    bundle: Mapping[str, float],
    sizes: tuple[int, int],
    args: tuple[Any, ...],
) -> Settings:
    """Return the settings of a group; raise TypeError for an unknown option, ValueError for a wrong value."""
    if unknown := sorted(set(options) - set(Options.__annotations__)):
        raise TypeError(
            f"unknown option {', '.join(unknown)}; there are {', '.join(Options.__annotations__)}"
        )
    recipe = Recipe(
        actor_class=actor_class,
        bundle=dict(bundle),
        args=tuple(args),
        kwargs=dict(options.get("kwargs", {})),
        actor_options=dict(options.get("actor_options", {})),
        label_selector=options.get("label_selector"),
    )
    rest: dict[str, Any] = {
        name: value
        for name, value in options.items()
        if name not in ("kwargs", "actor_options", "label_selector", "cluster", "name")
    }
    name = options.get("name") or _class_name(actor_class)
    return Settings(recipe=recipe, min_size=sizes[0], max_size=sizes[1], name=name, **rest)


def _class_name(actor_class: Any) -> str:
    # Ray names its wrapper «ActorClass(Trainer)».
    name = getattr(actor_class, "__name__", None) or type(actor_class).__name__
    return re.sub(r"^ActorClass\((.*)\)$", r"\1", name).strip("_") or "group"


def _wrong_sizes(settings: Settings) -> list[str]:
    if 0 <= settings.min_size <= settings.max_size and settings.max_size > 0:
        return []
    return [
        f"min_size is {settings.min_size} and max_size {settings.max_size}: "
        "0 <= min_size <= max_size, and max_size at least 1"
    ]


def wrong_target(target: Any) -> list[str]:
    """Return what is wrong with a target; empty if nothing."""
    if target is None or isinstance(target, Throughput) or callable(target) or whole(target) is not None:
        return []
    return [f"target is {target!r}: None, a whole number, a function, or Throughput(…)"]


def _wrong_recipe(recipe: Recipe) -> list[str]:
    wrong = []
    if not recipe.bundle or any(not amount > 0 for amount in recipe.bundle.values()):
        wrong.append(f"bundle is {dict(recipe.bundle)}: it must have resources, each more than 0")
    if own := sorted(set(OWN_OPTIONS) & set(recipe.actor_options)):
        wrong.append(f"actor_options has {', '.join(own)}: the group itself sees to that")
    return wrong
