"""Give the tests a real Hypha server, in a virtual environment of its own.

It wants some 90 packages, several in other versions than the lock's, so it can't share `.venv`.
`hypha-server.txt` names every one with its version; `hypha-server.in` says what it was resolved from:

    uv pip compile --no-build --no-annotate --no-header tools/hypha-server.in -o tools/hypha-server.txt

Where it can't be had, set-up goes on (`beside_lock.py`). Run by `make`, with the Python that has pip:

    python -m tools.hypha_server
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools import beside_lock, environment

WANTED = environment.ROOT / "tools" / "hypha-server.txt"
MISSING = "hypha-server-missing.txt"
"""At an environment's root: why there is none."""


def provide(venv: Path, uv: str) -> str | None:
    """Install the server for the Python of `venv`; return None, or why not (also left in `venv`)."""
    python = venv / "bin" / "python"

    def install() -> None:
        _install(place(_version_of(python)), uv, python=python)

    return beside_lock.done_or_why(install, venv / MISSING)


def place(python_version: str) -> Path:
    """Return the virtual environment of the server for a Python, `3.11` say; it may not be there."""
    (pin,) = (line for line in WANTED.read_text(encoding="utf-8").splitlines() if line.startswith("hypha=="))
    return environment.TOOLS / f"hypha-server-{pin.rpartition('=')[2]}-python{python_version}"


def _install(target: Path, uv: str, *, python: Path) -> None:
    if (target / beside_lock.COMPLETE).exists():
        return
    print(f"getting a Hypha server into {target.relative_to(environment.ROOT)} …", flush=True)
    _run([uv, "venv", "--quiet", "--clear", "--no-project", "--python", str(python), str(target)])
    own = target / "bin" / "python"
    flags = ["--quiet", "--no-deps", "--compile-bytecode", *environment.index_flags()]
    _run([uv, "pip", "install", *flags, "--python", str(own), "-r", str(WANTED)])
    _run([str(own), "-c", "import hypha.server"], timeout_s=beside_lock.IMPORT_TIMEOUT_S)
    (target / beside_lock.COMPLETE).touch()


def _version_of(python: Path) -> str:
    return _run([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()


def _run(command: list[str], *, timeout_s: float = environment.INSTALL_TIMEOUT_S) -> str:
    return beside_lock.output(command, timeout_s=timeout_s)


if __name__ == "__main__":
    sys.exit(beside_lock.main("Hypha server", provide))
