"""What is asked both of a real Ray and of its model: as data, as Ray's options, and as the model's work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heliostat.model.demand import Bundle, GangStrategy, LabelConstraint, LabelOperator, LabelSelector
from heliostat.model.resources import Resources

FOR_EVER_S = 1e9

IN, NOT_IN = LabelOperator.IN, LabelOperator.NOT_IN


@dataclass(frozen=True)
class Ask:
    """`count` tasks or actors of `units`, or one placement group with so many such bundles.

    `bundles` are a group's where they differ. `zones` are label selectors on `zone`, fallbacks last.
    """

    kind: Literal["task", "actor", "group"]
    units: Mapping[str, float]
    count: int = 1
    bundles: tuple[Mapping[str, float], ...] = ()
    strategy: GangStrategy = GangStrategy.PACK
    zones: tuple[tuple[LabelOperator, tuple[str, ...]], ...] = ()

    def bundle(self, units: Mapping[str, float]) -> Bundle:
        return Bundle(Resources.of(units), self._selectors())

    def group_bundles(self) -> tuple[Mapping[str, float], ...]:
        return self.bundles or (self.units,) * self.count

    def command(self) -> dict[str, Any]:
        """Return what the driver is told."""
        if self.kind == "group":
            bundles = [dict(one) for one in self.group_bundles()]
            labels = [_in_ray(self.zones[0])] * len(bundles) if self.zones else None
            return {"do": "group", "bundles": bundles, "strategy": self.strategy.value, "labels": labels}
        custom = {name: amount for name, amount in self.units.items() if name not in ("CPU", "GPU")}
        options: dict[str, Any] = {"num_cpus": self.units.get("CPU", 0), "num_gpus": self.units.get("GPU", 0)}
        options["resources"] = custom
        if self.zones:
            first, *others = map(_in_ray, self.zones)
            options["label_selector"] = first
            options["fallback_strategy"] = [{"label_selector": one} for one in others] or None
        return {"do": self.kind, "count": self.count, "options": options}

    def _selectors(self) -> tuple[LabelSelector, ...]:
        return tuple((LabelConstraint("zone", operator, values),) for operator, values in self.zones)


def _in_ray(zone: tuple[LabelOperator, tuple[str, ...]]) -> dict[str, str]:
    operator, values = zone
    return {"zone": f"{'' if operator is IN else '!'}in({','.join(values)})"}


def tasks(count: int, /, **units: float) -> Ask:
    return Ask("task", units, count)


def actors(count: int, /, **units: float) -> Ask:
    return Ask("actor", units, count)


def group(strategy: str, /, *bundles: Mapping[str, float]) -> Ask:
    return Ask("group", {}, bundles=bundles, strategy=GangStrategy[strategy])


DRIVER = """
import json, os, sys, time
import ray
from ray.util.placement_group import placement_group, remove_placement_group

ray.init(log_to_driver=False)

@ray.remote(max_retries=0)
def task(gate):
    while not os.path.exists(gate):
        time.sleep(0.05)

@ray.remote
class Actor:
    def name(self): return "actor"

held, actors, groups, gates = [], [], [], 0
gate = f"{sys.argv[1]}-{gates}"
print("ready")
for number, line in enumerate(sys.stdin):
    told = json.loads(line)
    if told["do"] == "task":
        held += [task.options(**told["options"]).remote(gate) for _ in range(told["count"])]
    elif told["do"] == "actor":
        actors += [Actor.options(**told["options"]).remote() for _ in range(told["count"])]
    elif told["do"] == "group":
        groups.append(placement_group(
            told["bundles"], strategy=told["strategy"], bundle_label_selector=told["labels"]
        ))
    else:
        open(gate, "w").close()
        for one in actors:
            ray.kill(one)
        for one in groups:
            remove_placement_group(one)
        for one in held:
            ray.cancel(one)
        held, actors, groups, gates = [], [], [], gates + 1
        gate = f"{sys.argv[1]}-{gates}"
    print(f"did {number}.")
"""
