"""Commands and copies for Ray's launcher: in place beside the head, with a driver's environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from heliostat.config.record import ClusterRecord
from heliostat.launcher import heliostat_command, rays_launcher
from heliostat.launcher.asked import Asked, Refused
from heliostat.launcher.cluster import Cluster, is_here, ray_logs
from heliostat.launcher.copies import Copy, copy_in_place, refuse_far_place
from heliostat.launcher.head_commands import HeadCommand, script_target, submitted_script, understood

HEAD_ID = "head"


class InPlaceRunner(rays_launcher.RaysRunner):  # type: ignore[misc]
    """Ray's command runner of one node, for one of Ray's commands.

    A command's exit code becomes that of Ray's command. What Ray's updater runs of its own accord is
    nothing: the head was set up before.
    """

    def __init__(self, cluster: Cluster, asked: Asked, node_id: str) -> None:
        self._cluster = cluster
        self._asked = asked
        self._node_id = node_id

    def run(  # noqa: PLR0913, PLR0917 - Ray's signature
        self,
        cmd: str | None = None,
        timeout: int = 120,
        exit_on_fail: bool = False,
        port_forward: Sequence[tuple[int, int]] | tuple[int, int] | None = None,
        with_output: bool = False,
        environment_variables: Mapping[str, object] | None = None,
        run_env: str = "auto",
        ssh_options_override_ssh_key: str = "",
        shutdown_after_run: bool = False,
    ) -> str:
        """Run a command beside the head and return nothing: its output goes where ours goes."""
        if not exit_on_fail:
            if not rays_launcher.is_updaters_own(cmd):
                raise Refused(f"Ray's updater wants to run {cmd!r}, which nobody here has asked for")
            return ""
        if self._node_id != HEAD_ID:
            raise Refused(f"commands run beside the head; {self._node_id} is a worker")
        if with_output:
            raise Refused("the output of a command is shown, not returned")
        if cmd is None:
            self._tell_where_the_dashboard_is()
            return ""
        words = f"{cmd}{rays_launcher.STOP_WORDS}" if shutdown_after_run else cmd
        record = None if self._asked.takes_down else self._cluster.running_record()
        told = understood(
            words,
            self._asked,
            ray_logs=ray_logs(record) if record else "",
            stop_words=rays_launcher.STOP_WORDS,
        )
        if port_forward and record:
            _refuse_far_ports(record, port_forward)
        code = self._run(told, record)
        if told.then_down:
            code = heliostat_command.show("down", self._cluster.name) or code
        if code:
            raise SystemExit(code)
        return ""

    def _run(self, told: HeadCommand, record: ClusterRecord | None) -> int:
        if told.text == "" or record is None:
            return 0
        line = [] if told.text is None else ["--command", told.text]
        return heliostat_command.show(
            "shell", self._cluster.name, *line, environment=_with_heads_python(record, os.environ)
        )

    def _tell_where_the_dashboard_is(self) -> None:
        """Say it and end Ray's command, which would wait for a tunnel that nobody needs, or can be had."""
        record = self._cluster.running_record()
        url, port = record.dashboard_url, record.dashboard_url.rpartition(":")[2]
        if is_here(record):
            click.echo(f"the dashboard of {record.cluster_name} is on this machine: {url}", err=True)
            raise SystemExit(0)
        click.echo(
            f"heliostat: no port is forwarded; `{_tunnel(record, port)}` brings the dashboard here", err=True
        )
        raise SystemExit(1)

    def run_rsync_up(self, source: str, target: str, options: Mapping[str, Any] | None = None) -> None:
        """Copy in place. Ray's config for its own monitor is not written: no such monitor runs."""
        if target == rays_launcher.BOOTSTRAP_FILE:
            return
        if source == submitted_script(self._asked) and target == script_target(self._asked):
            if not Path(source).is_file():
                raise Refused(f"{source}: no such file")
            return
        self._copy(source, target, options, beside_head=target)

    def run_rsync_down(self, source: str, target: str, options: Mapping[str, Any] | None = None) -> None:
        self._copy(source, target, options, beside_head=source)

    def _copy(self, source: str, target: str, options: Mapping[str, Any] | None, *, beside_head: str) -> None:
        """Copy on this host. Raises Refused where the head's host may have another file at `beside_head`."""
        if self._node_id != HEAD_ID:
            raise Refused(f"files are copied beside the head; {self._node_id} is a worker")
        record = self._cluster.running_record()
        refuse_far_place(record, beside_head)
        given = options or {}
        copy = Copy(
            source,
            target,
            excludes=tuple(given.get("rsync_exclude") or ()),
            filters=tuple(given.get("rsync_filter") or ()),
        )
        done, here = copy_in_place(copy), socket.gethostname()
        shared = f" (on {here}, which shares {beside_head} with {record.host}, the head's host)"
        click.echo(done if is_here(record) else f"{done}{shared}", err=True)

    def remote_shell_command_str(self) -> str:
        return f"heliostat shell {self._cluster.name}\n"


def _refuse_far_ports(
    record: ClusterRecord, port_forward: Sequence[tuple[int, int]] | tuple[int, int]
) -> None:
    """Pass where the head's ports are this machine's anyway; else raise Refused with what to do."""
    if is_here(record):
        return
    first = port_forward[0]
    port = first[1] if isinstance(first, tuple) else port_forward[1]
    raise Refused(f"--port-forward: the head is on {record.host}; `{_tunnel(record, port)}` forwards it")


def _tunnel(record: ClusterRecord, port: object) -> str:
    return f"ssh -N -L {port}:127.0.0.1:{port} {record.host}"


def _with_heads_python(record: ClusterRecord, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the head's own `python` and `ray` first, for those who activated none."""
    folder = os.path.dirname(record.python)
    if not folder:
        return dict(environment)
    return {**environment, "PATH": os.pathsep.join(filter(None, (folder, environment.get("PATH", ""))))}
