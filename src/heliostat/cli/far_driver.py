"""Drivers of a cluster whose head is on another host: what they need, and commands beside the head."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from heliostat.cli import driver
from heliostat.cli.options import CLUSTER_VARIABLE
from heliostat.cli.tunnels import SSH, step_of, tunnel_environment
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError


@dataclass(frozen=True)
class Command:
    """What to run here, and in which environment."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def is_far(record: ClusterRecord) -> bool:
    """Say whether the head is on another host; raises HeliostatError while it is on none."""
    if not record.address:
        raise HeliostatError(
            f"the head of {record.cluster_name} has not started: "
            f"`heliostat status {record.cluster_name}` shows what it waits for"
        )
    return record.host != socket.gethostname()


def variables(record: ClusterRecord) -> dict[str, str]:
    """Return what a driver on this host needs.

    A driver proper needs a node of the cluster on its own host; from elsewhere Ray's client takes
    its calls to the head.
    """
    found = driver.driver_variables(record)
    if not is_far(record):
        return found
    host = record.address.rpartition(":")[0]
    kept = {name: value for name, value in found.items() if name != "RAY_API_SERVER_ADDRESS"}
    return {**kept, "RAY_ADDRESS": f"ray://{host}:{record.client_port}"}


def shell_there(record: ClusterRecord, argv: Sequence[str], *, terminal: bool = True) -> Command:
    """Return the command that runs `argv`, a shell, on the head's host, with a driver's environment."""
    return _there(record, argv, terminal=terminal)


def job_there(record: ClusterRecord, argv: Sequence[str], *, job_id: str) -> Command:
    """Return the command that runs `argv` as a Ray job of the head, in this folder, and shows its output."""
    return _there(record, [*_job(record, job_id), os.getcwd(), *argv], terminal=False)


def pipe_to(record: ClusterRecord, argv: Sequence[str], *, without: Collection[str] = ()) -> Command:
    """Return the command that runs `argv` beside the head, here or there, as a driver whose standard streams
    carry data. It has none of the variables `without`, whatever a shell there sets."""
    if not is_far(record):
        return Command(tuple(argv), _less(driver.driver_environment(record), without))
    # Else Slurm would hold back what does not end with a new line.
    return _there(record, argv, terminal=False, options=("--unbuffered",), without=without)


def end_of_job_there(record: ClusterRecord, *, job_id: str) -> Command:
    """Return the command that stops that job; one that has ended stays as it is."""
    return _there(record, _job(record, job_id), terminal=False)


def _job(record: ClusterRecord, job_id: str) -> list[str]:
    return [record.python or "python3", "-m", "heliostat.raylink.job", record.dashboard_url, job_id]


def _there(
    record: ClusterRecord,
    argv: Sequence[str],
    *,
    terminal: bool,
    options: Sequence[str] = ("--quit-on-interrupt",),
    without: Collection[str] = (),
) -> Command:
    wanted = {**driver.driver_variables(record), CLUSTER_VARIABLE: record.cluster_name}
    environment = _less({**tunnel_environment(os.environ), **wanted}, without)
    if record.job is not None:
        how = ("--pty",) if terminal else options
        return Command((*step_of(record.job.job_id, *how), *argv), environment)
    exports = [f"{name}={value}" for name, value in wanted.items()]
    unset = [f"--unset={name}" for name in without]
    far = shlex.join(["env", f"--chdir={os.getcwd()}", *unset, *exports, *argv])
    # Without a word a user's own settings may ask for a terminal, which changes what goes through.
    return Command((*SSH, "-t" if terminal else "-T", record.host, far), environment)


def _less(environment: Mapping[str, str], without: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in without}
