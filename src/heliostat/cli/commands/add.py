"""`heliostat add`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from heliostat.api.client import ControllerClient
from heliostat.cli.clusters import pick_client
from heliostat.cli.durations import humanise
from heliostat.cli.options import DURATION, cluster_option, json_option
from heliostat.cli.output import Say, progress, show_json, tell
from heliostat.cli.waiting import Pace, TookTooLong, wait_until
from heliostat.model.report import InstanceReport, StatusReport
from heliostat.ports.errors import HeliostatError


class DidNotStart(HeliostatError):
    """A worker that was asked for failed, or went before it was up."""


@dataclass(frozen=True)
class Progress:
    """Where the new workers are: those that run, those on their way, those that are no more."""

    up: list[InstanceReport]
    coming: list[InstanceReport]
    lost: list[str]


@click.command("add", short_help="Start more workers of a type now.")
@click.argument("node_type", metavar="[TYPE]", required=False)
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many.")
@click.option("--no-wait", is_flag=True, help="Return as soon as they are asked for.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="10m", show_default=True, help="How long to wait."
)
@cluster_option
@json_option
def command(
    *,
    node_type: str | None,
    count: int,
    no_wait: bool,
    timeout_s: float,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Start more workers of a type now, demand or not, and wait until they are up.

    They stay until `heliostat remove`, or until the cluster goes down. TYPE is not needed
    when the cluster file has only one.

    \b
    Examples:
      heliostat add
      heliostat add gpu -n 2 --timeout 5m
    """
    client = pick_client(cluster)
    asked = client.add(node_type, count)
    if not no_wait:
        asked |= {"names": [one.name for one in wait_for_workers(client, asked, timeout_s=timeout_s)]}
    if as_json:
        show_json(asked)
    else:
        _say_result(asked, waited=not no_wait)
    missing = count - len(asked["instance_ids"])
    if missing > 0:
        raise DidNotStart(f"{missing} of {count} could not be had; `heliostat explain` says why")


def _say_result(asked: dict[str, Any], *, waited: bool) -> None:
    names = ", ".join(asked["names"])
    verb = "is" if len(asked["names"]) == 1 else "are"
    click.echo(f"{names} {verb} up" if waited else f"{names} {verb} asked for; `heliostat status` shows them")


def wait_for_workers(
    client: ControllerClient, asked: dict[str, Any], *, timeout_s: float
) -> list[InstanceReport]:
    """Return the new workers once all run; DidNotStart as soon as one of them can't."""
    wanted = list(asked["instance_ids"])
    with progress() as say:
        try:
            return wait_until(
                client, lambda report: _judge(report, wanted, say), pace=Pace(timeout_s=timeout_s)
            )
        except TookTooLong as error:
            raise TookTooLong(
                f"not up after {humanise(timeout_s)}, but still on the way; "
                "`heliostat status` shows it, `heliostat remove` takes it back"
            ) from error
        except KeyboardInterrupt:
            tell("no longer waiting; the workers still come (`heliostat remove` takes them back)")
            raise


def _judge(report: StatusReport, wanted: list[str], say: Say) -> list[InstanceReport] | None:
    now = sorted_out(report, wanted)
    if now.lost:
        raise DidNotStart(_why_lost(report, now.lost))
    if now.coming:
        say(describe(now))
        return None
    return now.up


def sorted_out(report: StatusReport, wanted: list[str]) -> Progress:
    """Say of each wanted instance where it is now. One that the report lacks is lost."""
    known = {one.instance_id: one for one in report.instances}
    found = [known[one] for one in wanted if one in known]
    over = ("failed", "gone", "stopping")
    lost = [one for one in wanted if one not in known or known[one].state in over]
    up = [one for one in found if one.state == "running"]
    coming = [one for one in found if one not in up and one.instance_id not in lost]
    return Progress(up, coming, lost)


def describe(now: Progress) -> str:
    """Return one line on what is being waited for."""
    waits = [
        f"{one.name} ({one.node_type}) {one.state}" + (f": {one.detail}" if one.detail else "")
        for one in now.coming
    ]
    total = len(now.up) + len(now.coming)
    return (f"{len(now.up)} of {total} up; " if total > 1 else "") + ", ".join(waits)


def _why_lost(report: StatusReport, lost: list[str]) -> str:
    lines = []
    failures = {one.instance_id: one for one in report.failures}
    for instance_id in lost:
        failure = failures.get(instance_id)
        if failure is None:
            lines.append(f"{instance_id} went before it was up; `heliostat explain {instance_id}` says why")
            continue
        lines.append(f"{instance_id} did not start: {failure.error}")
        lines += [f"  | {line}" for line in failure.log]
    return "\n".join(lines)
