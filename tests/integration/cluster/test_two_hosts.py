"""Two hosts with one home folder start the same cluster in the same second."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.record import read_record
from tests import another_host
from tests.integration.cluster.conftest import CLUSTER, places_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HOSTS = ("login1", "login2")


def start(host: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        another_host.command(host, *words),
        env=another_host.environment(host),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_one_head_runs_and_the_other_host_says_where(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(name="twohosts", workers=1, orphan_timeout_s=60, idle_timeout_s=5))
    both = {host: start(host, "up", str(path), "--detach") for host in HOSTS}
    another_host.begin(both.values())
    outputs = {host: one.communicate(timeout=90)[0] for host, one in both.items()}
    record = read_record(places_of("twohosts").record)
    assert record is not None, outputs
    down = start(record.host, "down", "twohosts")
    try:
        (loser,) = set(HOSTS) - {record.host}
        assert both[record.host].returncode == 0, outputs
        assert both[loser].returncode == 1, outputs
        # Which, depends on how far the other was; either says where it is.
        assert f"@{record.host} has just started" in outputs[loser] or (
            f"twohosts was started on {record.host}" in outputs[loser]
        )
    finally:
        output, _ = down.communicate("\n", timeout=90)
    assert down.returncode == 0, output
    assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []
