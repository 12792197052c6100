"""Where the files of a cluster are, and whether they can be kept there.

Where is pure: environment, user id and home come in as arguments. Two roots: the state
folder (may be on any file system) and the runtime folder (sockets, so local and short).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.ports.errors import HeliostatError

STATE_VARIABLE = "HELIOSTAT_STATE_DIR"
RUNTIME_VARIABLE = "HELIOSTAT_RUNTIME_DIR"
SITE_VARIABLE = "HELIOSTAT_SITE_FILE"
SITE_FILE = Path("/etc/heliostat/site.yaml")

SOCKET_PATH_BYTES_MAX = 107
RUNTIME_ID_CHARS = 8
PROBE_BYTES = 8192
"""Enough to need blocks of its own: a full disk still lets one make an empty file."""


def state_root(environ: Mapping[str, str], *, home: Path) -> Path:
    """Return the folder that holds a folder for each cluster."""
    if chosen := environ.get(STATE_VARIABLE):
        return _absolute(chosen, STATE_VARIABLE)
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG standard: a relative path in these variables is to be ignored.
    return (Path(base) if os.path.isabs(base) else home / ".local" / "state") / "heliostat"


def runtime_root(environ: Mapping[str, str], *, uid: int) -> Path:
    """Return the folder for sockets and local instances, on this host only."""
    if chosen := environ.get(RUNTIME_VARIABLE):
        return _absolute(chosen, RUNTIME_VARIABLE)
    base = environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "heliostat" if os.path.isabs(base) else Path(f"/tmp/heliostat-{uid}")


def site_file(environ: Mapping[str, str]) -> Path | None:
    """Return the site's file of defaults, whether it is there or not; None: the user wants none."""
    chosen = environ.get(SITE_VARIABLE)
    if chosen is None:
        return SITE_FILE
    return _absolute(chosen, SITE_VARIABLE) if chosen else None


@dataclass(frozen=True)
class StatePlaces:
    """The files of one cluster's state folder."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "cluster.json"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.db"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def ray_file(self) -> Path:
        """The cluster as Ray's own autoscaler reads it, where that decides."""
        return self.folder / "ray-autoscaler.yaml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def head_log(self) -> Path:
        return self.logs / "head.log"

    @property
    def controller_log(self) -> Path:
        return self.logs / "controller.log"

    @property
    def autoscaler_log(self) -> Path:
        return self.logs / "autoscaler.log"

    @property
    def gateway(self) -> Path:
        """The folder of the gateway's audit log, its revocations and its token; it outlives the cluster."""
        return self.folder / "gateway"

    @property
    def gateway_log(self) -> Path:
        return self.logs / "gateway.log"


@dataclass(frozen=True)
class RuntimePlaces:
    """The files of one cluster's runtime folder, on its head's host."""

    folder: Path

    @property
    def control_socket(self) -> Path:
        """Raises HeliostatError where the path is too long for a socket."""
        return checked_socket(self.folder / "control.sock")


def state_places(root: Path, cluster_name: str) -> StatePlaces:
    """`cluster_name` has passed the cluster file's rule, so it is one plain path part."""
    return StatePlaces(root / cluster_name)


def runtime_places(root: Path, *, owner: str, cluster_uid: str) -> RuntimePlaces:
    digest = hashlib.sha256(f"{owner}/{cluster_uid}".encode()).hexdigest()
    return RuntimePlaces(root / digest[:RUNTIME_ID_CHARS])


def gateway_socket(root: Path, state_folder: Path) -> Path:
    """Return the socket of a cluster's gateway, which runs on the host of whoever started it.

    It is in the runtime root itself, since the cluster's own folder there goes and comes with the head.
    """
    digest = hashlib.sha256(os.fsencode(state_folder)).hexdigest()[:RUNTIME_ID_CHARS]
    return checked_socket(root / f"gateway-{digest}.sock")


def checked_socket(path: Path) -> Path:
    """Return `path` if a unix socket can have it (107 bytes), else raise HeliostatError."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise HeliostatError(
            f"the socket path {path} has {length} bytes, and {SOCKET_PATH_BYTES_MAX} is the system's limit; "
            f"set {RUNTIME_VARIABLE} to a folder with a shorter name"
        )
    return path


def ensure_private_dir(folder: Path, *, uid: int) -> Path:
    """Make `folder` (mode 0700) if it is missing; after this nobody else can enter it.

    Raises HeliostatError if it is a link, no folder, another user's, or open to others:
    someone may have put it there before us to read along.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise HeliostatError(f"the folder {folder} can't be made: {_why(error)}") from error
    if stat.S_ISLNK(found.st_mode):
        raise HeliostatError(f"{folder} is a symbolic link, which is not safe here; remove it")
    if not stat.S_ISDIR(found.st_mode):
        raise HeliostatError(f"{folder} is not a folder; move it away")
    if found.st_uid != uid:
        raise HeliostatError(
            f"the folder {folder} belongs to user {found.st_uid}, not to you ({uid}); set {RUNTIME_VARIABLE} "
            "or HELIOSTAT_STATE_DIR to a folder of your own"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise HeliostatError(
            f"others can enter the folder {folder} (mode {mode:04o}); run: chmod 700 {folder}"
        )
    return folder


def writable_or_refuse(folder: Path, *, what: str = "state folder", variable: str = STATE_VARIABLE) -> None:
    """Write and sync a few KB in `folder`, made if missing; raise HeliostatError if that fails.

    Call it before anything is started: a cluster that can't remember what it launched
    would lose machines.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-") as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise HeliostatError(
            f"{what} {folder} can't be used: {_why(error)}; set {variable} to another folder"
        ) from error


_REASONS: Mapping[int, str] = {
    errno.EROFS: "it is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "it is not a folder",
}


def _why(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def _absolute(text: str, variable: str) -> Path:
    path = Path(os.path.expanduser(text))
    if not path.is_absolute():
        raise HeliostatError(f"{variable} is {text}, a relative path; set it to one that begins with /")
    return path
