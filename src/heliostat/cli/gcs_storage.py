"""The server that keeps a cluster's state, as commands use it: may we, and what goes with the cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from heliostat.config.record import ClusterRecord
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import StorageError
from heliostat.raylink.storage import check_storage, forget_state, pattern_of

LOCAL = "local"
DOWN = "down"
"""The phase in the record of a cluster that is down, where only its state could not be deleted yet."""


def has_kept_state(record: ClusterRecord) -> bool:
    """Say whether a cluster that has crashed can go on; before its first session it has no state."""
    return record.gcs_storage is not None and bool(record.session_name) and record.phase != DOWN


def refuse_unusable(spec: ClusterSpec, environment: Mapping[str, str] = os.environ) -> None:
    """Raise StorageError where a head of this cluster file could not keep the state that it is to keep."""
    storage = spec.gcs_storage
    if storage is None:
        return
    if storage.password_env and spec.head_type.backend != LOCAL:
        raise StorageError(
            f"the head is a job of {spec.head_type.backend} and does not see the variable "
            f"{storage.password_env}: name a password_file"
        )
    check_storage(storage, environment, probe=f"{socket.gethostname()}-{os.getpid()}")


def forget_storage(record: ClusterRecord, environment: Mapping[str, str] = os.environ) -> None:
    """Delete what the cluster's head has stored; where that can't be done, raise StorageError that names it.

    Call it when no head of it runs any more: one would write again.
    """
    storage = record.gcs_storage
    if storage is None:
        return
    try:
        forget_state(storage, environment, cluster_uid=record.cluster_uid)
    except StorageError as error:
        keys = pattern_of(record.cluster_uid)
        text = f"keys {keys} of {record.cluster_name} may be left in {storage.address}: {error}"
        raise StorageError(text) from error


def forget_storage_or_say(record: ClusterRecord, say: Callable[[str], None]) -> None:
    """Do the same where a failure must not keep from what comes next: it is said."""
    try:
        forget_storage(record)
    except StorageError as error:
        say(str(error))
