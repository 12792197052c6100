"""All that is Ray's launcher's own and promised to nobody: its names, and what it does with a provider.

The only module of the plug-in that knows Ray. Seen in Ray 2.56 to 2.60, in its `commands` and `updater`
under `ray.autoscaler._private`; tests/unit/launcher/test_rays_launcher.py holds each point against the
installed Ray.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import click
import ray

from heliostat.launcher.asked import Asked, Refused
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.supported import NEWEST, OLDEST
from heliostat.raylink.version_note import version_note

try:
    NOTE = version_note(ray.__version__)
    from ray.autoscaler._private.util import hash_launch_conf
    from ray.autoscaler.command_runner import CommandRunnerInterface as RaysRunner
    from ray.autoscaler.node_provider import NodeProvider as RaysProvider
    from ray.autoscaler.tags import (
        NODE_KIND_HEAD,
        NODE_KIND_WORKER,
        STATUS_UNINITIALIZED,
        STATUS_UP_TO_DATE,
        TAG_RAY_LAUNCH_CONFIG,
        TAG_RAY_NODE_KIND,
        TAG_RAY_NODE_NAME,
        TAG_RAY_NODE_STATUS,
        TAG_RAY_USER_NODE_TYPE,
    )
except HeliostatError as error:
    raise Refused(str(error)) from error
except ImportError as error:
    raise Refused(
        f"Ray {ray.__version__} has another launcher ({error}): install {OLDEST} to {NEWEST}"
    ) from error

__all__ = [
    "BOOTSTRAP_FILE",
    "HEAD_IS_UP",
    "NOTE",
    "STOP_WORDS",
    "RaysProvider",
    "RaysRunner",
    "asked",
    "be_quiet_about_versions",
    "check_interface",
    "drop_cached",
    "head_tags",
    "is_for_head",
    "is_updaters_own",
    "skeleton",
    "wants_workers",
    "worker_tags",
]

FILE_PARAMETER = "cluster_config_file"
CACHE_PATH_KEY = "_config_cache_path"
CACHE_PREFIX = "ray-config-"
QUIET_VARIABLE = "RAY_UP_enable_autoscaler_v2"

BOOTSTRAP_FILE = "~/ray_bootstrap_config.yaml"
"""Where Ray copies the config for its own monitor: one place in the home folder for all clusters."""

HEAD_IS_UP = (
    f": # heliostat runs the head, in place of: ray start --head --autoscaling-config={BOOTSTRAP_FILE}"
)
"""What Ray gets as the command that starts the head. It warns where it misses these words."""

STOP_WORDS = f"; ray stop; ray teardown {BOOTSTRAP_FILE} --yes --workers-only; sudo shutdown -h now"
"""What Ray appends to a command for `--stop`."""

HEAD_TYPE = "head"

_NOTHING_TO_DO = ("uptime", "mkdir -p ")
_ALIASES = {"teardown": "down", "create-or-update": "up"}
_METHODS: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "NodeProvider": (
        RaysProvider,
        (
            "non_terminated_nodes",
            "is_running",
            "is_terminated",
            "node_tags",
            "set_node_tags",
            "external_ip",
            "internal_ip",
            "get_node_id",
            "create_node",
            "terminate_node",
            "terminate_nodes",
            "bootstrap_config",
            "prepare_for_head_node",
            "fillout_available_node_types_resources",
            "get_command_runner",
        ),
    ),
    "CommandRunnerInterface": (
        RaysRunner,
        ("run", "run_rsync_up", "run_rsync_down", "run_init", "remote_shell_command_str"),
    ),
}
_RUN_PARAMETERS = ("cmd", "timeout", "exit_on_fail", "port_forward", "with_output", "environment_variables")


def check_interface() -> None:
    """Raise Refused where the installed Ray calls a provider in another way than the one we answer."""
    missing = [
        f"{kind}.{name}"
        for kind, (found, names) in _METHODS.items()
        for name in names
        if not hasattr(found, name)
    ]
    parameters = inspect.signature(RaysRunner.run).parameters
    missing += [f"CommandRunnerInterface.run({name})" for name in _RUN_PARAMETERS if name not in parameters]
    if missing:
        raise Refused(
            f"Ray {ray.__version__} has another launcher (without {', '.join(missing)}): "
            f"install {OLDEST} to {NEWEST}"
        )


def asked() -> Asked:
    """Return which of Ray's commands runs in this thread. Raises Refused where there is none."""
    context = click.get_current_context(silent=True)
    while context is not None and FILE_PARAMETER not in context.params:
        context = context.parent
    if context is None or not context.command.name:
        raise Refused(
            "heliostat.launcher answers Ray's command line (`ray up FILE`); in a program of your own run "
            "`heliostat up FILE --detach`"
        )
    name = context.command.name.replace("_", "-")
    file = str(context.params[FILE_PARAMETER])
    if urlparse(file).scheme in ("http", "https"):
        # Ray has written it into the current folder, under its last part.
        file = file.rsplit("/", maxsplit=1)[-1]
    options = {key: value for key, value in context.params.items() if key != FILE_PARAMETER}
    return Asked(_ALIASES.get(name, name), file, options)


def skeleton(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the little of a cluster's config that Ray's launcher needs, the same for all of a name.

    Everything else is Heliostat's, which reads the file itself: so Ray runs no setup command, sees no
    reason to start the head anew, and what it keeps in its cache can't be out of date.
    """
    empty_lists = (
        "cluster_synced_files",
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "worker_setup_commands",
        "worker_start_ray_commands",
    )
    provider = {key: value for key, value in config["provider"].items() if key in ("type", "module")}
    kept = {key: config[key] for key in ("rsync_exclude", "rsync_filter") if config.get(key)}
    head = {"resources": {}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    return {
        "cluster_name": config["cluster_name"],
        "max_workers": 0,
        "provider": provider,
        "auth": {},
        "available_node_types": {HEAD_TYPE: head},
        "head_node_type": HEAD_TYPE,
        "file_mounts": {},
        "head_start_ray_commands": [HEAD_IS_UP],
        **{key: [] for key in empty_lists},
        **kept,
    }


def head_tags(cluster_name: str) -> dict[str, str]:
    """Return the tags of a head that is up, such that Ray takes it for what the file asks for."""
    return {
        TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
        TAG_RAY_NODE_NAME: f"ray-{cluster_name}-head",
        TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
        TAG_RAY_USER_NODE_TYPE: HEAD_TYPE,
        TAG_RAY_LAUNCH_CONFIG: hash_launch_conf({}, {}),
    }


def worker_tags(node_type: str, name: str, *, running: bool) -> dict[str, str]:
    return {
        TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
        TAG_RAY_NODE_NAME: name,
        TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE if running else STATUS_UNINITIALIZED,
        TAG_RAY_USER_NODE_TYPE: node_type,
    }


def wants_workers(tag_filters: Mapping[str, str]) -> bool:
    """Say whether workers may be among the nodes with these tags."""
    return bool(tag_filters.get(TAG_RAY_NODE_KIND, NODE_KIND_WORKER) == NODE_KIND_WORKER)


def is_for_head(tags: Mapping[str, str]) -> bool:
    return bool(tags.get(TAG_RAY_NODE_KIND) == NODE_KIND_HEAD)


def is_updaters_own(command: str | None) -> bool:
    """Say whether Ray's updater runs this of its own accord: with us nothing of it is left to do."""
    text = command or ""
    return text.endswith(HEAD_IS_UP) or text.startswith(_NOTHING_TO_DO)


def drop_cached(provider_config: Mapping[str, Any]) -> None:
    """Remove Ray's cached copy of the config: the file is read anew by every command."""
    path = Path(str(provider_config.get(CACHE_PATH_KEY, "")))
    if path.name.startswith(CACHE_PREFIX):
        with contextlib.suppress(OSError):
            path.unlink()


def be_quiet_about_versions() -> None:
    """Keep Ray from telling about its own autoscaler's versions, which does not run here."""
    os.environ.setdefault(QUIET_VARIABLE, "1")
