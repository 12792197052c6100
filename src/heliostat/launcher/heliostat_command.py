"""The command `heliostat`, as the launcher runs it: in front of the person, or to be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

READ_TIMEOUT_S = 60.0
"""What `status` of a head elsewhere may take; it has deadlines of its own for each way."""

SIGNALLED = 128


@dataclass(frozen=True)
class Answer:
    """What a command printed. `facts` are its JSON, empty if it failed."""

    code: int
    facts: Mapping[str, Any]
    words: str


def argv(words: Sequence[str]) -> list[str]:
    """Return the command with this very interpreter. -P: no file of the current folder is imported."""
    return [sys.executable, "-P", "-m", "heliostat.cli.main", *words]


def show(*words: str, environment: Mapping[str, str] | None = None) -> int:
    """Run it with our own input and output; return its exit code, 128 + N if signal N ended it."""
    with _signals_passed_on() as children:
        child = subprocess.Popen(argv(words), env=dict(environment or os.environ))
        children.append(child)
        code = child.wait()
    return code if code >= 0 else SIGNALLED - code


def read(*words: str) -> Answer:
    """Run it with `--json` and return what it says; errors are its words without the program's name."""
    try:
        done = subprocess.run(
            argv((*words, "--json")),
            capture_output=True,
            text=True,
            timeout=READ_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(1, {}, f"`heliostat {' '.join(words)}` did not answer within {READ_TIMEOUT_S:.0f} s")
    said = "\n".join(line.removeprefix("heliostat: ") for line in done.stderr.splitlines())
    return Answer(done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}, said)


@contextmanager
def _signals_passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep signals from ending us before the child; it gets those that the terminal does not send it."""
    children: list[subprocess.Popen[bytes]] = []
    if threading.current_thread() is not threading.main_thread():
        yield children
        return

    def pass_on(number: int, _: FrameType | None) -> None:
        # Ctrl-C reaches the whole process group; without a terminal somebody meant us alone.
        if number != signal.SIGINT or not sys.stdin.isatty():
            for child in children:
                child.send_signal(number)

    before = {one: signal.signal(one, pass_on) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
