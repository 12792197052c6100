"""Drivers of training examples, each a module beside this one, run on a cluster in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.driver import driver_environment
from tests.integration.cluster.conftest import Cluster

ROOT = Path(__file__).parents[3]
END_S = 10.0
TOLD = 6000


@dataclass(frozen=True)
class Driver:
    process: subprocess.Popen[bytes]
    log: Path

    def outcome(self, limit_s: float) -> Any:
        """Wait until it has ended well; return what it printed last as JSON, in one line."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not done within {limit_s:g} s:\n{self.output()[-TOLD:]}")
        assert code == 0, self.output()[-TOLD:]
        # Ray itself may say something after it.
        return json.loads(next(one for one in reversed(self.output().splitlines()) if one.startswith("{")))

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def driving(found: Cluster, name: str, *words: str, folder: Path) -> Iterator[Driver]:
    """Run a driver while the block runs."""
    environment = {**driver_environment(found.record), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", f"tests.integration.train.{name}", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Driver(process, log)
    finally:
        process.kill()
        process.wait(END_S)
