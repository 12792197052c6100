"""`provider.max_draining`: its three forms, and each mistake with its line, its key and what is allowed."""

from __future__ import annotations

import pytest

from heliostat.config.drain_limits import ALLOWED, NODES
from heliostat.model.drain_limit import DrainLimit
from tests.unit.config.files import GOOD, Load, Problems

DRIFT = frozenset({"drift"})


def with_limits(text: str) -> str:
    return GOOD.replace("  backends: {local: {}}\n", f"  backends: {{local: {{}}}}\n  max_draining: {text}\n")


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("0", (DrainLimit(0),)),
        ("7", (DrainLimit(7),)),
        ('"10%"', (DrainLimit(percent=10),)),
        ("100%", (DrainLimit(percent=100),)),
        ("[]", ()),
        ('[5, "1%"]', (DrainLimit(5), DrainLimit(percent=1))),
        ("[{nodes: 2, reasons: [drift]}]", (DrainLimit(2, reasons=DRIFT),)),
        ("[{nodes: 1%, hours: 08:00-18:30}]", (DrainLimit(percent=1, hours=(480, 1110)),)),
        ("[{nodes: 0, hours: 22:00-06:00}]", (DrainLimit(0, hours=(1320, 360)),)),
        ('[{nodes: 0, hours: "00:00-24:00"}]', (DrainLimit(0, hours=(0, 1440)),)),
    ],
)
def test_what_is_right(load: Load, text: str, limits: tuple[DrainLimit, ...]) -> None:
    assert load(with_limits(text)).policy.max_draining == limits


_TIMES = "text such as 08:00-18:00, from 00:00 to 24:00, over midnight where the second is the earlier one"


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ("-1", "", f"-1; allowed is {ALLOWED}"),
        ("true", "", f"true; allowed is {ALLOWED}"),
        ("2.5", "", f"2.5; allowed is {ALLOWED}"),
        ("", "", f"nothing (null); allowed is {ALLOWED}"),
        ('"101%"', "", f'"101%"; allowed is {ALLOWED}'),
        ('"1.5%"', "", f'"1.5%"; allowed is {ALLOWED}'),
        ("{nodes: 2}", "", f"a mapping; allowed is {ALLOWED}"),
        ("[3, many]", ".1", f'"many"; allowed is {NODES}'),
        ("[[3]]", ".0", f"a list; allowed is {NODES}"),
        ("[{hours: 08:00-09:00}]", ".0.nodes", f"is missing; write {NODES}"),
        ("[{nodes: -2}]", ".0.nodes", f"-2; allowed is {NODES}"),
        (
            "[{nodes: 2, reason: [drift]}]",
            ".0.reason",
            "unknown key (did you mean reasons?); allowed",
        ),
        ("[{nodes: 2, reasons: drift}]", ".0.reasons", '"drift"; allowed is a list of idle, drift, over_max'),
        ("[{nodes: 2, reasons: []}]", ".0.reasons", "an empty list; allowed is a list of idle"),
        ("[{nodes: 2, reasons: [lease]}]", ".0.reasons", "a list; allowed is a list of idle"),
        ("[{nodes: 2, hours: 8-18}]", ".0.hours", f'"8-18"; allowed is {_TIMES}'),
        ("[{nodes: 2, hours: 08:00-25:00}]", ".0.hours", f'"08:00-25:00"; allowed is {_TIMES}'),
        ("[{nodes: 2, hours: 08:00-24:01}]", ".0.hours", f'"08:00-24:01"; allowed is {_TIMES}'),
        ("[{nodes: 2, hours: 24:00-08:00}]", ".0.hours", f'"24:00-08:00"; allowed is {_TIMES}'),
        ("[{nodes: 2, hours: 08:00-08:00}]", ".0.hours", f'"08:00-08:00"; allowed is {_TIMES}'),
        ("[{nodes: 2, hours: }]", ".0.hours", f"nothing (null); allowed is {_TIMES}"),
    ],
)
def test_each_mistake_is_named(problems: Problems, text: str, key: str, what: str) -> None:
    (line,) = problems(with_limits(text))
    assert line.startswith(f"cluster.yaml:5: provider.max_draining{key}: {what}")


def test_all_mistakes_come_at_once_each_with_its_line(problems: Problems) -> None:
    text = "\n    - {nodes: x}\n    - nodes: 1\n      hours: all day\n      colour: red"
    assert [line.partition(": ")[0] for line in problems(with_limits(text))] == [
        "cluster.yaml:6",
        "cluster.yaml:8",
        "cluster.yaml:9",
    ]
