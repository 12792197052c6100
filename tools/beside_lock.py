"""What the tests get beside the lock, each in a folder of its own under `.tools/`.

Environments with other Ray versions share it. Where something can't be had, set-up goes on, and the tests
that need it say why not: the reason is left in the environment.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools import environment

COMPLETE = ".complete"
"""In a folder that holds all of it."""
IMPORT_TIMEOUT_S = 120
_LAST = 3
"""Lines of a failed command that are shown."""


class NotHadError(Exception):
    """Why it is not there, in a sentence."""


def main(what: str, provide: Callable[[Path, str], str | None]) -> int:
    """Provide something for `.venv`, or say why it is not there; return 0 in both cases."""
    why = provide(environment.VENV, environment.uv_command())
    if why is not None:
        print(f"no {what} for the tests: {why}", file=sys.stderr)
    return 0


def done_or_why(install: Callable[[], None], missing: Path) -> str | None:
    """Return None, or why `install` raised `NotHadError`, which the file `missing` then says as well."""
    try:
        install()
    except NotHadError as error:
        missing.write_text(f"{error}\n", encoding="utf-8")
        return str(error)
    missing.unlink(missing_ok=True)
    return None


def output(command: Sequence[str], *, timeout_s: float) -> str:
    """Return what a command printed; raises `NotHadError` with its last words."""
    try:
        done = subprocess.run(
            command, check=False, cwd=environment.ROOT, timeout=timeout_s, capture_output=True, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHadError(str(error)) from error
    if done.returncode != 0:
        last = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-_LAST:])
        raise NotHadError(last or f"exit code {done.returncode}")
    return done.stdout
