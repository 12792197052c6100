"""The token that guards a cluster: one file per user, in Ray's own place, readable by its owner only.

Ray does not mind a token file that others can read; Heliostat refuses it.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from heliostat.ports.errors import ConfigError

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
TOKEN_BYTES = 32


def token_path(environment: Mapping[str, str]) -> Path:
    """Return where this user's token is: `RAY_AUTH_TOKEN_PATH`, else `~/.ray/auth_token`."""
    chosen = environment.get(PATH_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    home = environment.get("HOME")
    return (Path(home) if home else Path.home()) / ".ray" / "auth_token"


def ensure_token(environment: Mapping[str, str]) -> Path:
    """Return the path of a token that only this user can read, made if there is none.

    Raises ConfigError when others can read it, when it is empty or not ours, when it can't
    be written, or when `RAY_AUTH_TOKEN` holds another token than the file.
    """
    path = token_path(environment)
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        raise ConfigError([f"the token {path} can't be written: {error.strerror}"]) from error
    token = read_token(path)
    # Ray prefers the variable, so a driver of this shell would be refused by our head.
    if environment.get(TOKEN_VARIABLE, token) != token:
        raise ConfigError(
            [
                f"{TOKEN_VARIABLE} is set to another token than the one in {path}: "
                f"run `unset {TOKEN_VARIABLE}` first"
            ]
        )
    return path


def read_token(path: Path) -> str:
    """Return the token; raises ConfigError unless the file is ours alone and holds one."""
    try:
        found = path.stat()
        if found.st_uid != os.getuid():
            raise ConfigError([f"the token {path} belongs to another user (uid {found.st_uid})"])
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError([f"others can read the token {path}: run `chmod 600 {path}`"])
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError([f"the token {path} can't be read: {reason}"]) from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError([f"the token {path} holds no token: delete it, and a new one is made"])
    return token


def auth_environment(path: Path) -> dict[str, str]:
    """Return what a Ray process needs to use the token: no secret, only where it is."""
    return {MODE_VARIABLE: "token", PATH_VARIABLE: str(path)}


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
        _publish(draft, path)
    finally:
        draft.unlink()


def _publish(draft: Path, path: Path) -> None:
    # A link appears whole or not at all, and never replaces what another process made meanwhile.
    try:
        os.link(draft, path)
    except FileExistsError:
        return
