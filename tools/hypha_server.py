"""Give the tests a real Hypha server, in a virtual environment of its own.

It wants some 90 packages, several in other versions than the lock's, so it can't share `.venv`.
`hypha-server.txt` names every one with its version; `hypha-server.in` says what it was resolved from:

    uv pip compile --no-build --no-annotate --no-header tools/hypha-server.in -o tools/hypha-server.txt

It lies under `.tools/`, so that environments with other Ray versions share it. Where it can't be had,
set-up goes on and the tests that need it say why not. Run by `make`, with the Python that has pip:

    python -m tools.hypha_server
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools import environment

WANTED = environment.ROOT / "tools" / "hypha-server.txt"
MISSING = "hypha-server-missing.txt"
"""At an environment's root: why there is none."""
IMPORT_TIMEOUT_S = 120
_COMPLETE = ".complete"
_LAST = 3
"""Lines of a failed command that are shown."""


class NotHadError(Exception):
    """Why there is no server, in a sentence."""


def main() -> int:
    """Install the server, or say why there is none; return 0 in both cases."""
    why = provide(environment.VENV, environment.uv_command())
    if why is not None:
        print(f"no Hypha server for the tests: {why}", file=sys.stderr)
    return 0


def provide(venv: Path, uv: str) -> str | None:
    """Install the server for the Python of `venv`; return None, or why not (also left in `venv`)."""
    python, missing = venv / "bin" / "python", venv / MISSING
    try:
        _install(place(_version_of(python)), uv, python=python)
    except NotHadError as error:
        missing.write_text(f"{error}\n", encoding="utf-8")
        return str(error)
    missing.unlink(missing_ok=True)
    return None


def place(python_version: str) -> Path:
    """Return the virtual environment of the server for a Python, `3.11` say; it may not be there."""
    (pin,) = (line for line in WANTED.read_text(encoding="utf-8").splitlines() if line.startswith("hypha=="))
    return environment.TOOLS / f"hypha-server-{pin.rpartition('=')[2]}-python{python_version}"


def _install(target: Path, uv: str, *, python: Path) -> None:
    if (target / _COMPLETE).exists():
        return
    print(f"getting a Hypha server into {target.relative_to(environment.ROOT)} …", flush=True)
    _run([uv, "venv", "--quiet", "--clear", "--no-project", "--python", str(python), str(target)])
    own = target / "bin" / "python"
    flags = ["--quiet", "--no-deps", "--compile-bytecode", *environment.index_flags()]
    _run([uv, "pip", "install", *flags, "--python", str(own), "-r", str(WANTED)])
    _run([str(own), "-c", "import hypha.server"], timeout_s=IMPORT_TIMEOUT_S)
    (target / _COMPLETE).touch()


def _version_of(python: Path) -> str:
    return _run([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()


def _run(command: list[str], *, timeout_s: float = environment.INSTALL_TIMEOUT_S) -> str:
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


if __name__ == "__main__":
    sys.exit(main())
