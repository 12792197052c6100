"""A cluster file, read with everything that is installed here."""

from __future__ import annotations

import os
from pathlib import Path

from heliostat.model.node_type import ClusterSpec


def load(path: Path) -> ClusterSpec:
    """Return the checked cluster; raise ConfigError with every problem of the file."""
    from heliostat.cli.backends import backend_keys
    from heliostat.config.cluster_file import load_cluster_file
    from heliostat.config.places import site_file

    return load_cluster_file(path, backends=backend_keys(), site_file=site_file(os.environ))
