"""Workers of two users on one node: each has a port block and a temp dir of its own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.node import BOOTSTRAP_PATH
from heliostat.providers.slurm.arguments import Ask
from heliostat.providers.slurm.options import job_options, parse_section
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.tags import Tag
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

USERS = ("root", "nobody")
TWO_BLOCKS = [24000, 24015]
PYTHON = "/usr/bin/python3"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which everybody may write, as a shared file system has them."""
    folder = Path(tempfile.mkdtemp(prefix="hel-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def submit(site: SlurmSite, folder: Path, name: str, user: str) -> str:
    """Submit a worker whose head never answers: it has its place on the node, and waits."""
    options = {"partition": "main", "time_limit": 5, "python": PYTHON, "network": "127.0.0.0/8"}
    job = job_options(parse_section({**options, "sbatch": ["--nodelist=n1"], "port_range": TWO_BLOCKS}), {})
    start = {
        "cluster_uid": f"uid-{name}",
        "gcs_address": "127.0.0.1:1",
        "node_type": "cpu",
        "resources": {"CPU": 1},
        "reach_timeout_s": 60,
        "status_file": str(folder / f"{name}.json"),
    }
    ask = Ask(
        tag=Tag("two", f"uid-{name}", user, name, "cpu", "s1", 1),
        count=1,
        first=0,
        together=False,
        resources={"CPU": 1},
        start=start,
        environment={},
        log_dir=str(folder),
        bootstrap=BOOTSTRAP_PATH.read_text(encoding="utf-8"),
    )
    made = submission(job, ask)
    return site.run(*made.argv, stdin=made.script, user=user).stdout.strip()


def status(folder: Path, name: str) -> dict[str, object]:
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"no {PYTHON} that every user may run")
def test_each_has_ports_and_a_temp_dir_of_its_own(slurm: SlurmSite, shared: Path) -> None:
    for user in USERS:
        submit(slurm, shared, user, user)
    slurm.wait_for(lambda: all("temp_dir" in status(shared, one) for one in USERS), "both have their place")
    found = {user: status(shared, user) for user in USERS}
    ports = [set(dict(one["ports"]).values()) for one in found.values()]  # type: ignore[call-overload]
    assert not ports[0] & ports[1]
    folders = {user: Path(str(one["temp_dir"])) for user, one in found.items()}
    assert {user: path.stat().st_uid for user, path in folders.items()} == {
        user: pwd.getpwnam(user).pw_uid for user in USERS
    }
    # Both blocks are taken, by whomever: a third worker is told so, and takes nobody's.
    third = submit(slurm, shared, "third", "root")
    slurm.wait_for_states({f"{third}_0": "FAILED"})
    log = (shared / "third.0+0.slurm.log").read_text()
    assert "no block of 8 free ports between 24000 and 24015" in log
    slurm.cancel_all()
    slurm.wait_for(lambda: not any(map(os.path.exists, folders.values())), "nothing is left of them")
