"""Make `.venv` from the lock file with nothing but a Python 3.11 and its pip.

uv does the work; if it is not on PATH, the locked one is got by pip into `.tools/`. Packages
come from whatever index uv or pip is set up for on this machine, and must have the locked
hashes. Run by `make`, with the Python that `.venv` shall have:

    python tools/environment.py          make or update .venv
    python tools/environment.py --pinned  the same, but replace a .venv of another Python
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
STAMP = ".installed"
INSTALL_TIMEOUT_S = 1800
QUICK_TIMEOUT_S = 60
UVS_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE", "UV_OFFLINE")
NO_PIP = (
    "uv is not on PATH, and {python} has no pip to get it with.\n"
    "Install either (Debian: apt-get install python3-pip), or give a Python that has pip: make PYTHON=…"
)


class SetupError(Exception):
    """What is missing on this machine, in a sentence that says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Make or update `.venv`; return the exit code."""
    try:
        uv = uv_command()
        make_venv(VENV, uv, python=sys.executable, replace="--pinned" in arguments)
        install_locked(VENV, uv)
        install_project(VENV, uv)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"This failed (exit code {error.returncode}): {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


def uv_command() -> str:
    """Return uv's path: the one on PATH, or the locked one, got by pip if need be."""
    found = shutil.which("uv")
    if found:
        return found
    own = TOOLS / "uv" / "bin" / "uv"
    if not own.exists():
        _get_uv(own)
    return str(own)


def _get_uv(own: Path) -> None:
    if _run_quietly([sys.executable, "-m", "pip", "--version"]) is None:
        raise SetupError(NO_PIP.format(python=sys.executable))
    print("getting uv into .tools/ …", flush=True)
    TOOLS.mkdir(exist_ok=True)
    wanted = TOOLS / "uv.txt"
    wanted.write_text(locked_requirement("uv"), encoding="utf-8")
    target = own.parent.parent
    # A target folder needs no `venv` module, which Debian packs apart, and no right to write elsewhere.
    # Twice quiet: without warnings about indexes that lack it, or about being root.
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    flags = ["--require-hashes", "--only-binary=:all:", "--upgrade", "--target", str(target)]
    run([*pip, *flags, "-r", str(wanted)])


def locked_requirement(name: str) -> str:
    """Return `name==version` with every locked hash, as pip reads it."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    package = next(one for one in lock["package"] if one["name"] == name)
    hashes = [f"--hash={wheel['hash']}" for wheel in package["wheels"]]
    return " \\\n    ".join([f"{name}=={package['version']}", *hashes]) + "\n"


def make_venv(venv: Path, uv: str, *, python: str, replace: bool = False) -> None:
    """Have a virtual environment at `venv`; one that works stays, unless `replace` and another version."""
    have = _version_of(str(venv / "bin" / "python"))
    if have is not None and (have == _version_of(python) or not replace):
        return
    run([uv, "venv", "--quiet", "--clear", "--no-project", "--python", python, str(venv)])


def export(uv: str, *, hashes: bool = True) -> str:
    """Return what is locked, in the form that pip reads, without this project itself."""
    flags = ["--frozen", "--no-emit-project", "--no-header", "--no-annotate"]
    return _output([uv, "export", *flags, *([] if hashes else ["--no-hashes"])])


def install_locked(venv: Path, uv: str) -> None:
    """Make `venv` hold exactly what is locked."""
    wanted = venv / "locked.txt"
    wanted.write_text(export(uv), encoding="utf-8")
    print(
        f"installing the locked packages into {venv.relative_to(ROOT)} (about 300 MB the first time) …",
        flush=True,
    )
    sync = [uv, "pip", "sync", "--quiet", "--python", str(venv / "bin" / "python"), *index_flags()]
    # Compiled once: where Python may not write bytecode, each process of Ray would compile for itself.
    run([*sync, "--require-hashes", "--no-build", "--compile-bytecode", str(wanted)])


def install_project(venv: Path, uv: str) -> None:
    """Install this project itself, editable, with the locked build backend; leave the stamps."""
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--offline"]
    run([uv, "pip", "install", "--python", str(venv / "bin" / "python"), *flags, "-e", str(ROOT)])
    for old in venv.glob(f"{STAMP}*"):
        old.unlink()
    for name in (STAMP, f"{STAMP}-python{_version_of(str(venv / 'bin' / 'python'))}"):
        (venv / name).touch()


def _version_of(python: str) -> str | None:
    return _run_quietly([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])


def index_flags() -> list[str]:
    """Return pip's configured index for uv, which does not read pip's settings; its own come first."""
    if any(name in os.environ for name in UVS_OWN):
        return []
    url = os.environ.get("PIP_INDEX_URL")
    if not url:
        url = _run_quietly([sys.executable, "-m", "pip", "config", "get", "global.index-url"])
    return ["--default-index", url] if url else []


def _environment() -> dict[str, str]:
    # An activated environment of somebody else's must not become the target, nor may uv bring a Python.
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    return kept | {"UV_PYTHON_DOWNLOADS": "never"}


def run(command: Sequence[str]) -> None:
    """Run a command that takes its time; raises `CalledProcessError` if it fails."""
    subprocess.run(command, check=True, cwd=ROOT, env=_environment(), timeout=INSTALL_TIMEOUT_S)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env=_environment(),
        timeout=QUICK_TIMEOUT_S,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _run_quietly(command: Sequence[str]) -> str | None:
    """Return what the command printed, or None if it could not be run or failed."""
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=_environment(),
            timeout=QUICK_TIMEOUT_S,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
