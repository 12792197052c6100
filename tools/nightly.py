"""Run what is too long for every change.

In turn: the tests marked `nightly`; the property tests with many more examples; and against every
Ray version of tools/ray-versions.txt, each in an environment of its own under `.tools/`, all other tests
and the nightly ones of what is private in Ray. Goes on after a failure, and says at the end what failed.

    python -m tools.nightly            everything
    python -m tools.nightly 2.56.1     only that Ray version
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tools import environment, torch_cpu

VERSIONS = environment.ROOT / "tools" / "ray-versions.txt"
STEP_TIMEOUT_S = 3 * 3600
PRIVATE = (
    "tests/integration/launcher",
    "tests/integration/slurm/test_ray_decides.py",
    "tests/integration/gateway/test_work_on_ray.py",
    "tests/integration/gateway/test_head_gone.py",
)
"""Tests of what is private in Ray, or differs between its versions: launcher, own autoscaler, gateway."""

EVERY_CORE = ("--numprocesses=auto", "--maxprocesses=8", "--dist=loadfile")


def ray_versions() -> list[str]:
    """Return the claimed Ray versions, oldest first."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main(arguments: Sequence[str]) -> int:
    """Run every step, or only the named Ray versions; return 1 if any failed."""
    versions = [version for version in ray_versions() if not arguments or version in arguments]
    steps: dict[str, Callable[[], bool]] = {}
    if not arguments:
        steps["nightly tests"] = partial(_pytest, environment.VENV, "-m", "nightly")
        more = {"HYPOTHESIS_PROFILE": "nightly"}
        steps["many examples"] = partial(
            _pytest, environment.VENV, "tests/unit", *EVERY_CORE, "--timeout=1800", settings=more
        )
    for version in versions:
        steps[f"Ray {version}"] = partial(_with_ray, version)
    results = {name: _timed(name, step) for name, step in steps.items()}
    print("\n".join(f"{name:16} {line}" for name, line in results.items()))
    return 1 if not results or any(line.startswith("FAILED") for line in results.values()) else 0


def _timed(name: str, step: Callable[[], bool]) -> str:
    print(f"== {name}", flush=True)
    begun_s = time.monotonic()
    try:
        passed = step()
    except (subprocess.SubprocessError, environment.SetupError) as error:
        print(error, file=sys.stderr)
        passed = False
    return f"{'passed' if passed else 'FAILED'} in {time.monotonic() - begun_s:.0f} s"


def _with_ray(version: str) -> bool:
    venv = environment.TOOLS / f"ray-{version}"
    uv = environment.uv_command()
    environment.make_venv(venv, uv, python=sys.executable, replace=True)
    wanted = venv / "wanted.txt"
    wanted.write_text(with_ray(environment.export(uv, hashes=False), version), encoding="utf-8")
    target = ["--python", str(venv / "bin" / "python")]
    environment.run([uv, "pip", "install", "--quiet", *target, *environment.index_flags(), "-r", str(wanted)])
    environment.install_project(venv, uv)
    torch_cpu.provide(venv, uv)
    everything = _pytest(venv)
    return _pytest(venv, "-m", "nightly", *PRIVATE) and everything


def with_ray(locked: str, version: str) -> str:
    """Return the locked requirements with Ray at another version."""
    text, changed = re.subn(r"^ray(\[[^]]*\])?==\S+", f"ray[default]=={version}", locked, flags=re.MULTILINE)
    assert changed == 1, "the lock names Ray once"
    return text


def _pytest(venv: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> bool:
    # The environment's own commands come first, since tests call `ray` by name.
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, **(settings or {}), "PATH": path}
    command = [str(venv / "bin" / "pytest"), *arguments]
    done = subprocess.run(command, check=False, cwd=environment.ROOT, env=env, timeout=STEP_TIMEOUT_S)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
