"""The training's driver as a process of its own: started, listened to, told, and ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from heliostat.cli.json_lines import JsonLines
from heliostat.ports.errors import HeliostatError

MODULE = "heliostat.cli.train_demo.driver"
END_TIMEOUT_S = 20.0
ERROR_BYTES = 2_000


class DriverProcess:
    """The driver while the block runs. It is in a session of its own, so that Ctrl-C reaches the demo alone;
    should the demo be killed, its standard input ends, and it ends with that."""

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._argv = [sys.executable, "-m", MODULE, json.dumps(options)]
        self._environment = dict(environment)

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._lines = JsonLines(self._process.stdout.fileno())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)
        finally:
            self._errors.close()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                # What was not read any more can't be delivered.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def facts(self) -> list[dict[str, Any]]:
        """Return what it has told since the last call."""
        return [json.loads(line) for line in self._lines.read()]

    def enough(self) -> None:
        """Tell it that it may end once it has made its steps."""
        assert self._process.stdin is not None
        # One that has just ended says why by its exit code.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"enough\n")
            self._process.stdin.flush()

    def check(self) -> None:
        """Raise HeliostatError with its last words if it has failed."""
        code = self._process.returncode
        if code:
            self._errors.seek(0)
            words = self._errors.read()[-ERROR_BYTES:].decode(errors="replace").strip()
            raise HeliostatError(f"the training failed (exit code {code}):\n{words}")
