"""`heliostat check`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from heliostat.cli.grid import Block, Lines, cells
from heliostat.cli.options import DURATION, JSON_OBJECT, json_option
from heliostat.cli.output import progress, show, show_json

DEMANDS_AT_MOST = 100_000


@dataclass(frozen=True)
class Wanted:
    """A demand to plan for: `count` times these resources."""

    resources: dict[str, Any]
    count: int


@click.command("check", short_help="Check a cluster file; start nothing.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--show", "show_all", is_flag=True, help="Show what would be started, and the plan.")
@click.option(
    "--try", "try_for", type=DURATION, help="Start a one-minute job of each type, too; wait so long for it."
)
@click.option("--demand", type=JSON_OBJECT, metavar="JSON", help="With --show: resources of one task.")
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, DEMANDS_AT_MOST),
    default=1,
    show_default=True,
    help="With --demand: how many of it.",
)
@json_option
def command(
    *,
    file: Path,
    show_all: bool,
    try_for: float | None,
    demand: dict[str, Any] | None,
    count: int,
    as_json: bool,
) -> None:
    """Check a cluster file, and this site against it; start nothing, unless told to try.

    --show prints each node type's start document, the job script of backends that have one, and
    what would be launched for a given demand on an empty cluster. Exit code 2: the file is wrong;
    1: it is right, but would not work here.

    --try submits a job of one minute for each Slurm node type, and sees whether it starts within
    that time, and whether its node and this host reach each other as workers and head must.

    \b
    Examples:
      heliostat check cluster.yaml
      heliostat check cluster.yaml --try 5m
      heliostat check cluster.yaml --show --demand '{"CPU": 1, "GPU": 1}' -n 3
    """
    from heliostat.cli.trial import examine, try_out

    if demand is not None and not show_all:
        raise click.UsageError("--demand goes with --show")
    _refuse_bad_amounts(demand or {})
    trial = examine(file)
    if try_for is not None and not trial.problems:
        with progress() as say:
            trial = try_out(trial, wait_s=try_for, say=say)
    wanted = Wanted(demand, count) if demand is not None else None
    plan = trial.plan_for(wanted.resources, wanted.count) if wanted else trial.plan_for({}, 0)
    if as_json:
        shown = (
            {"documents": trial.documents(), "jobs": dict(trial.previews), "plan": plan} if show_all else {}
        )
        shown |= {"tried": dict(trial.tried)} if try_for is not None else {}
        facts = {"file": str(file), "cluster_name": trial.spec.name, "problems": trial.problems}
        show_json({**facts, "notes": list(trial.spec.notes), **shown})
    else:
        blocks: list[Block] = []
        if show_all:
            blocks = [_documents(trial.documents()), *_jobs(trial.previews), _plan(plan, wanted)]
        if trial.tried:
            tried = [f"{name}: {words}" for name, words in trial.tried.items()]
            blocks.append(Lines("tried", cells(*tried)))
        blocks += [Lines("", cells(*trial.spec.notes))] if trial.spec.notes else []
        show([*blocks, _verdict(file, trial.summary, trial.problems)])
    sys.exit(1 if trial.problems else 0)


def _refuse_bad_amounts(demand: dict[str, Any]) -> None:
    for name, amount in demand.items():
        is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
        if not is_number or not 0 <= amount < 2**53:
            raise click.UsageError(
                f"--demand: {name} is {amount!r}; a number that is not negative is expected"
            )


def _documents(documents: dict[str, dict[str, Any]]) -> Lines:
    lines = []
    for name, document in documents.items():
        lines.append(f"{name}:")
        lines += [f"  {key}: {value}" for key, value in document.items()]
    return Lines("start documents", cells(*lines))


def _jobs(previews: Mapping[str, str]) -> list[Lines]:
    return [
        Lines(f"what is submitted for one {name}", cells(*text.splitlines()))
        for name, text in previews.items()
    ]


def _plan(plan: dict[str, Any], wanted: Wanted | None) -> Lines:
    heading = "plan for an empty cluster"
    if wanted is not None:
        heading += f" and {wanted.count} × {wanted.resources}"
    lines = [plan["note"]] if "note" in plan else []
    lines += [f"launch {one['count']} × {one['node_type']}: {one['reason']}" for one in plan["launches"]]
    lines += [
        f"held back ({one['limiter']}): {_what(one['wanted'])}: {one['text']}" for one in plan["deferred"]
    ]
    lines += [f"can never run: {one['text']}" for one in plan["infeasible"]]
    return Lines(heading, cells(*(lines or ["nothing is launched"])))


def _what(wanted: dict[str, Any]) -> str:
    return f"{wanted['count']} × {wanted['text']}"


def _verdict(file: Path, summary: str, problems: list[str]) -> Lines:
    if problems:
        return Lines(f"{file}: the file is right, but would not work here", cells(*problems))
    return Lines("", cells(f"{file}: {summary}"))
