"""What a driver needs in its environment to find the cluster and be let in."""

from __future__ import annotations

import os
from pathlib import Path

from heliostat.cli.options import CLUSTER_VARIABLE
from heliostat.config.record import ClusterRecord
from heliostat.raylink import head as raylink


def driver_variables(record: ClusterRecord) -> dict[str, str]:
    """Return the variables to set; nothing secret is among them, the token stays in its file."""
    variables = raylink.driver_environment(
        address=record.address,
        dashboard_url=record.dashboard_url,
        token_path=Path(record.token_path),
        autoscaler_v2=record.autoscaler != "v1",
    )
    return {**variables, CLUSTER_VARIABLE: record.cluster_name}


def driver_environment(record: ClusterRecord) -> dict[str, str]:
    """Return this process's environment with the driver's variables in it."""
    return {**os.environ, **driver_variables(record)}
