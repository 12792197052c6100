"""What a test's real services need of the machine: Debian's packages, which root installs by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress

INSTALL_S = 300.0
ADMIN_PATH = "/usr/sbin:/usr/local/sbin:/sbin"


def which(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path=ADMIN_PATH)


def lacking(commands: Sequence[str], packages: Sequence[str]) -> list[str]:
    """Return the commands that are not here; on a Debian, root installs their packages first."""
    missing = [one for one in commands if which(one) is None]
    if missing and os.getuid() == 0 and shutil.which("apt-get"):
        _install(packages)
    return [one for one in missing if which(one) is None]


def _install(packages: Sequence[str]) -> None:
    """Install the packages, as far as possible; what a package starts does not count as this run's."""
    clean = {"PATH": os.environ["PATH"], "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    for argv in (
        ("apt-get", "update", "-qq"),
        ("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages),
    ):
        quiet = subprocess.DEVNULL
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(argv, env=clean, stdin=quiet, stdout=quiet, timeout=INSTALL_S, check=False)
