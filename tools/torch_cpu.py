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
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools import environment
from tools.beside_lock import COMPLETE, IMPORT_TIMEOUT_S, NotHadError, done_or_why, main, output

VERSION = "2.13.0"
FOR_GPUS = ("nvidia-", "cuda-", "triton", "pytorch-triton", "rocm")
"""How the packages are called that builds for NVIDIA's and AMD's GPUs ask for; a CPU build wants none."""
LOOK_TIMEOUT_S = 180
LINK = "torch-cpu.pth"
"""In an environment's site-packages: the folder where PyTorch is."""
MISSING = "torch-missing.txt"
"""At an environment's root: why there is none."""
_WHERE = "import sys, sysconfig as c; print('%d.%d' % sys.version_info[:2], c.get_path('purelib'), sep='\\n')"


def provide(venv: Path, uv: str) -> str | None:
    """Let `venv` find PyTorch's CPU build; return None, or why there is none (also left in `venv`)."""
    python = str(venv / "bin" / "python")
    version, site = _ask(python, _WHERE).splitlines()
    target = environment.TOOLS / f"torch-{VERSION}-python{version}"
    link = Path(site) / LINK

    def install() -> None:
        try:
            _install(target, uv, python=python)
        except NotHadError:
            link.unlink(missing_ok=True)
            raise
        link.write_text(f"{target}\n", encoding="utf-8")

    return done_or_why(install, venv / MISSING)


def _install(target: Path, uv: str, *, python: str) -> None:
    """Fill `target` from the first place that has a CPU build; raises `NotHadError` with every reason."""
    if (target / COMPLETE).exists():
        return
    print(f"getting PyTorch {VERSION} for the CPU into {target.relative_to(environment.ROOT)} …", flush=True)
    flags = ["--quiet", "--no-deps", "--compile-bytecode"]
    into = [uv, "pip", "install", *flags, "--python", python, "--target", str(target)]
    reasons = []
    for name, place in PLACES.items():
        try:
            output([*into, *place(python)], timeout_s=environment.INSTALL_TIMEOUT_S)
            _ask(python, f"import sys; sys.path.insert(0, {str(target)!r}); import torch")
        except NotHadError as error:
            reasons.append(f"by {name}: {error}")
            continue
        (target / COMPLETE).touch()
        return
    raise NotHadError("; ".join(reasons))


def _as_pip_finds(python: str) -> list[str]:
    # `--python` runs this Python's pip for the environment's, which has none of its own.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--dry-run"]
    flags = ["--no-deps", "--ignore-installed", "--only-binary=:all:", "--report", "-"]
    report = output([*pip, *flags, f"torch=={VERSION}"], timeout_s=LOOK_TIMEOUT_S)
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
    return output([python, "-c", code], timeout_s=IMPORT_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main("PyTorch", provide))
