"""The process of Ray's own autoscaler on the head, v1 or v2: started and restarted by the head's wrapper.

    python -m heliostat.launcher.rays_autoscaler STATE_FOLDER HEAD_TEMP_DIR

It waits for the head, then is Ray's monitor. All that is private in Ray's autoscaler is touched here.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.config.places import RuntimePlaces, StatePlaces
from heliostat.config.record import ClusterRecord, read_record
from heliostat.ports.errors import HeliostatError, Refused
from heliostat.raylink.ready import session_log_dir
from heliostat.raylink.supported import unsupported

HEAD_WAIT_S = 120.0
POLL_S = 0.1

ENDLESS_S = str(10 * 365 * 24 * 3600)
"""An instance may wait in a queue for as long as it takes; the controller has the timeouts."""

TIMEOUTS = {
    "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S": ENDLESS_S,
    "RAY_AUTOSCALER_RECONCILE_RAY_INSTALL_STATUS_TIMEOUT_S": ENDLESS_S,
}
"""Ray's own variables. It would give up what has not joined an hour after it was asked for."""

METRICS_VARIABLE, METRICS_PORT = "AUTOSCALER_METRIC_PORT", 44217

LOG_NAME = "monitor.log"
"""As Ray's own: the dashboard and drivers read it in the session's folder."""

LOG_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
LOG_BYTES, LOG_BACKUPS = 64 * 2**20, 5

TIRESOME_LOGGER, TIRESOME = "ray.autoscaler._private.util", "Dropping the empty legacy field"
"""Ray says so twice in each round, of its own defaults for an external provider."""

_LOGGING = ("ray._private.ray_logging", "setup_component_logger", "log_dir filename")
PARTS = {
    "v1": (
        ("ray.autoscaler._private.monitor", "Monitor", "address autoscaling_config log_dir monitor_ip"),
        _LOGGING,
    ),
    "v2": (
        ("ray.autoscaler.v2.monitor", "AutoscalerMonitor", "address config_reader log_dir monitor_ip"),
        (
            "ray.autoscaler.v2.instance_manager.config",
            "FileConfigReader",
            "config_file skip_content_hash",
        ),
        ("ray.autoscaler.v2.monitor", "AutoscalerMonitor._report_autoscaling_state", "autoscaling_state"),
        ("ray.autoscaler.v2.sdk", "get_cluster_resource_state", "gcs_client"),
        _LOGGING,
    ),
}
"""What is used of Ray by autoscaler: the module, the name in it, and the parameters that it must take."""


def missing_parts(autoscaler: str) -> str:
    """Say what the installed Ray lacks of what is used here; empty where it has all."""
    for module, name, parameters in PARTS[autoscaler]:
        try:
            found = attrgetter(name)(import_module(module))
        except (ImportError, AttributeError):
            return f"Ray {version('ray')} has no {module}.{name}"
        lacking = [one for one in parameters.split() if one not in inspect.signature(found).parameters]
        if lacking:
            return f"{module}.{name} of Ray {version('ray')} does not take {', '.join(lacking)}"
    return ""


def wait_for_head(places: StatePlaces, *, wait_s: float = HEAD_WAIT_S) -> ClusterRecord:
    """Return the cluster's record once its head and its controller answer. Raises HeliostatError."""
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        record = read_record(places.record)
        if record is None:
            raise HeliostatError("the cluster is down")
        if record.session_name and _controller_provides(record):
            return record
        time.sleep(POLL_S)
    raise HeliostatError(f"no head and controller within {wait_s:.0f} s")


def _controller_provides(record: ClusterRecord) -> bool:
    client = ControllerClient(RuntimePlaces(Path(record.runtime_dir)).control_socket)
    try:
        return bool(client.provided()["head"]["running"])
    except (NotRunning, NoAnswer, Refused):
        return False


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what Ray reads when it is imported: no timeouts of its own, a port for metrics that is free."""
    environment.update(TIMEOUTS)
    if METRICS_VARIABLE not in environment:
        environment[METRICS_VARIABLE] = str(_free_port(METRICS_PORT))


def _free_port(wish: int) -> int:
    for port in (wish, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise HeliostatError("no port is free for the autoscaler's metrics")


def monitor(record: ClusterRecord, *, places: StatePlaces, log_dir: str) -> Any:
    """Return Ray's monitor of this cluster, ready to run; it logs to `log_dir` and to the cluster's logs."""
    from ray._private.ray_logging import setup_component_logger

    logging.getLogger(TIRESOME_LOGGER).addFilter(lambda record: TIRESOME not in record.getMessage())
    setup_component_logger(
        logging_level="info",
        logging_format=LOG_FORMAT,
        log_dir=log_dir,
        # Both rotate; an absolute path is none of `log_dir`. What is printed all the same goes to the latter.
        filename=[LOG_NAME, str(places.autoscaler_log.absolute())],
        max_bytes=LOG_BYTES,
        backup_count=LOG_BACKUPS,
    )
    head_ip = record.address.rpartition(":")[0]
    if record.autoscaler == "v1":
        from ray.autoscaler._private.monitor import Monitor

        return Monitor(
            address=record.address,
            autoscaling_config=str(places.ray_file),
            log_dir=log_dir,
            monitor_ip=head_ip,
        )
    from ray.autoscaler.v2.instance_manager.config import FileConfigReader
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    reader = FileConfigReader(config_file=str(places.ray_file), skip_content_hash=True)
    made = _continued()(address=record.address, config_reader=reader, log_dir=log_dir, monitor_ip=head_ip)
    made.seen_before = get_cluster_resource_state(made.gcs_client).last_seen_autoscaler_state_version
    return made


def _continued() -> Any:
    """Return Ray's v2 monitor, but that its reports go on from the last version that Ray has seen.

    Ray drops older ones in silence, so that those of one which is started again would not be seen for long.
    """
    from ray.autoscaler.v2.monitor import AutoscalerMonitor

    class Continued(AutoscalerMonitor):  # type: ignore[misc]  # Ray's class is Any to mypy
        seen_before = 0

        def _report_autoscaling_state(self, gcs_client: Any, autoscaling_state: Any) -> None:
            autoscaling_state.autoscaler_state_version += self.seen_before
            AutoscalerMonitor._report_autoscaling_state(gcs_client, autoscaling_state)

    return Continued


def run(folder: Path, head_temp_dir: str) -> None:
    """Be Ray's autoscaler until a signal. Raises HeliostatError where it can't be."""
    places = StatePlaces(folder)
    record = read_record(places.record)
    if record is None:
        raise HeliostatError("the cluster is down")
    prepare(os.environ)
    why = unsupported(version("ray")) or missing_parts(record.autoscaler)
    if why:
        raise HeliostatError(f"autoscaler: ray can't be used: {why}")
    record = wait_for_head(places)
    log_dir = session_log_dir(head_temp_dir, record.session_name)
    monitor(record, places=places, log_dir=str(log_dir)).run()


def main() -> None:
    try:
        run(Path(sys.argv[1]), sys.argv[2])
    except HeliostatError as error:
        sys.stderr.write(f"autoscaler: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
