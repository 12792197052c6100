"""Where the head keeps Ray's state outside of itself, so that it can come back with it."""

from __future__ import annotations

from dataclasses import dataclass

RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's own name. What has not heard the GCS for so long ends itself; Ray's default is 60."""


@dataclass(frozen=True)
class GcsStorage:
    """A Redis or Valkey server. Nothing in it is secret: it says where the password is.

    At most one of `password_file` (a path) and `password_env` (a variable's name) is given.
    `ca_cert` is a PEM file; there is one if, and only if, `tls`.
    """

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password_file: str = ""
    password_env: str = ""
    ca_cert: str = ""

    @property
    def address(self) -> str:
        """Return it as Ray writes it, and as it stands in a cluster file."""
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"


def namespace_of(cluster_uid: str) -> str:
    """Return what Ray puts before the names of a cluster's keys: no two clusters have the same."""
    return f"heliostat-{cluster_uid}"
