"""Ray's own `ray start` of a head that keeps its state, with the password where nobody else sees it.

    python -m heliostat.raylink.stored_head [--password-file=PATH | --password-env=NAME] start --head …

Ray hands a password on as an argument of its processes, and every user of the host can read those.
Here it stays in this process, which alone asks for the session's name, and reaches the GCS server,
the only other one that needs it, by the environment of that process alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from heliostat.model.gcs_storage import GcsStorage
from heliostat.ports.errors import StorageError
from heliostat.raylink.storage import password_at

FILE_OPTION, ENV_OPTION = "--password-file=", "--password-env="

FLAG = "redis_password"
"""The GCS server's flag. It reads it from its environment when it is told to (gflags, `--fromenv`)."""

PASSWORD_ARGUMENT = 3
"""Where the password is among the arguments of `get_session_key_from_storage`."""


def own_options(storage: GcsStorage) -> tuple[str, ...]:
    """Return the arguments that say where the password is; none where there is no password."""
    if storage.password_env:
        return (f"{ENV_OPTION}{storage.password_env}",)
    return (f"{FILE_OPTION}{storage.password_file}",) if storage.password_file else ()


def taken_password(
    arguments: Sequence[str], environment: MutableMapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Return the password and the arguments that are Ray's; `environment` has no password afterwards."""
    path = name = ""
    rest = list(arguments)
    if rest and rest[0].startswith(FILE_OPTION):
        path = rest.pop(0).removeprefix(FILE_OPTION)
    elif rest and rest[0].startswith(ENV_OPTION):
        name = rest.pop(0).removeprefix(ENV_OPTION)
    password = password_at(file=path, variable=name, environment=environment)
    environment.pop(name, None)
    return password, tuple(rest)


def with_password(ask: Callable[..., Any], password: str) -> Callable[..., Any]:
    """Return Ray's `get_session_key_from_storage` with the password that Ray itself is not told."""

    def asked(*arguments: Any) -> Any:
        given = list(arguments)
        given[PASSWORD_ARGUMENT] = password
        return ask(*given)

    return asked


def with_flag(start: Callable[..., Any], password: str, *, process_type: str) -> Callable[..., Any]:
    """Return Ray's `start_ray_process`, which gives the password to the one process of `process_type`."""

    def started(command: list[str], kind: str, *arguments: Any, **options: Any) -> Any:
        if kind == process_type:
            command = [*command, f"--fromenv={FLAG}"]
            options["env_updates"] = {**(options.get("env_updates") or {}), f"FLAGS_{FLAG}": password}
        return start(command, kind, *arguments, **options)

    return started


def hand_over(password: str) -> None:
    """Have this process's Ray use the password. Raises StorageError where Ray has no such places."""
    import ray._private.node as node
    import ray._private.ray_constants as constants
    import ray._private.services as services

    try:
        ask, start = node.get_session_key_from_storage, services.start_ray_process
    except AttributeError as error:
        raise StorageError(
            f"this Ray starts its GCS in another way: gcs_storage can't be used ({error})"
        ) from error
    node.get_session_key_from_storage = with_password(ask, password)
    services.start_ray_process = with_flag(start, password, process_type=constants.PROCESS_TYPE_GCS_SERVER)


def main() -> None:
    try:
        password, arguments = taken_password(sys.argv[1:], os.environ)
        if password:
            hand_over(password)
    except StorageError as error:
        sys.exit(f"head: {error}")
    from ray.scripts.scripts import cli

    sys.argv[1:] = arguments
    cli.main(list(arguments), prog_name="ray")


if __name__ == "__main__":
    main()
