"""Job scripts for tests: made as a launch would make them, and run by bash as slurmd does."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.providers.slurm.arguments import Ask
from heliostat.providers.slurm.options import job_options, parse_section
from heliostat.providers.slurm.script import Submission, submission
from heliostat.providers.slurm.tags import Tag

STAND_IN = """
import base64, json, os
document = json.loads(base64.b64decode(os.environ["HELIOSTAT_START"]))
print(json.dumps({"document": document, "environ": dict(os.environ), "cwd": os.getcwd()}))
"""
TASK = {
    "SLURM_JOB_ID": "48",
    "SLURM_ARRAY_JOB_ID": "46",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_CPUS_ON_NODE": "4",
}
HEARS = """
import os, signal
found = signal.sigtimedwait([signal.SIGUSR1, signal.SIGTERM], 20)
print(os.environ.get("SLURM_STEP_ID"), "heard", signal.Signals(found.si_signo).name if found else None)
"""


def ask(**changes: Any) -> Ask:
    count, first = changes.get("count", 3), changes.get("first", 0)
    together = changes.get("together", False)
    tag = Tag("demo", "0123456789abcdef", "ada", "l1", "gpu", "s1", count, first, together)
    whole = Ask(
        tag=tag,
        count=count,
        first=first,
        together=together,
        at_once=None,
        resources={"CPU": 4},
        start={"cluster_uid": "0123456789abcdef", "gcs_address": "127.0.0.1:6379", "labels": {"a": "b"}},
        environment={},
        log_dir="/shared/logs",
        bootstrap=STAND_IN,
    )
    return replace(whole, **changes)


def made(options: dict[str, object] | None = None, **changes: Any) -> Submission:
    return submission(job_options(parse_section(options or {}), {}), ask(**changes))


def arguments(options: dict[str, object] | None = None, **changes: Any) -> dict[str, str]:
    command, *argv = made(options, **changes).argv
    assert command == "sbatch"
    pairs = [one.removeprefix("--").partition("=") for one in argv]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def bash(
    script: str, environ: dict[str, str], *, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a job script as slurmd does: from a file, without input."""
    inherited = {"PATH": path or os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(script)
        file.flush()
        return subprocess.run(
            ["/bin/bash", file.name],
            check=False,
            stdin=subprocess.DEVNULL,
            env={**inherited, **environ},
            text=True,
            capture_output=True,
            timeout=30,
        )


def started(
    options: dict[str, object], environ: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    done = bash(made(options, **changes).script, environ or TASK)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def tool(folder: Path, name: str, text: str) -> str:
    """Write a stand-in for a command, and return a PATH on which it is found."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"
