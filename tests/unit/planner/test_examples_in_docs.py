"""Every example of docs/planner.md is what the planner does: the page itself is the table of cases.

An example is a line of an indented block with an arrow: what waits; node types; what else is so  →  what
is launched, round by round (a remark). A line without an arrow names the types of those that follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.model.demand import Demand, Gang, GangStrategy
from heliostat.model.instance import Offer
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from tests.unit.planner.world import World, demand, gang, kind, launched, policy

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "planner.md").read_text()
ARROW = "→"
LAUNCH = re.compile(r"(\d+) × (\w+)")
WORK = re.compile(r"(\d+) × \{([^}]*)\}")
RUNS = re.compile(r"a (\w+) runs with ([\d.]+) (CPU|GPU)s? in use")
TYPE = re.compile(r"(\w+): (?=\d+ (?:CPU|GPU))(.*)")
AMOUNT = re.compile(r"(\d+) (CPU|GPU)s?")
FEATURES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    r"([\d.]+) \$/h": lambda found: {"price_usd_per_h": float(found)},
    r"priority (\d+)": lambda found: {"priority": int(found)},
    r"at most (\d+)": lambda found: {"max_workers": int(found)},
    r"backend (\w+)": lambda found: {"backend": found},
}


@dataclass(frozen=True)
class Example:
    """One line of the page; `types` are those of its own or of the line above."""

    text: str
    types: tuple[NodeType, ...]
    parts: tuple[str, ...]
    answer: str
    remark: str

    def cost(self, launch: str) -> float:
        prices = {one.name: one.price_usd_per_h or 0.0 for one in self.types}
        return sum(prices[name] * count for name, count in counts(launch).items())


def lines(page: str) -> Iterator[str]:
    """Yield the lines of indented blocks; what is indented further belongs to the line above."""
    outside = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n)+", outside, flags=re.MULTILINE)
    for block in blocks:
        yield from re.sub(r"\n {8,}", " ", block).splitlines()


def examples(page: str) -> Iterator[Example]:
    types: tuple[NodeType, ...] = ()
    for line in lines(page):
        before, arrow, after = (part.strip() for part in line.partition(ARROW))
        parts = tuple(part.strip() for part in before.split(";"))
        own = tuple(node_type(part) for part in parts if TYPE.fullmatch(part))
        types = own or types
        others = tuple(part for part in parts if not TYPE.fullmatch(part))
        if not arrow:
            assert own, f"neither an example nor types: {line}"
            assert not others, f"unreadable: {others}"
            continue
        launch, remark = after, ""
        if not after.startswith("no node type"):
            launch, _, remark = after.partition(" (")
        yield Example(line.strip(), types, others, launch, remark.removesuffix(")"))


def node_type(part: str) -> NodeType:
    found = TYPE.fullmatch(part)
    assert found
    name, features = found.groups()
    amounts: dict[str, float] = {}
    changed: dict[str, Any] = {}
    for feature in features.split(", "):
        if amount := AMOUNT.fullmatch(feature):
            amounts[amount[2]] = int(amount[1])
            continue
        known = {key: given for key in FEATURES if (given := re.fullmatch(key, feature))}
        assert known, f"unreadable: {feature}"
        for key, given in known.items():
            changed |= FEATURES[key](given[1])
    return replace(kind(name), resources=Resources.of(amounts), **{"max_workers": 99, **changed})


def counts(text: str) -> dict[str, int]:
    return {name: int(count) for count, name in LAUNCH.findall(text)}


def world(example: Example) -> World:
    """Return the world of which the example speaks; every part of it must be understood."""
    made = World(policy=policy(*example.types, max_workers=99))
    for part in example.parts:
        if part == "gangs_across_backends: true":
            made.policy = replace(made.policy, gangs_across_backends=True)
        elif runs := RUNS.fullmatch(part):
            made.running(runs[1], used={runs[3]: float(runs[2])})
        else:
            waits = work(part)
            made.demands += tuple(one for one in waits if isinstance(one, Demand))
            made.gangs += tuple(one for one in waits if isinstance(one, Gang))
    return made


def work(part: str) -> list[Demand | Gang]:
    strategy, comma, rest = part.partition(", ")
    named = comma and strategy in GangStrategy.__members__
    several = (rest if named else part).split(" and ")
    found: list[Demand] = []
    for one in several:
        read = WORK.fullmatch(one.strip())
        assert read, f"unreadable: {one}"
        amounts = (amount.split(": ") for amount in read[2].split(", "))
        found.append(demand(int(read[1]), "", **{name: float(amount) for name, amount in amounts}))
    return [gang(GangStrategy[strategy], *found)] if named else list(found)


EXAMPLES = tuple(examples(PAGE))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.text)
def test_the_planner_does_what_the_page_says(example: Example) -> None:
    made = world(example)
    if example.answer.startswith("no node type"):
        assert [one.text for one in made.round().infeasible] == [example.answer]
        return
    for answer in example.answer.split(", then "):
        assert re.fullmatch(rf"nothing|{LAUNCH.pattern}(, {LAUNCH.pattern})*", answer)
        assert launched(made.round()) == counts(answer)


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if "$/h" in one.remark], ids=lambda one: one.text
)
def test_costs_are_added_up_rightly(example: Example) -> None:
    said, _, other = example.remark.partition("; ")
    assert said == f"{example.cost(example.answer):g} $/h"
    launch, _, cost = other.partition(" would be ")
    assert cost == f"{example.cost(launch):g} $/h"


def test_no_example_is_overlooked() -> None:
    assert len(EXAMPLES) == sum(ARROW in line for line in PAGE.splitlines())


@pytest.mark.parametrize(
    "line",
    ["5 × {CPU: 1}; cpu: 4 horses → 1 × cpu", "many tasks; cpu: 4 CPUs → 1 × cpu", "cpu: 4 CPUs; and so on"],
)
def test_what_can_not_be_read_is_an_error(line: str) -> None:
    with pytest.raises(AssertionError, match=r"unreadable|neither"):
        list(map(world, examples(f"    {line}\n")))


FILE = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0])
ROWS = re.findall(r"^\| ([^|]*) \| ([^|]*(?:campus|rented)[^|]*) \|$", PAGE, flags=re.MULTILINE)
MINUTES_S, HOURS_S = 60.0, 3600.0


def bursting() -> World:
    """Return the world of the page's cluster file, with the work of its table."""
    types = (
        kind(
            name,
            cpus=one["resources"]["CPU"],
            max_workers=one.get("max_workers", 10),
            **one["node_config"],
        )
        for name, one in FILE["available_node_types"].items()
    )
    made = World(policy=policy(*types, max_cost_usd_per_h=FILE["provider"]["max_cost_usd_per_h"]))
    made.demands = (demand(16, CPU=1),)
    return made


def queue_of(ready_in_s: float) -> list[dict[str, int]]:
    made = bursting()
    made.offers = (Offer("campus", ready_at_s=made.now_s + ready_in_s),)
    return [launched(made.round())]


def queue_that_nobody_knows() -> list[dict[str, int]]:
    made = bursting()
    began_s, first = made.now_s, made.round()
    made.obey(first)
    patience_s = made.policy.node_types[0].patience_s
    while made.now_s < began_s + patience_s:
        assert launched(made.round(5.0)) == {}
    return [launched(first), launched(made.round(5.0))]


def start_that_moves() -> list[dict[str, int]]:
    made = bursting()
    one = made.coming("campus", ago_s=1)
    made.change_row(one, expected_start_s=made.now_s + 5 * MINUTES_S)
    assert launched(made.round()) == {}
    made.change_row(one, expected_start_s=made.now_s + 2 * HOURS_S)
    return [launched(made.round())]


def no_more_allowed() -> list[dict[str, int]]:
    made = bursting()
    campus, rented = made.policy.node_types
    made.policy = replace(made.policy, node_types=(replace(campus, max_workers=0), rented))
    return [launched(made.round())]


SCENES: Mapping[str, Callable[[], list[dict[str, int]]]] = {
    "the queue is 5 min": lambda: queue_of(5 * MINUTES_S),
    "the queue is 1 h": lambda: queue_of(HOURS_S),
    "how long it is, nobody knows": queue_that_nobody_knows,
    "campus was asked for, and its start moves to in 2 h": start_that_moves,
    "campus is at its `max_workers`": no_more_allowed,
}


@pytest.mark.parametrize(("when", "comes"), ROWS)
def test_bursting_is_what_the_table_says(when: str, comes: str) -> None:
    assert SCENES[when]() == [counts(part) for part in comes.split("; ")]


def test_the_table_of_bursting_is_there() -> None:
    assert {when for when, _ in ROWS} == SCENES.keys()
