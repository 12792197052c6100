"""What `check` finds out and shows without starting anything, where the backend is Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.cli.backends import make
from heliostat.cli.files import load
from heliostat.cli.trial import _context, _of_head, _previews

CLUSTER = """
cluster_name: demo
provider: {{type: external, backends: {{local: {{}}, slurm: {{time_limit: 10, network: {network}}}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  cpu: {{resources: {{CPU: 2}}, max_workers: 3, node_config: {{backend: slurm, setup: ["module load cuda"]}}}}
  here: {{resources: {{CPU: 1}}, max_workers: 1, node_config: {{backend: local}}}}
head_node_type: head
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


def test_the_job_script_is_shown_as_slurm_would_get_it(path: Path, tmp_path: Path) -> None:
    path.write_text(CLUSTER.format(network="127.0.0.0/8"))
    spec = load(path)
    shown = _previews(spec, make(spec, lambda name: _context(spec, name, str(tmp_path))))
    assert list(shown) == ["cpu"]
    assert shown["cpu"].startswith("sbatch --parsable --job-name=heliostat:1:")
    assert "--cpus-per-task=2" in shown["cpu"]
    assert "module load cuda" in shown["cpu"]
    # What every job carries is said, not shown.
    assert "PR_SET_CHILD_SUBREAPER" not in shown["cpu"]


def test_a_network_that_this_host_does_not_have_is_a_problem(path: Path) -> None:
    path.write_text(CLUSTER.format(network="ib7"))
    (problem,) = _of_head(load(path))
    assert "provider.backends.slurm.network" in problem
    assert "ib7" in problem
    path.write_text(CLUSTER.format(network="127.0.0.0/8"))
    assert _of_head(load(path)) == []
