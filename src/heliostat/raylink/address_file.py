"""Ray's `ray_current_cluster`: the file by which `ray.init()` of this host's users finds a cluster.

With one cluster on a host, `ray.init(address="auto")` finds it among the processes; with
several it follows this file. It is never taken from a cluster that still answers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from heliostat.raylink.token import MODE_VARIABLE, PATH_VARIABLE

ANSWER_S = 0.5
FILE_NAME = "ray_current_cluster"
USES_A_TOKEN_IT_FINDS = "maybe_enable_token_auth_if_token_available"
"""What `ray.init()` of a Ray that turns authentication on by itself calls."""


def address_file(environment: Mapping[str, str]) -> Path:
    """Return where Ray of this environment looks: under RAY_TMPDIR, else TMPDIR, else /tmp."""
    root = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    return Path(root) / "ray" / FILE_NAME


def claim_address_file(address: str, environment: Mapping[str, str]) -> str:
    """Write `address` unless a living cluster owns the file; return what to tell the user.

    An empty text means that `ray.init(address="auto")` finds this cluster.
    """
    path = address_file(environment)
    owner = _read(path)
    if owner == address:
        return _without_the_mode(environment)
    if owner and answers(owner):
        return (
            f'plain ray.init(address="auto") goes to the cluster at {owner}, which was here first; '
            f"set RAY_ADDRESS={address}, or run `heliostat shell`"
        )
    try:
        _write(path, address)
    except OSError as error:
        return f"{path} can't be written ({error.strerror}): set RAY_ADDRESS={address} ({PATH_VARIABLE} too)"
    return _without_the_mode(environment)


def release_address_file(address: str, environment: Mapping[str, str]) -> None:
    """Remove the file if it names `address`."""
    path = address_file(environment)
    if _read(path) == address:
        path.unlink(missing_ok=True)


def answers(address: str) -> bool:
    """Say whether something accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
            return True
    except OSError:
        return False


def _without_the_mode(environment: Mapping[str, str]) -> str:
    """Say what plain `ray.init()` lacks here: Ray before 2.59 uses no token unless it is told to."""
    import ray._private.worker

    if environment.get(MODE_VARIABLE) == "token" or hasattr(ray._private.worker, USES_A_TOKEN_IT_FINDS):
        return ""
    return (
        f'plain ray.init(address="auto") uses no token with Ray {ray.__version__}: '
        f"set {MODE_VARIABLE}=token, or run `heliostat shell`"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: Path, address: str) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        # As Ray makes it: other users of this host start their clusters in the same folder.
        path.parent.chmod(0o777)
    draft = path.with_name(f"{FILE_NAME}.{os.getpid()}")
    try:
        draft.write_text(address)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
