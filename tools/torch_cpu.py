"""Give the tests PyTorch's CPU build, which no lock file can name for every machine.

From the public index a plain `pip install torch` brings gigabytes for GPUs, so PyTorch is no package of
the lock's default groups; what it needs is. Its CPU build is taken from wherever pip is set up to look,
or from where uv knows that PyTorch keeps it. It lies in a folder of its own under `.tools/`: `uv pip sync`,
which takes what is not locked out of an environment, leaves it alone, and environments with other Ray
versions share it. Where there is none to be had, set-up goes on and the tests that need it say why not.
Run by `make`, with the Python that has pip:

    python -m tools.torch_cpu
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools import environment

VERSION = "2.13.0"
FOR_GPUS = ("nvidia-", "cuda-", "triton", "pytorch-triton", "rocm")
"""How the packages are called that builds for NVIDIA's and AMD's GPUs ask for; a CPU build wants none."""
LOOK_TIMEOUT_S = 180
IMPORT_TIMEOUT_S = 120
LINK = "torch-cpu.pth"
"""In an environment's site-packages: the folder where PyTorch is."""
MISSING = "torch-missing.txt"
"""At an environment's root: why there is none."""
_COMPLETE = ".complete"
_WHERE = "import sys, sysconfig as c; print('%d.%d' % sys.version_info[:2], c.get_path('purelib'), sep='\\n')"
_LAST = 3
"""Lines of a failed command that are shown."""


class NotHadError(Exception):
    """Why one place has no CPU build, in a sentence."""


def main() -> int:
    """Give `.venv` PyTorch, or say why it has none; return 0 in both cases."""
    why = provide(environment.VENV, environment.uv_command())
    if why is not None:
        print(f"no PyTorch for the tests: {why}", file=sys.stderr)
    return 0


def provide(venv: Path, uv: str) -> str | None:
    """Let `venv` find PyTorch's CPU build; return None, or why there is none (also left in `venv`)."""
    python = str(venv / "bin" / "python")
    version, site = _ask(python, _WHERE).splitlines()
    target = environment.TOOLS / f"torch-{VERSION}-python{version}"
    link, missing = Path(site) / LINK, venv / MISSING
    try:
        if not (target / _COMPLETE).exists():
            _install(target, uv, python=python)
    except NotHadError as error:
        link.unlink(missing_ok=True)
        missing.write_text(f"{error}\n", encoding="utf-8")
        return str(error)
    link.write_text(f"{target}\n", encoding="utf-8")
    missing.unlink(missing_ok=True)
    return None


def _install(target: Path, uv: str, *, python: str) -> None:
    """Fill `target` from the first place that has a CPU build; raises `NotHadError` with every reason."""
    print(f"getting PyTorch {VERSION} for the CPU into {target.relative_to(environment.ROOT)} …", flush=True)
    flags = ["--quiet", "--no-deps", "--compile-bytecode"]
    into = [uv, "pip", "install", *flags, "--python", python, "--target", str(target)]
    reasons = []
    for name, place in PLACES.items():
        try:
            _run([*into, *place(python)], timeout_s=environment.INSTALL_TIMEOUT_S)
            _ask(python, f"import sys; sys.path.insert(0, {str(target)!r}); import torch")
        except NotHadError as error:
            reasons.append(f"by {name}: {error}")
            continue
        (target / _COMPLETE).touch()
        return
    raise NotHadError("; ".join(reasons))


def _as_pip_finds(python: str) -> list[str]:
    # `--python` runs this Python's pip for the environment's, which has none of its own.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--dry-run"]
    flags = ["--no-deps", "--ignore-installed", "--only-binary=:all:", "--report", "-"]
    report = _run([*pip, *flags, f"torch=={VERSION}"], timeout_s=LOOK_TIMEOUT_S)
    try:
        return [cpu_wheel(json.loads(report))]
    except (ValueError, LookupError) as error:
        raise NotHadError(f"pip's report is none that is known here: {error!r}") from error


def cpu_wheel(report: Mapping[str, Any]) -> str:
    """Return the wheel of pip's report, as a requirement; raises `NotHadError` if it is one for GPUs."""
    found = report["install"][0]
    wanted = [one for one in found["metadata"].get("requires_dist", ()) if one.startswith(FOR_GPUS)]
    if wanted:
        raise NotHadError(f"a build for GPUs, which also wants {len(wanted)} packages")
    download = found["download_info"]
    return f"torch @ {download['url']}{_hash(download['archive_info'])}"


def _hash(archive: Mapping[str, Any]) -> str:
    """Return a wheel's hash as the end of its address; pip before 23.1 tells it in another way."""
    sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
    return f"#sha256={sha256}" if sha256 else ""


def _as_uv_knows(_: str) -> list[str]:
    return ["--torch-backend=cpu", f"torch=={VERSION}"]


# A place gives the last arguments for `uv pip install`, or raises `NotHadError`.
PLACES = {"pip": _as_pip_finds, "uv": _as_uv_knows}


def _ask(python: str, code: str) -> str:
    return _run([python, "-c", code], timeout_s=IMPORT_TIMEOUT_S)


def _run(command: list[str], *, timeout_s: float) -> str:
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
