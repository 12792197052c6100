"""Commands on another login node with the same home folder: with a name, sockets and locks of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping

PROGRAM = """
import contextlib, socket, sys
from heliostat.cli import preparing, start, queued_start
host = sys.argv.pop(1)
socket.gethostname = lambda: host
preparing.abstract_lock = lambda what: contextlib.nullcontext(True)
from heliostat.cli.main import main
# Who has its standard input lets several begin at the same moment.
print("ready", flush=True)
sys.stdin.readline()
main()
"""


def command(host: str, *words: str) -> list[str]:
    """Return what runs `heliostat WORDS` on `host`."""
    return [sys.executable, "-c", PROGRAM, host, *words]


def environment(host: str, there: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {**there, "HELIOSTAT_RUNTIME_DIR": f"{there['HELIOSTAT_RUNTIME_DIR']}-{host}"}


def begin(commands: Iterable[subprocess.Popen[str]]) -> None:
    """Let them all go on at once, when each has all its code in memory."""
    for one in commands:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in commands:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
