"""`heliostat doctor`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import click

from heliostat.cli.clusters import root
from heliostat.cli.doctor import folders, processes, state
from heliostat.cli.doctor.finding import Finding
from heliostat.cli.doctor.living import Host, look
from heliostat.cli.grid import Grid, cells
from heliostat.cli.options import DURATION, json_option
from heliostat.cli.output import show, show_json, tell
from heliostat.cli.system import SystemClock
from heliostat.config.places import runtime_root
from heliostat.ports.errors import HeliostatError

FOUND_CODE = 1
OLD = "14d"


@dataclass(frozen=True)
class Result:
    """A finding, and what became of it: `outcome` is empty where nothing was tried."""

    finding: Finding
    outcome: str = ""
    fixed: bool = False


@click.command("doctor", short_help="Find what is yours and astray; clean it up.")
@click.option("--fix", is_flag=True, help="Clean up what is for certain ours and astray.")
@click.option(
    "--older-than", type=DURATION, default=OLD, show_default=True, help="Logs of clusters that do not run."
)
@json_option
def command(*, fix: bool, older_than: float, as_json: bool) -> None:
    """Find processes, jobs, sockets, folders and records that clusters of yours have left on this host.

    Nothing is touched without --fix. Exit code 0: nothing was found, or all of it is cleaned up; 1: there is
    something left.

    \b
    Examples:
      heliostat doctor
      heliostat doctor --fix
      heliostat doctor --json | jq '.[].what'
    """
    host = look(root(), os.environ, now_s=SystemClock().now_s())
    found = findings(host, old_s=older_than)
    results = _all_fixed(found) if fix else [Result(one) for one in found]
    if as_json:
        show_json([_facts(one) for one in results])
    elif results:
        show([_table(results)])
    if results and not fix and not as_json:
        tell("`heliostat doctor --fix` cleans up what it can")
    elif not results and not as_json:
        click.echo("nothing of yours is astray on this host")
    if any(not one.fixed for one in results):
        sys.exit(FOUND_CODE)


def findings(host: Host, *, old_s: float) -> list[Finding]:
    """Return all there is, in the order in which it is to be cleaned up: what tells of the rest goes last."""
    from heliostat.cli.doctor import jobs

    runtime = runtime_root(os.environ, uid=os.getuid())
    return [
        *processes.astray(host, runtime),
        *jobs.left(host, tell),
        *folders.temp_folders(host, runtime),
        *folders.runtime_folders(host, runtime),
        *state.address_files(host),
        *state.files(host, old_s=old_s),
        *state.records(host),
    ]


def _all_fixed(found: list[Finding]) -> list[Result]:
    """Clean up one after the other. A record stays while anything of its cluster does, for it tells whose."""
    results: list[Result] = []
    for one in found:
        left = any(each.finding.cluster == one.cluster and not each.fixed for each in results)
        kept = one.kind == "record" and one.cluster and left
        results.append(Result(one, "kept, since something of it is left") if kept else _fixed(one))
    return results


def _fixed(finding: Finding) -> Result:
    if finding.fix is None:
        return Result(finding, "left alone")
    try:
        finding.fix()
    except (HeliostatError, OSError) as error:
        return Result(finding, str(error))
    return Result(finding, "cleaned up", fixed=True)


def _facts(result: Result) -> dict[str, object]:
    one = result.finding
    return {
        "kind": one.kind,
        "cluster": one.cluster,
        "what": one.what,
        "why": one.why,
        "certain": one.fix is not None,
        "hint": one.hint,
        "items": list(one.items),
        "outcome": result.outcome,
        "fixed": result.fixed,
    }


def _table(results: list[Result]) -> Grid:
    rows = tuple(
        cells(one.finding.kind, one.finding.cluster, one.finding.what, one.finding.why, _remedy(one))
        for one in results
    )
    return Grid("", ("kind", "cluster", "what", "why", "remedy"), rows)


def _remedy(result: Result) -> str:
    if result.finding.fix is None:
        return f"by hand, if you know better: {result.finding.hint}"
    return result.outcome or "--fix"
