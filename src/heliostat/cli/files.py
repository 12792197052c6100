"""A cluster file, read with everything that is installed here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heliostat.model.node_type import ClusterSpec


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> ClusterSpec:
    """Return the checked cluster, with `overrides` laid over it.

    Raises ConfigError with every problem of the file, and of what it mounts.
    """
    from heliostat.cli.backends import backend_keys
    from heliostat.config.cluster_file import load_cluster_file
    from heliostat.config.places import site_file

    return load_cluster_file(
        path,
        backends=backend_keys(),
        site_file=site_file(os.environ),
        overrides=overrides,
        on_disk=True,
    )
