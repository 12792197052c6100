"""What `check` finds out and shows without starting anything, where the backend is Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.cli.backends import make
from heliostat.cli.clusters import root
from heliostat.cli.files import load
from heliostat.cli.trial import _all_types, _context, _of_head, _of_storage, _previews
from heliostat.config.places import state_places
from heliostat.model.node_type import ClusterSpec

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
    # Where its log would really be.
    assert f"--output={state_places(root(), 'demo').logs}/preview.0" in shown["cpu"]
    # What every job carries is said, not shown.
    assert "PR_SET_CHILD_SUBREAPER" not in shown["cpu"]


def test_a_network_that_this_host_does_not_have_is_a_problem(path: Path) -> None:
    path.write_text(CLUSTER.format(network="ib7"))
    (problem,) = _of_head(load(path))
    assert "provider.backends.slurm.network" in problem
    assert "ib7" in problem
    path.write_text(CLUSTER.format(network="127.0.0.0/8"))
    assert _of_head(load(path)) == []


def test_a_storage_that_does_not_take_us_is_a_problem(path: Path) -> None:
    text = CLUSTER.format(network="127.0.0.0/8")
    assert _of_storage(_loaded(path, text)) == []
    kept = text.replace("{type: external,", "{type: external, gcs_storage: {address: 'redis://127.0.0.1:1'},")
    (problem,) = _of_storage(_loaded(path, kept))
    assert problem == "provider.gcs_storage: redis://127.0.0.1:1: Connection refused"


def test_a_head_that_is_a_job_has_its_password_in_a_file(path: Path) -> None:
    storage = "gcs_storage: {address: 'redis://127.0.0.1:1', password_env: VALKEY_PASSWORD}"
    text = CLUSTER.format(network="127.0.0.0/8").replace("external,", f"external, {storage},")
    (problem,) = _of_storage(_loaded(path, text.replace("head_node_type: head", "head_node_type: cpu")))
    assert "does not see the variable VALKEY_PASSWORD: name a password_file" in problem


def _loaded(path: Path, text: str) -> ClusterSpec:
    path.write_text(text)
    return load(path)


HEAD_AS_JOB = """
cluster_name: demo
provider: {{type: external, backends: {{slurm: {{time_limit: 10{section}}}}}}}
available_node_types:
  front: {{resources: {{CPU: 0}}, node_config: {{backend: slurm, partition: mian{more}}}}}
  cpu: {{resources: {{CPU: 2}}, max_workers: 3, node_config: {{backend: slurm}}}}
head_node_type: front
"""


def test_a_head_that_is_a_job_is_shown_and_checked_like_a_worker(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(tmp_path / "state"))
    path.write_text(HEAD_AS_JOB.format(section="", more=""))
    spec = load(path)
    assert [one.name for one in _all_types(spec)] == ["front", "cpu"]
    shown = _previews(spec, make(spec, lambda name: _context(spec, name, str(tmp_path))))
    assert list(shown) == ["head (front)", "cpu"]
    assert "--partition=mian" in shown["head (front)"]
    assert f"-m heliostat.cli.head_job {tmp_path}/state/demo check" in shown["head (front)"]
    assert not (tmp_path / "state").exists()


def test_what_a_head_can_not_be_is_a_problem(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(HEAD_AS_JOB.format(section="", more=", container: {runtime: apptainer, image: /x.sif}"))
    assert _of_head(load(path)) == ["front: container: a head runs without one; use env or python"]
    monkeypatch.setenv("PATH", "/nowhere")
    path.write_text(HEAD_AS_JOB.format(section=", ssh: login.example.org", more=""))
    (problem,) = _of_head(load(path))
    assert problem.startswith("front: a head that is a Slurm job needs a state folder that its node sees")
