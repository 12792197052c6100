"""`heliostat gateway`, and `gateway status`, `logs` and `revoke`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from heliostat.cli import gateway_view
from heliostat.cli.clusters import name_of, pick, root
from heliostat.cli.options import CLUSTER_VARIABLE, cluster_argument, cluster_option, json_option
from heliostat.cli.output import show, show_json, tell
from heliostat.config.places import (
    StatePlaces,
    ensure_private_dir,
    gateway_socket,
    runtime_root,
    state_places,
)
from heliostat.gateway.desk_client import DeskClient
from heliostat.ports.errors import HeliostatError

FOLLOW_S = 1.0
TOKEN_BYTES_MAX = 64 * 1024


class _Gateway(click.Group):
    """Takes what is no subcommand for a cluster to serve."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_for_us = not args or args[0] in (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if is_for_us else ["serve", *args])


@click.group(
    "gateway",
    cls=_Gateway,
    short_help="Let colleagues elsewhere use a cluster, through Hypha.",
    no_args_is_help=True,
    subcommand_metavar="FILE | COMMAND [ARGS]...",
)
def command() -> None:
    """Let colleagues elsewhere use a cluster that is up, through a Hypha server.

    `heliostat gateway FILE` serves until Ctrl-C: it prints a link to sign in with, and lets in those whom
    `provider.gateway` of the file allows. FILE may also be the name of a cluster that runs.

    \b
    Examples:
      heliostat gateway cluster.yaml
      heliostat gateway status
      heliostat gateway logs --follow
      heliostat gateway revoke eve@example.org
    """


@command.command("serve", hidden=True)
@click.argument("cluster", envvar=CLUSTER_VARIABLE)
def serve(*, cluster: str) -> None:
    """Serve a cluster until Ctrl-C."""
    from heliostat.cli.gateway_process import GatewayStart, run_gateway
    from heliostat.cli.system import abstract_lock

    spec, record = gateway_view.spec_and_record(cluster)
    places = state_places(root(), record.cluster_name)
    runtime = ensure_private_dir(runtime_root(os.environ, uid=os.getuid()), uid=os.getuid())
    ensure_private_dir(places.gateway, uid=os.getuid())
    with abstract_lock(f"gateway {places.folder}") as held:
        if not held:
            name = record.cluster_name
            raise HeliostatError(
                f"a gateway of {name} runs already: `heliostat gateway status {name}` shows it"
            )
        run_gateway(GatewayStart(spec, record, places, gateway_socket(runtime, places.folder)))


@command.command("status", short_help="Show calls, who is shut out, and the connection.")
@cluster_argument
@json_option
def status(*, cluster: str | None, as_json: bool) -> None:
    """Show the calls in flight, who is shut out, and how the gateway stands to its Hypha server.

    \b
    Examples:
      heliostat gateway status
      heliostat gateway status demo --json | jq '.calls[].who'
    """
    facts = _client(_name(cluster)).status()
    if as_json:
        show_json(facts)
    else:
        show(gateway_view.blocks(facts))


@command.command("logs", short_help="Show the audit log, newest last.")
@cluster_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--who", metavar="WHO", help="Only of this e-mail address or id.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most."
)
@json_option
def logs(*, cluster: str | None, follow: bool, who: str | None, limit: int, as_json: bool) -> None:
    """Show who did what, when, at what cost and how it ended. With --json, one object a line.

    It reads the log itself, so it works without a gateway that runs, too.

    \b
    Examples:
      heliostat gateway logs
      heliostat gateway logs --who ada@example.org --json
      heliostat gateway logs demo --follow
    """
    from heliostat.gateway.rules.audit import NAME, Follower, last_lines

    path = _places(_name(cluster)).gateway / NAME
    wanted = who.lower() if who else None
    found = last_lines(path, limit=limit, keep=lambda line: gateway_view.is_of(line, wanted))
    follower = Follower(path) if follow else None
    if not found and not follow:
        tell(f"nothing of {who} is in the log" if who else f"nothing is in the log {path} yet")
    _print(found, as_json=as_json)
    try:
        while follower is not None:
            time.sleep(FOLLOW_S)
            _print([line for line in follower.new() if gateway_view.is_of(line, wanted)], as_json=as_json)
    except KeyboardInterrupt:
        # Ctrl-C is the way out of following, not a failure.
        return


@command.command("revoke", short_help="Shut somebody out at once.")
@click.argument("who", required=False)
@click.option("--undo", is_flag=True, help="Let them back in, as far as the file allows.")
@click.option(
    "--token-file", type=click.File("r"), help="Revoke the caller's token in this file; - is standard input."
)
@click.option("--own-token", is_flag=True, help="Revoke the gateway's own token at the Hypha server.")
@cluster_option
@json_option
def revoke(
    *,
    who: str | None,
    undo: bool,
    token_file: Any,
    own_token: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Shut WHO out, an e-mail address or an id of the Hypha server: the running gateway refuses them at once,
    ends what they have in flight, and goes on doing so after a restart.

    A token is read from a file, as a command line can be seen by everybody on this host. The server is told
    to refuse it, too.

    \b
    Examples:
      heliostat gateway revoke eve@example.org
      heliostat gateway revoke eve@example.org --undo
      heliostat gateway revoke --token-file lost-token.txt
    """
    if [bool(who), token_file is not None, own_token].count(True) != 1 or (undo and not who):
        raise click.UsageError("give WHO (with --undo to let them back), --token-file or --own-token")
    client = _client(_name(cluster))
    if who:
        answer = client.let_back(who) if undo else client.revoke(who)
    else:
        answer = client.revoke_token(None if own_token else token_file.read(TOKEN_BYTES_MAX).strip())
    if as_json:
        show_json(answer)
    else:
        click.echo(gateway_view.revoked(answer, own_token=own_token))
    if undo and not answer["was_revoked"]:
        sys.exit(1)


def _name(cluster: str | None) -> str:
    """Return the cluster's name; it need not run unless it is left out."""
    return pick(None).cluster_name if cluster is None else name_of(cluster)


def _places(name: str) -> StatePlaces:
    try:
        return state_places(root(), name)
    except ValueError as error:
        raise HeliostatError(f"no cluster can be called {name!r}") from error


def _client(name: str) -> DeskClient:
    path = gateway_socket(Path(runtime_root(os.environ, uid=os.getuid())), _places(name).folder)
    return DeskClient(path, cluster=name)


def _print(lines: list[dict[str, Any]], *, as_json: bool) -> None:
    for line in lines:
        click.echo(gateway_view.json_line(line) if as_json else gateway_view.log_line(line))
