"""Files of older Ray-on-Slurm providers: read as they are, and written in the new form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cli.backends import backend_keys
from heliostat.config.cluster_file import load_cluster_file
from heliostat.config.migrate import migrated
from heliostat.config.old_files import LOGIN_FILES
from heliostat.model.node_type import ClusterSpec, HeadPorts
from heliostat.ports.errors import ConfigError

OLD = Path(__file__).with_name("old")
FILES = sorted(OLD.glob("*.yaml"))
INSIDE, OUTSIDE = OLD / "inside.yaml", OLD / "outside.yaml"

Read = Callable[[str], ClusterSpec]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def load(text: str) -> ClusterSpec:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return load_cluster_file(path, backends=backend_keys())

    return load


def test_a_head_in_a_job(read: Read) -> None:
    spec = read(INSIDE.read_text())
    assert spec.backends == {"slurm": {}}
    assert spec.head_ports == HeadPorts(gcs=6380, ray_client=10001, dashboard=8266)
    assert (spec.head_type.name, spec.head_type.backend) == ("head_node", "slurm")
    assert spec.head_type.options == {
        "reservation": "username",
        "partition": "cpu",
        "setup": [LOGIN_FILES, "conda activate env_name"],
    }
    (worker,) = spec.policy.node_types
    assert (worker.backend, worker.max_workers) == ("slurm", 2)
    assert worker.options == {
        "gpu_type": "a100",
        "gpu_request": "gres",
        "partition": "gpu",
        "time_limit": "02:00:00",
        "sbatch": ["--mail-type=FAIL"],
        "setup": [LOGIN_FILES, "module load cuda", 'export A="it\'s"'],
    }


def test_a_head_on_this_machine(read: Read) -> None:
    spec = read(OUTSIDE.read_text())
    assert spec.backends == {"local": {}, "slurm": {}}
    assert spec.head_type.backend == "local"
    (command,) = spec.head_setup.commands
    assert command.text == f"{LOGIN_FILES}\nexport B=1\necho $B"
    (worker,) = spec.policy.node_types
    assert (worker.backend, worker.resources.units()["GPU"]) == ("slurm", 2)
    assert worker.setup.commands == (), "the head's lines are none of a worker's"


def test_what_has_no_meaning_any_more_is_told_once_with_its_successor(read: Read) -> None:
    notes = [one.partition("cluster.yaml:")[2] for one in read(INSIDE.read_text()).notes]
    assert [one.split(": ")[:2] for one in notes] == [
        ["4", "min_workers"],
        ["12", "provider.temp_folder_name"],
        ["13", "provider.template_path"],
        ["53", "available_node_types.worker_node.node_config.additional_slurm_commands.2"],
    ]
    assert "provider.backends.slurm.work_dir" in notes[1]
    assert len(read(OUTSIDE.read_text()).notes) == 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_new_form_reads_the_same(path: Path, read: Read) -> None:
    new = migrated(path.read_text(), str(path), backend_keys())
    assert not new.is_same
    assert read(new.text) == read(path.read_text())
    assert read(new.text).notes == ()
    again = migrated(new.text, str(path), backend_keys())
    assert (again.text, again.is_same) == (new.text, True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rays_validator_accepts_both(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    for text in (path.read_text(), migrated(path.read_text(), str(path), backend_keys()).text):
        validate_config(prepare_config(yaml.safe_load(text)))


def test_comments_stay_with_what_they_are_about() -> None:
    text = migrated(INSIDE.read_text(), "f", backend_keys()).text
    for line in (
        "# A cluster whose head is a job, as people have it.",
        "max_workers: 2 # at most",
        "  # Replaced if they are busy.\n  gcs_port: 6380",
        "      backend: slurm # workers always are",
        '      time_limit: "02:00:00"\n',
        "        - conda activate env_name # mine",
        "        # first this\n",
        '        - export A="it\'s"   # then that',
        "# Not for the user.\ninitialization_commands: []",
    ):
        assert line in text
    old = ("under_slurm", "additional_slurm", "dashboad", "template_path", "init_commands")
    assert [key for key in old if key in text] == []


def test_the_module_becomes_ours() -> None:
    text = INSIDE.read_text().replace("heliostat.launcher.NodeProvider", "ray.x.NodeProvider # theirs")
    assert "  module: heliostat.launcher.NodeProvider # theirs\n" in migrated(text, "f", backend_keys()).text


ANCHORED = """\
cluster_name: a
max_workers: 2
provider: {type: external, module: x, template_path: /t, gcs_port: 6379}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {head_node: 1, under_slurm: 1}}
  one: &one
    resources: {CPU: 1}
    node_config: &config
      head_node: 0
      init_commands: [a] # a comment
  two:
    <<: *one
    node_config:
      <<: *config
head_node_type: head
"""


def test_a_text_that_can_not_be_changed_in_place_is_written_anew(read: Read) -> None:
    new = migrated(ANCHORED, "f", backend_keys())
    assert new.notes[-1] == "f: the comments could not be kept"
    assert read(new.text) == read(ANCHORED)


def test_a_file_of_the_new_form_is_left_alone() -> None:
    text = (Path(__file__).parents[3] / "examples" / "minimal.yaml").read_text()
    assert migrated(text, "f", backend_keys()).text == text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("head_node: 0", "head_node: 1", 'node_config.head_node: 1, and head_node_type is "head_node": make'),
        ("head_node: 0", "head_node: yes", "node_config.head_node: true, and head_node_type is"),
        ("head_node: 0", "head_node: 7", "node_config.head_node: 7; allowed is 0 or 1"),
        (
            "under_slurm: 1 # w",
            "under_slurm: 0 # w",
            "workers of such a file are Slurm jobs; write",
        ),
        ("under_slurm: 1 # w", "under_slurm: a # w", 'node_config.under_slurm: "a"; allowed is 0 or 1'),
        ('"6380"', '"many"', 'provider.gcs_port: "many"; allowed is a port, 1024 to 65535'),
        ('"6380"', "80", "provider.gcs_port: 80; allowed is a port"),
        (
            '"#SBATCH --nodes=1"',
            "ls",
            'additional_slurm_commands.2: "ls": allowed is a line that begins with',
        ),
        ("- module load cuda", "- 1", "node_config.init_commands: a list; allowed is a list of text"),
        ("02:00:00", "soon", 'node_config.time_limit: "soon"; allowed is minutes'),
    ],
)
def test_what_means_nothing_is_named_with_its_line(read: Read, old: str, new: str, expected: str) -> None:
    text = INSIDE.read_text()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        read(text.replace(old, new))
    (problem,) = caught.value.problems
    assert expected in problem
    line = int(problem.split(":")[1])
    assert 10 < line < 60


@pytest.mark.parametrize("wrong", ["under_slurm: 0", "backend: slrum"])
def test_the_lines_of_a_type_whose_backend_is_wrong_are_looked_at(read: Read, wrong: str) -> None:
    text = INSIDE.read_text().replace("under_slurm: 1 # w", f"{wrong} # w")
    with pytest.raises(ConfigError) as caught:
        read(text.replace('"#SBATCH --nodes=1"', "ls"))
    first, second = caught.value.problems
    assert wrong.split(":", maxsplit=1)[0] in first
    assert 'additional_slurm_commands.2: "ls": allowed is a line that begins with' in second


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  gcs_port:",
            "  dashboard_port: 8300\n  gcs_port:",
            r":18: provider.dashboad_port: stands for dashboard_port, which is there too, on line 15; keep",
        ),
        (
            "      under_slurm: 1 # w",
            "      backend: local\n      under_slurm: 1 # w",
            r":46: .*\.under_slurm: stands for backend, which is there too, on line 45; keep one of them",
        ),
        (
            "      under_slurm: 1 # w",
            "      partition: big\n      under_slurm: 1 # w",
            r":53: .*_commands\.1: stands for partition, which is there too, on line 45; keep one of them",
        ),
        (
            "      under_slurm: 1 # w",
            "      sbatch: [--mail-user=ada]\n      under_slurm: 1 # w",
            r":55: .*_commands\.3: stands for sbatch, which is there too, on line 45; keep one of them",
        ),
    ],
)
def test_an_old_key_beside_its_successor_is_told(read: Read, old: str, new: str, expected: str) -> None:
    text = INSIDE.read_text()
    assert old in text
    with pytest.raises(ConfigError, match=expected) as caught:
        read(text.replace(old, new))
    assert len(caught.value.problems) == 1
    with pytest.raises(ConfigError, match=expected):
        migrated(text.replace(old, new), "f", backend_keys())


@pytest.mark.parametrize("new", ["backend: slurm", "partition: gpu", "time_limit: '02:00:00'"])
def test_an_old_key_that_says_the_same_as_its_successor_is_fine(read: Read, new: str) -> None:
    text = INSIDE.read_text()
    both = text.replace("      under_slurm: 1 # w", f"      {new}\n      under_slurm: 1 # w")
    assert read(both) == replace(read(text), notes=read(both).notes)


def test_setup_comes_after_the_init_commands(read: Read) -> None:
    both = INSIDE.read_text().replace(
        "under_slurm: 1 # w", "setup: [module list, 7]\n      under_slurm: 1 # w"
    )
    with pytest.raises(ConfigError, match=r":45: .*node_config\.setup\.4: 7"):
        read(both)
    both = both.replace(", 7", "")
    expected = [LOGIN_FILES, "module load cuda", 'export A="it\'s"', "module list"]
    assert read(both).policy.node_types[0].options["setup"] == expected
    assert read(migrated(both, "f", backend_keys()).text).policy.node_types[0].options["setup"] == expected


def test_init_commands_of_a_worker_here_are_none_of_the_heads(read: Read) -> None:
    text = OUTSIDE.read_text().replace("{head_node: 0, init", "{head_node: 0, backend: local, init")
    with pytest.raises(ConfigError, match="write worker_setup_commands for its type"):
        read(text)


def test_migrate_refuses_it_as_well() -> None:
    with pytest.raises(ConfigError, match=r"f:44: .*allowed is 0 or 1"):
        migrated(INSIDE.read_text().replace("head_node: 0", "head_node: 7"), "f", backend_keys())
    with pytest.raises(ConfigError, match="not valid YAML"):
        migrated("a: [", "f", backend_keys())


@pytest.mark.parametrize(
    ("resources", "gpus", "noted"),
    [("{CPU: 1}", 1, "had none"), ("{CPU: 1, GPU: 1}", 1, ""), ("{CPU: 1, GPU: 2}", 2, "resources has 2")],
)
def test_gpus_are_those_of_the_resources(read: Read, resources: str, gpus: int, noted: str) -> None:
    text = INSIDE.read_text().replace('{"CPU": 8, "GPU": 1}', resources)
    spec: Any = read(text)
    assert spec.policy.node_types[0].resources.units()["GPU"] == gpus
    said = [one for one in spec.notes if "GPU" in one]
    assert [noted in one for one in said] == ([True] if noted else [])
