"""Commands on another login node with the same home folder: with a name, sockets and locks of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

PROGRAM = """
import contextlib, socket, sys
from heliostat.cli import preparing
host = sys.argv.pop(1)
socket.gethostname = lambda: host
preparing.abstract_lock = lambda what: contextlib.nullcontext(True)
from heliostat.cli.main import main
main()
"""


def command(host: str, *words: str) -> list[str]:
    """Return what runs `heliostat WORDS` on `host`."""
    return [sys.executable, "-c", PROGRAM, host, *words]


def environment(host: str, there: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {**there, "HELIOSTAT_RUNTIME_DIR": f"{there['HELIOSTAT_RUNTIME_DIR']}-{host}"}
