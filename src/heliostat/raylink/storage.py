"""The server that keeps a head's state: may we write there, what is there of a cluster, and away with it.

Standard library only: the head's wrapper uses it, and imports no Ray. Ray keeps the state of one cluster
in hashes named `RAY<namespace>@<table>` (ray/src/ray/gcs/store_client/redis_store_client.cc).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from heliostat.model.gcs_storage import GcsStorage, namespace_of
from heliostat.ports.errors import StorageError
from heliostat.raylink.resp import RespLink

KEYS_A_LOOK = "1000"

RAYS_OWN = (("INFO", "CLUSTER"), ("EXISTS", "DUMMY"))
"""What Ray asks for besides its keys, and ends when it is refused: it looks for a cluster of Redis, and
deletes a key DUMMY to learn its primary (redis_context.cc). Here that key stays; who may not see it may not
delete it."""


def password_of(storage: GcsStorage, environment: Mapping[str, str]) -> str:
    """Return the password, empty where none is set up. Raises StorageError, without a word of it."""
    return password_at(file=storage.password_file, variable=storage.password_env, environment=environment)


def password_at(*, file: str, variable: str, environment: Mapping[str, str]) -> str:
    """Return the password in a file, or else in a variable; empty where neither is named."""
    if file:
        return _read(Path(file))
    found = environment.get(variable, "")
    if variable and not found:
        raise StorageError(
            f"the password of gcs_storage is looked for in the variable {variable}, which is not set here"
        )
    return found


def check_storage(storage: GcsStorage, environment: Mapping[str, str], *, probe: str) -> None:
    """Try what the head will do: write a key, read it and delete it. StorageError has the reason in words.

    `probe` becomes part of the key's name, so that two who try at once do not meet.
    """
    key = f"{_prefix(f'heliostat-check-{probe}')}probe"
    with RespLink(storage, password_of(storage, environment)) as link:
        for command in RAYS_OWN:
            link.call(*command)
        link.call("HSET", key, "field", "value")
        found = link.call("HGET", key, "field")
        link.call("DEL", key)
    if found != b"value":
        raise StorageError(f"{storage.address}: what was written there can't be read back")


def has_state(storage: GcsStorage, environment: Mapping[str, str], *, cluster_uid: str) -> bool:
    """Say whether the server holds anything of the cluster. Raises StorageError."""
    with RespLink(storage, password_of(storage, environment)) as link:
        return next(_keys(link, cluster_uid), None) is not None


def forget_state(storage: GcsStorage, environment: Mapping[str, str], *, cluster_uid: str) -> int:
    """Delete the cluster's keys, no others; return how many there were. Raises StorageError."""
    with RespLink(storage, password_of(storage, environment)) as link:
        # All names first: a scan may pass over keys while others are deleted.
        found = set(_keys(link, cluster_uid))
        for key in found:
            link.call("UNLINK", key)
    return len(found)


def pattern_of(cluster_uid: str) -> str:
    """Return what the names of the cluster's keys look like, for people and for SCAN."""
    return f"{_prefix(namespace_of(cluster_uid))}*"


def _prefix(namespace: str) -> str:
    return f"RAY{namespace}@"


def _keys(link: RespLink, cluster_uid: str) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        found = link.call("SCAN", cursor, "MATCH", pattern_of(cluster_uid), "COUNT", KEYS_A_LOOK)
        if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], list):
            raise StorageError("the server's answer to SCAN makes no sense")
        yield from (key for key in found[1] if isinstance(key, bytes))
        cursor = found[0] if isinstance(found[0], bytes) else b"0"
        if cursor == b"0":
            return


def _read(path: Path) -> str:
    try:
        found = path.stat()
        if found.st_uid != os.getuid():
            raise StorageError(f"the password file {path} belongs to another user (uid {found.st_uid})")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise StorageError(f"others can read the password file {path}: run `chmod 600 {path}`")
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StorageError(f"the password file {path} can't be read: {reason}") from error
    if not password or "\n" in password or "\0" in password:
        raise StorageError(f"the password file {path} holds no password: one line is expected")
    return password
