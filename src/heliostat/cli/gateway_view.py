"""What `heliostat gateway` finds out before it starts, and how its subcommands show things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from heliostat.cli.clusters import pick
from heliostat.cli.durations import humanise
from heliostat.cli.grid import Block, Cell, Grid, Lines, cells, clean
from heliostat.config.record import ClusterRecord
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError

Facts = Mapping[str, Any]
ID_CHARS = 12


def spec_and_record(cluster: str) -> tuple[ClusterSpec, ClusterRecord]:
    """Return a cluster's file, which must have a gateway, and the cluster, which must be up.

    `cluster` is a file, or the name of a cluster: then its own file is read, as it is now.
    """
    from heliostat.cli import files

    is_file = "/" in cluster or cluster.endswith((".yaml", ".yml"))
    record = None if is_file else pick(cluster)
    path = Path(cluster) if record is None else Path(record.source)
    spec = files.load(path)
    return with_gateway(spec, path), record or pick(spec.name)


def with_gateway(spec: ClusterSpec, path: Path) -> ClusterSpec:
    """Return a file's cluster, if the file has a gateway; else raise HeliostatError."""
    if spec.gateway is None:
        raise HeliostatError(
            f"{path} has no provider.gateway, which says who may use the cluster: see docs/gateway.md"
        )
    return spec


def blocks(facts: Facts) -> list[Block]:
    """Return what `status` shows."""
    connection, now_s = facts.get("connection", {}), float(facts["now_s"])
    calls = [_call_row(one, now_s) for one in facts["calls"]]
    found: list[Block] = [Lines("", tuple(_head(facts, connection, now_s)))]
    if calls:
        columns = ("call", "who", "what", "for", "needs", "now")
        found.append(Grid("calls in flight", columns, tuple(calls)))
    shut_out = [Cell(f"{one['who']}  since {local_time(one['at_s'])}") for one in facts["revoked"]]
    if shut_out:
        found.append(Lines("shut out", tuple(shut_out)))
    return found


def _head(facts: Facts, connection: Facts, now_s: float) -> list[Cell]:
    name = facts.get("cluster_name", "the cluster")
    is_connected = bool(connection.get("connected"))
    where = (
        f"{connection.get('server_url', 'its server')}, workspace {connection.get('workspace', 'unknown')}"
    )
    lines = [
        Cell(f"{name}: connected to {where}", "green")
        if is_connected
        else Cell(f"{name}: not connected to {where}; it tries again by itself", "red"),
        *_problems(connection),
    ]
    if service := connection.get("service"):
        lines.append(Cell(f"service   {service}"))
    if (expires_at_s := connection.get("token_expires_at_s")) is not None:
        left_s = float(expires_at_s) - now_s
        lines.append(Cell(f"sign-in   {'has expired' if left_s <= 0 else f'holds for {humanise(left_s)}'}"))
    if port := facts.get("metrics_port"):
        lines.append(Cell(f"metrics   http://127.0.0.1:{port}/metrics"))
    if facts.get("audit_is_behind"):
        lines.append(Cell("the audit log can't be written, so no calls are taken: look at the disk", "red"))
    if not facts["calls"]:
        lines.append(Cell("no call is in flight"))
    return lines


def _problems(connection: Facts) -> list[Cell]:
    """Return what stands in the way of calls, besides the connection itself."""
    found = []
    if problem := connection.get("problem"):
        found.append(f"problem   {problem}")
    if not connection.get("driver", True):
        why = connection.get("cluster_problem") or "it does not answer"
        found.append(f"cluster   {why}; no call can run, and the gateway tries again by itself")
    if trouble := connection.get("functions_problem"):
        found.append(f"functions {trouble}")
    return [Cell(clean(one), "red") for one in found]


def _call_row(call: Facts, now_s: float) -> tuple[Cell, ...]:
    what = call["function"] + (f" {call['published']}" if call.get("published") else "")
    needs = call["needs"]
    wants = [f"{needs['cpus']:g} CPU"] + ([f"{needs['gpus']:g} GPU"] if needs["gpus"] else [])
    since = humanise(max(0.0, now_s - float(call["since_s"])))
    return cells(call["call_id"], call["who"], what, since, ", ".join(wants), call["note"] or "under way")


def revoked(answer: Facts, *, own_token: bool) -> str:
    """Return what was done, in a sentence."""
    if own_token:
        return "the server refuses the gateway's own token from now on: sign in again"
    who = answer["who"]
    if "was_revoked" in answer:
        return f"{who} is no longer shut out" if answer["was_revoked"] else f"{who} was not shut out"
    ended = answer["ended"]
    calls = f", and {ended} of their calls {'has' if ended == 1 else 'have'} been ended" if ended else ""
    told = f"; the server was not told: {answer['at_server']}" if answer.get("at_server") else ""
    return f"{who} is shut out{calls}{told}"


def is_of(line: Facts, who: str | None) -> bool:
    """Say whether a line of the log is of an e-mail address or id, in lower case; None: of anybody."""
    if who is None:
        return True
    return who in {str(line.get(key, "")).lower() for key in ("who", "account", "caller_id", "parent")}


def log_line(line: Facts) -> str:
    """Return a line of the audit log for people."""
    when, event = local_time(line["at_s"]), line.get("event", "")
    what = " ".join(str(line[key]) for key in ("function", "published") if line.get(key))
    times = f" ({line['times']} times)" if line.get("times", 1) != 1 else ""
    parts = [when, str(line.get("who", "")), f"{event} {what}".strip() + times]
    if event != "asked":
        parts += [str(line[key]) for key in ("outcome", "message") if line.get(key)]
    if event == "ended":
        parts.append(
            f"{line.get('took_s', 0):g} s" + (f", {line['gpu_s']:g} GPU s" if line.get("gpu_s") else "")
        )
    if digest := line.get("script_sha256"):
        parts.append(f"script {str(digest)[:ID_CHARS]}")
    if line.get("call_id"):
        parts.append(str(line["call_id"]))
    return clean("  ".join(part for part in parts if part))


def json_line(line: Facts) -> str:
    return json.dumps(line, ensure_ascii=False)


def local_time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")
