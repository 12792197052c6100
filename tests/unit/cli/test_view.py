from __future__ import annotations

import io

import pytest
from rich.console import Console

from heliostat.cli import view
from heliostat.model.report import (
    BackendReport,
    DemandReport,
    FailureReport,
    InstanceReport,
    StatusReport,
    TypeReport,
)
from tests.unit.api.fakes import NOW_S, instance, node_type, report

PLAIN = """\
demo: running, up for 62 min
address    127.0.0.1:6379
dashboard  http://127.0.0.1:8265

node types
  type  backend  alive  running  target  min  max  note
  gpu   local        1        1       2    0    4

instances
  name  type  state     since  slot   in use              why
  w1    gpu   running   90 s   GPU 1  1/2 CPU, 1/1 GPU    2 × {CPU: 1, GPU: 1} wait
  w2    gpu   starting  90 s   GPU 2                      2 × {CPU: 1, GPU: 1} wait

demand
  count  what              waits  verdict   why
      3  {CPU: 1, GPU: 1}  12 s   deferred  max_workers of gpu is 2

next
  w1 may go in 4 min

failed 5 min ago: lzzz.0 (gpu): exit status 1
  | ImportError: no module named ray"""


def drawn(one: StatusReport, *, width: int = 200, colour: bool = False) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    Console(file=stream, width=width, force_terminal=colour, color_system=system).print(view.rich(one))
    return stream.getvalue()


def words(text: str) -> list[str]:
    return text.split()


def test_the_whole_status_in_plain_text() -> None:
    assert words(view.plain(report())) == words(PLAIN)
    lines = view.plain(report()).splitlines()
    assert "  type  backend  alive  running  target  min  max  note" in lines
    assert "  gpu   local        1        1       2    0    4" in lines


def test_columns_line_up_in_plain_text() -> None:
    lines = view.plain(report()).splitlines()
    start = next(index for index, line in enumerate(lines) if line == "instances")
    header, first, second = lines[start + 1 : start + 4]
    assert header.index("state") == first.index("running") == second.index("starting")
    assert header.index("why") == first.index("2 ×") == second.index("2 ×")


def test_a_terminal_gets_the_same_words() -> None:
    assert words(drawn(report())) == words(PLAIN)


def test_a_terminal_gets_colours() -> None:
    assert "\x1b[" in drawn(report(), colour=True)
    assert "\x1b[" not in drawn(report())


def test_an_empty_cluster_shows_no_empty_tables() -> None:
    text = view.plain(report(instances=[], demands=[], next=[], failures=[]))
    assert not {"instances", "demand", "next"} & set(text.splitlines())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"paused": True}, "heliostat pause --off"),
        ({"foreign_nodes": 1}, "1 node that heliostat did not start"),
        ({"foreign_nodes": 2}, "2 nodes that heliostat did not start"),
        ({"cluster_idle_s": 600.0}, "nobody has used the cluster for 10 min"),
        ({"phase": "head lost"}, "demo: head lost"),
        (
            {"backends": [BackendReport("slurm", False, 240.0, "squeue: timed out")]},
            "backend slurm has not answered for 4 min: squeue: timed out",
        ),
        (
            {"backends": [BackendReport("slurm", False, 0.0)]},
            "backend slurm is being asked for the first time",
        ),
        (
            {"backends": [BackendReport("slurm", False, 0.0, "squeue: timed out")]},
            "backend slurm has not answered yet: squeue: timed out",
        ),
    ],
)
def test_what_is_out_of_the_ordinary_is_in_the_header(changes: dict[str, object], expected: str) -> None:
    assert expected in view.plain(report(**changes))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (node_type(floor=2), "2 added by hand"),
        (node_type(held="failed once, tried again in 9 s", last_error="no"), "tried again in 9 s; no"),
        (node_type(last_error="exit status 1"), "exit status 1"),
    ],
)
def test_a_types_note(one: TypeReport, expected: str) -> None:
    assert expected in view.plain(report(node_types=[one]))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (instance("w1", stays="idle for 3 min of 5 min"), "idle for 3 min of 5 min"),
        (instance("w1", protected=True), "protected; 2 × {CPU: 1, GPU: 1} wait"),
        (instance("w1", protected=True, stays="protected by hand"), "protected by hand"),
        (instance("w1", protected=True, stays="added by hand"), "added by hand"),
        (
            instance("12_3", state="queued", detail="Priority", expected_start_s=NOW_S + 3_600),
            "2 × {CPU: 1, GPU: 1} wait; Priority; expected in 60 min",
        ),
        (instance("w1", expires_at_s=NOW_S + 600), "2 × {CPU: 1, GPU: 1} wait; its lease ends in 10 min"),
        (instance("w1", detail="pid 17"), "2 × {CPU: 1, GPU: 1} wait"),
    ],
)
def test_why_an_instance_is_there(one: InstanceReport, expected: str) -> None:
    assert view.why(one, now_s=NOW_S) == expected


@pytest.mark.parametrize(
    ("used", "total", "expected"),
    [
        ({}, {"CPU": 2}, "0/2 CPU"),
        ({"CPU": 0.5}, {"CPU": 2, "node:10.0.0.1": 1}, "0.5/2 CPU"),
        ({}, {"memory": 2**33, "object_store_memory": 2**30}, ""),
        ({"memory": 2**31}, {"CPU": 1, "memory": 2**33}, "0/1 CPU, 2.0/8.0 GiB memory"),
        ({"object_store_memory": 2**29}, {"object_store_memory": 2**30}, "0.5/1.0 GiB object store"),
    ],
)
def test_what_is_in_use(used: dict[str, float], total: dict[str, float], expected: str) -> None:
    assert view.in_use(used, total) == expected


def test_text_from_outside_can_not_play_with_the_terminal() -> None:
    failure = FailureReport(
        "l1.0", "gpu", NOW_S, "bad\x1b[2J", ["\x1b]0;title\x07line", "[red]not markup[/red]"]
    )
    text = view.plain(report(failures=[failure])) + drawn(report(failures=[failure]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("[red]not markup[/red]") == 2


def test_only_the_last_failures_and_log_lines_are_shown() -> None:
    many = [
        FailureReport(f"l{n}.0", "gpu", NOW_S, "failed", [f"line {n}-{k}" for k in range(20)])
        for n in range(5)
    ]
    text = view.plain(report(failures=many))
    assert "l1.0" not in text
    assert "l2.0" in text
    assert "line 4-11" not in text
    assert "line 4-12" in text


def test_many_shapes_are_cut_and_said() -> None:
    many = [DemandReport(f"{{CPU: {n}}}", 1, 1.0, "waits", "") for n in range(1, 31)]
    text = view.plain(report(demands=many))
    assert "{CPU: 20}" in text
    assert "{CPU: 21}" not in text
    assert "and 10 more shapes" in text
