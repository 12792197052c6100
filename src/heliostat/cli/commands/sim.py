"""`heliostat sim`: what a developer runs to see the loop in a thousand bad days."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.children import ends_with_its_parent
from heliostat.cli.durations import humanise
from heliostat.cli.options import json_option
from heliostat.cli.output import Say, progress, show_json
from heliostat.cli.source_version import source_version

if TYPE_CHECKING:
    from heliostat.sim.campaign import Campaign, Summary
    from heliostat.sim.run import Result
    from heliostat.sim.scenario import Scenario

    _RangeType = click.ParamType[range]
else:
    # Older versions of click have no parameters for it.
    _RangeType = click.ParamType

_SEEDS = re.compile(r"(\d+)(?:-(\d+))?")

PARTS = 100
"""A run of at least so many seeds says so often how far it is."""

SHOWN_MOST = 20
"""So many violations are shown in words; `--json` has all."""


class Seeds(_RangeType):
    """`A-B`, both included, or one seed."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        match = _SEEDS.fullmatch(value)
        if not match:
            self.fail(f"{value!r} is not of the form 1-200, or 7", param, ctx)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return range(first, last + 1)


@click.group("sim", short_help="Run simulated clusters where everything goes wrong.")
def command() -> None:
    """Run simulated clusters: the real controller, planner and journal in a world that one seed decides.

    Nothing real is started, asked or written. See docs/simulator.md.

    \b
    Example:
      heliostat sim faults --seeds 1-200 --jobs 2
    """


@command.command("faults", short_help="Run many seeds with faults; print which rules broke.")
@click.option("--seeds", type=Seeds(), required=True, metavar="A-B", help="The seeds to run, or one seed.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes at a time."
)
@click.option("--trace", is_flag=True, help="Print all that happened, line by line (one seed).")
@click.option("--shrink", is_flag=True, help="Look for the smallest scenario that fails so, too (one seed).")
@json_option
def faults(*, seeds: range, jobs: int, trace: bool, shrink: bool, as_json: bool) -> None:
    """Run each seed's cluster, with its faults, and check every rule after every step.

    The exit code is 1 if a rule broke.

    \b
    Examples:
      heliostat sim faults --seeds 1-200 --jobs 2
      heliostat sim faults --seeds 7 --trace
      heliostat sim faults --seeds 7 --shrink
    """
    if (trace or shrink) and len(seeds) > 1:
        raise click.UsageError("--trace and --shrink take one seed")
    if trace or shrink:
        failed = _one(seeds[0], trace=trace, shrink=shrink, as_json=as_json)
    else:
        failed = _many(seeds, jobs, as_json=as_json)
    if failed:
        raise click.exceptions.Exit(1)


def _many(seeds: range, jobs: int, *, as_json: bool) -> bool:
    from heliostat.sim.campaign import campaign

    with progress() as say:
        heard = _Progress(len(seeds), say, aside=as_json)
        # A run of hours that is killed leaves no process behind.
        found = campaign(
            seeds, jobs=jobs, stopwatch=time.perf_counter, heard=heard, begin=ends_with_its_parent
        )
    figures = found.as_json() | {"commit": source_version()}
    if as_json:
        show_json(figures)
    else:
        _show(found, str(figures["commit"]))
    return bool(found.violations)


class _Progress:
    """Says each violation at once (`aside`: on stderr), and every hundredth of a long run how far it is."""

    def __init__(self, total: int, say: Say, *, aside: bool) -> None:
        self._total, self._say, self._aside = total, say, aside
        self._runs = self._steps = self._violations = 0
        self._began_s = time.perf_counter()

    def __call__(self, one: Summary) -> None:
        self._runs += 1
        self._steps += one.steps
        self._violations += one.failure is not None
        if one.failure is not None:
            text = f"seed {one.seed}: {one.failure['check']}: {one.failure['text']}"
            click.echo(text, err=self._aside)
        runs, total = self._runs, self._total
        if total >= PARTS and runs * PARTS // total > (runs - 1) * PARTS // total:
            took_s = time.perf_counter() - self._began_s
            self._say(
                f"{runs} of {total} seeds, {self._steps / took_s:.0f} steps a second,"
                f" {self._violations} violations,"
                f" about {humanise(took_s / runs * (total - runs))} left"
            )


def _show(found: Campaign, commit: str) -> None:
    figures = found.as_json()
    click.echo(
        f"{found.runs} runs, {found.steps} steps in {found.took_s:.1f} s ({figures['steps_per_s']} a second),"
        f" {found.faults.total()} faults, {len(found.violations)} violations, at {commit}"
    )
    for kind, count in found.faults.most_common():
        click.echo(f"  {count:>7}  {kind}")
    for one in found.violations[:SHOWN_MOST]:
        click.echo(f"replay: heliostat sim faults --seeds {one['seed']} --trace   # at {commit}")


def _one(seed: int, *, trace: bool, shrink: bool, as_json: bool) -> bool:
    from heliostat.sim.campaign import summarised
    from heliostat.sim.run import run
    from heliostat.sim.seeds import scenario
    from heliostat.sim.shrink import shrink as shrunk

    played = scenario(seed)
    result = run(played)
    if shrink and result.violation is not None:
        played, result = shrunk(result, played)
    if trace:
        result = run(played, keep_lines=True)
    if as_json:
        failure = summarised(result).failure
        figures = {"seed": seed, "steps": result.steps, "trace_hash": result.digest, "violation": failure}
        show_json(figures | {"commit": source_version(), "trace": list(result.lines)})
    else:
        _tell(played, result, shown=shrink)
    return result.violation is not None


def _tell(played: Scenario, result: Result, *, shown: bool) -> None:
    for line in result.lines:
        click.echo(line)
    if shown:
        for line in _described(played):
            click.echo(line)
    end = f"{result.violation.check}: {result.violation.text}" if result.violation else "every rule held"
    click.echo(
        f"seed {result.seed}: {end}; {result.steps} steps, {result.seconds:.0f} s,"
        f" trace {result.digest[:16]}, at {source_version()}"
    )


def _described(played: Scenario) -> Sequence[str]:
    """Return what a scenario is made of, for people who look for what it takes to fail."""
    policy = played.policy
    return [
        f"order     {'shuffled' if played.shuffled else 'first in, first out'}; faults for"
        f" {played.safety_s:.0f} s or {played.steps_most} steps",
        *(f"fault     {kind}: {rate:.4g}" for kind, rate in sorted(played.faults.items())),
        *(f"backend   {one}" for one in played.backends),
        *(f"type      {one}" for one in policy.node_types),
        *(f"work      {one}" for one in played.workload.shapes),
        f"policy    {[(key, value) for key, value in vars(policy).items() if key != 'node_types']}",
    ]
