"""Which code runs: the commit of a checkout, else the version."""

from __future__ import annotations

import subprocess
from pathlib import Path

from heliostat import __version__

_TIMEOUT_S = 5.0


def source_version() -> str:
    """Return the checkout's short commit, with `+` where files differ from it; the version elsewhere."""
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return __version__
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
