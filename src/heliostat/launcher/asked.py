"""What somebody asked of Ray's launcher, and what of it is refused with which reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import click


class Refused(click.ClickException):
    """It is not done, or did not work; one clear line says why. Ray's command ends with `exit_code`."""

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"heliostat: {line}", file=file, err=file is None)


class NotForUs(Refused):
    """Something was asked for that is never done here: bad input."""

    exit_code = 2


@dataclass(frozen=True)
class Asked:
    """One command of Ray's: its name with dashes, the cluster file as it was written, its options.

    `options` are Ray's own names and values (`max_workers`, `stop`, …), the arguments included.
    """

    command: str
    file: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def brings_up(self) -> bool:
        """Say whether a cluster that is not up is to be started."""
        return self.command == "up" or bool(self.options.get("start"))

    @property
    def takes_down(self) -> bool:
        return self.command == "down"

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return what Ray lays over the file, as options of `heliostat up` and `apply`."""
        given = {"--name": self.options.get("cluster_name"), "--max-workers": self.options.get("max_workers")}
        return tuple(
            word for name, value in given.items() if value is not None for word in (name, str(value))
        )


Rule = tuple[Sequence[str], Callable[[Mapping[str, Any]], bool], str]


def _given(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda options: any(options.get(name) not in (None, False, "", ()) for name in names)


def _zero_too(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda options: options.get(name) is not None


REFUSED: tuple[Rule, ...] = (
    (
        ("up",),
        _zero_too("min_workers"),
        "--min-workers: Ray itself has no such key of a whole cluster any more, and passes it over; "
        "set min_workers of a node type in the file",
    ),
    (
        ("up",),
        _given("restart_only"),
        "--restart-only: nothing that runs is restarted; `ray down` and `ray up` start the cluster anew, "
        "and without this option `ray up` brings it a changed file",
    ),
    (
        ("down",),
        _given("keep_min_workers"),
        "--keep-min-workers: workers end with their head, and those of --workers-only come back up to the "
        "file's min_workers; `heliostat remove` lets single ones go",
    ),
    (
        ("exec", "submit", "attach"),
        _given("screen", "tmux"),
        "--screen, --tmux: a session that is already open would lack the cluster's environment; start "
        "screen or tmux yourself, and `ray exec` in it",
    ),
    (
        ("exec",),
        lambda options: options.get("run_env") == "docker",
        "--run-env docker: Heliostat starts no containers; leave it out",
    ),
    (
        ("rsync-up", "rsync-down"),
        lambda options: not options.get("source"),
        "name a source and a target: without them Ray copies the file_mounts again, which is done when a "
        "node starts",
    ),
    (
        ("rsync-up",),
        _given("all_nodes"),
        "--all-nodes: Heliostat logs in to no worker; put the file on a file system that the nodes share, or "
        "name it in file_mounts, which each worker copies when it starts",
    ),
    (
        ("kill-random-node",),
        lambda _: True,
        "`ray kill-random-node` would kill work; `heliostat remove` lets a worker go safely",
    ),
    (
        ("cluster-dump",),
        lambda _: True,
        "`ray cluster-dump` logs in to each node by ssh, which need not let you in; `ray exec FILE 'ray "
        "local-dump'` collects the head's logs",
    ),
)
"""What is not done: of which commands, when, and why."""


def refuse(asked: Asked) -> None:
    """Raise NotForUs for what can't be honoured, before anything is done."""
    reasons = [
        reason
        for commands, applies, reason in REFUSED
        if asked.command in commands and applies(asked.options)
    ]
    if reasons:
        raise NotForUs("\n".join(reasons))
