"""`heliostat remove`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import pick_client
from heliostat.cli.durations import humanise
from heliostat.cli.options import DURATION, cluster_option, json_option
from heliostat.cli.output import Say, progress, show_json
from heliostat.cli.waiting import Pace, wait_until
from heliostat.model.report import StatusReport

WAIT_SLACK_S = 120.0
"""What a node may take to stop after its deadline before `--wait` gives up."""

WAIT_WITHOUT_DEADLINE_S = 24 * 3_600.0


@click.command("remove", short_help="Let one worker go safely.")
@click.argument("instance", metavar="ID")
@click.option("--deadline", "deadline_s", type=DURATION, help="Let it go by then even if it still works.")
@click.option("--wait", is_flag=True, help="Return when it is gone.")
@cluster_option
@json_option
def command(
    *,
    instance: str,
    deadline_s: float | None,
    wait: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Let one worker go as soon as it is idle; its work is not interrupted.

    ID is its name (w1), its instance id, or the beginning of Ray's node id. With --deadline
    its work is told to leave, and the worker goes at that time at the latest.

    \b
    Examples:
      heliostat remove w2
      heliostat remove w2 --deadline 10m --wait
    """
    client = pick_client(cluster)
    answer = client.remove(instance, deadline_s=deadline_s)
    instance_id = str(answer.get("instance_id", instance))
    name = str(answer.get("name", instance))
    if wait:
        limit_s = WAIT_WITHOUT_DEADLINE_S if deadline_s is None else deadline_s + WAIT_SLACK_S
        with progress() as say:
            wait_until(client, lambda report: _gone(report, instance_id, say), pace=Pace(timeout_s=limit_s))
    if as_json:
        show_json(answer | {"gone": wait})
    elif wait:
        click.echo(f"{name} is gone")
    else:
        when = "as soon as it is idle" if deadline_s is None else f"within {humanise(deadline_s)}"
        click.echo(f"{name} goes {when}")


def _gone(report: StatusReport, instance_id: str, say: Say) -> bool | None:
    left = next((one for one in report.instances if one.instance_id == instance_id), None)
    if left is None:
        return True
    # What keeps it counts seconds («idle for 4 s of 300 s»); in a log each would be a line.
    say(f"{left.name} is {left.state}" + ("; it goes when it is idle" if left.state == "running" else ""))
    return None
