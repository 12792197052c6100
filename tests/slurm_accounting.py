"""Accounting for the mini Slurm of tests: slurmdbd on a MariaDB of its own, both in the site's folder.

With it accounts, QOS and limits are enforced, and `sacct` knows how jobs ended.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

COMMANDS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db", "my_print_defaults")
PACKAGES = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")
MAKE_S = 60.0
DATABASE = (
    "--no-defaults",
    "--skip-grant-tables",
    "--bind-address=127.0.0.1",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-fast-shutdown=2",
    "--user=root",
)
USERS = ("root", "nobody")
ACCOUNT = "tests"


def conf(folder: Path, port: int) -> str:
    """Return the lines of slurm.conf that turn accounting on."""
    settings = {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(port),
        # Not a password, with munge: which munged is meant.
        "AccountingStoragePass": f"{folder}/munge.socket",
        "AccountingStorageEnforce": "associations,limits,qos",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def write_files(folder: Path, *, port: int, database_port: int) -> None:
    """Write slurmdbd.conf, and make an empty database."""
    settings = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "DbdAddr": "127.0.0.1",
        "DbdHost": socket.gethostname().partition(".")[0],
        "DbdPort": str(port),
        "SlurmUser": "root",
        "PidFile": f"{folder}/slurmdbd.pid",
        "LogFile": f"{folder}/log/slurmdbd.log",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": str(database_port),
        "StorageUser": "root",
        "StorageLoc": "slurm",
    }
    path = folder / "slurmdbd.conf"
    path.touch(0o600)
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    made = subprocess.run(
        (
            "mariadb-install-db",
            *DATABASE[:1],
            f"--datadir={folder}/database",
            "--user=root",
            "--skip-test-db",
        ),
        capture_output=True,
        text=True,
        timeout=MAKE_S,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"no database could be made: {made.stdout[-2000:]}{made.stderr[-2000:]}")


def first_entities(cluster: str) -> list[tuple[str, ...]]:
    """Return what `sacctmgr add` is asked for, so that the users of `USERS` may submit."""
    return [
        ("cluster", cluster),
        ("account", ACCOUNT, "Description=tests", "Organization=tests"),
        *(("user", user, f"Account={ACCOUNT}", f"DefaultAccount={ACCOUNT}") for user in USERS),
    ]


def database_argv(folder: Path, *, port: int) -> tuple[str, ...]:
    """Return the database server's command line."""
    server = shutil.which("mariadbd") or "mariadbd"
    return (
        server,
        *DATABASE,
        f"--datadir={folder}/database",
        f"--socket={folder}/database.socket",
        f"--pid-file={folder}/database.pid",
        f"--port={port}",
    )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
