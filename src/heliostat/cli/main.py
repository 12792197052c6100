"""The command `heliostat`: finds the subcommand, loads that one only, and words every error.

A subcommand's module is imported when it is called, so that help and `status` are quick.
Exit codes: 0 done, 1 it failed, 2 bad input.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import TracebackType
from typing import IO, Any

import click

from heliostat import __version__
from heliostat.ports.errors import ConfigError, HeliostatError

COMMANDS: dict[str, dict[str, str]] = {
    "Start and stop": {
        "demo": "A real cluster on this machine: up, work, back to zero.",
        "train-demo": "Training here that grows and shrinks with its cluster.",
        "init": "Look at this site and write a cluster file that works here.",
        "migrate": "Write an older Ray-on-Slurm file in the new form.",
        "check": "Check a cluster file; start nothing.",
        "up": "Start a cluster from a file.",
        "apply": "Bring a changed file to its running cluster.",
        "down": "Take a cluster down.",
    },
    "Use": {
        "run": "Bring a cluster up, run a command on it, take it down.",
        "env": "Print what a driver needs in its environment.",
        "shell": "Open a shell with that environment.",
        "gateway": "Let colleagues elsewhere use a cluster, through Hypha.",
    },
    "Look": {
        "list": "List your clusters on this machine.",
        "status": "Show nodes, demand and what happens next.",
        "explain": "Say why a node came, went or stays, or why a demand waits.",
        "events": "Show what happened, newest last.",
        "cost": "Show node hours, core hours, money and idle share.",
        "doctor": "Find what is yours and astray; clean it up.",
    },
    "Steer": {
        "add": "Start more workers of a type now.",
        "remove": "Let one worker go safely.",
        "protect": "Keep a worker, idle or not.",
        "pause": "Stop launching and releasing.",
    },
    "Develop": {
        "sim": "Run simulated clusters where everything goes wrong.",
    },
}

DEBUG_VARIABLE = "HELIOSTAT_DEBUG"


class Failed(click.ClickException):
    """It was tried and did not work: exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines() or [""]:
            click.echo(f"heliostat: {line}", file=file, err=file is None)


class BadFile(Failed):
    """A cluster file with problems, each on a line of its own: exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


class Commands(click.Group):
    """The group whose members are loaded one by one, from `commands/NAME.py`, a dash as an underscore."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"heliostat.cli.commands.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, members in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl(list(members.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; turn the world's errors into one clear line each."""
        try:
            return super().invoke(ctx)
        except (HeliostatError, OSError) as error:
            if isinstance(error, BrokenPipeError) or os.environ.get(DEBUG_VARIABLE):
                raise
            raise _worded(error) from error


def _worded(error: HeliostatError | OSError) -> click.ClickException:
    if isinstance(error, ConfigError):
        return BadFile("\n".join(error.problems))
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return Failed(f"{what}{error.strerror or type(error).__name__}")
    return Failed(str(error))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`heliostat COMMAND --help` shows each command's options and an example.",
)
@click.version_option(__version__, "--version", prog_name="heliostat")
def cli() -> None:
    """One autoscaler for Ray: it brings machines when work waits and lets each go safely."""


def _last_resort(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Word a mistake of our own; the traceback is for those who ask for it."""
    if os.environ.get(DEBUG_VARIABLE):
        sys.__excepthook__(kind, error, trace)
        return
    text = f"heliostat: a mistake of its own ({kind.__name__}: {error}); {DEBUG_VARIABLE}=1 shows where"
    print(text, file=sys.stderr)


def main() -> None:
    """Run the command line and exit. A broken pipe ends it in silence (click does that)."""
    sys.excepthook = _last_resort
    cli(prog_name="heliostat")


if __name__ == "__main__":
    main()
