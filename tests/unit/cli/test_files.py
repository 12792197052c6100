"""`init`, `check` and `apply`: the commands that take or write a cluster file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heliostat.cli.backends import backend_keys
from heliostat.config.cluster_file import load_cluster_file
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import Refused
from tests.unit.api.fakes import FakeOperations
from tests.unit.cli.conftest import Invoke

FILE = """\
cluster_name: demo
max_workers: 3
provider:
  backends:
    local: {cpus: 4, gpus: 0, memory: 8GiB}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 1}, max_workers: 3, node_config: {backend: local}}
head_node_type: head
"""


@pytest.fixture
def file(state: Path) -> Path:
    path = state / "cluster.yaml"
    path.write_text(FILE)
    return path


def test_a_good_file_passes(invoke: Invoke, file: Path) -> None:
    result = invoke("check", str(file))
    assert result.exit_code == 0
    assert "cluster demo: fine; head head, workers cpu (0–3)" in result.stdout


def test_what_would_not_work_here_is_exit_code_1(invoke: Invoke, file: Path) -> None:
    file.write_text(FILE.replace("{CPU: 1}", "{CPU: 64}"))
    result = invoke("check", str(file))
    assert result.exit_code == 1
    assert "would not work here" in result.stdout
    assert "64" in result.stdout


def test_the_plan_for_a_demand(invoke: Invoke, file: Path) -> None:
    result = invoke("check", str(file), "--show", "--demand", '{"CPU": 1}', "-n", "5", "--json")
    shown = json.loads(result.stdout)
    assert [(one["node_type"], one["count"]) for one in shown["plan"]["launches"]] == [("cpu", 3)]
    (held,) = shown["plan"]["deferred"]
    assert held["limiter"] == "max_workers of the node type"
    assert held["wanted"] == {"text": "{CPU: 1}", "count": 2, "resources": {"CPU": 1}}
    assert shown["documents"]["cpu"]["resources"]["CPU"] == 1
    assert shown["problems"] == []


def test_the_plan_in_words(invoke: Invoke, file: Path) -> None:
    text = invoke("check", str(file), "--show", "--demand", '{"GPU": 1}').stdout
    assert "can never run: no node type can hold {GPU: 1}" in text
    text = invoke("check", str(file), "--show", "--demand", '{"CPU": 1}', "-n", "5").stdout
    assert "held back (max_workers of the node type): 2 × {CPU: 1}: cpu has 3 of at most 3" in text
    assert "  cpu:\n    cluster_name: demo" in text
    assert "nothing is launched" in invoke("check", str(file), "--show").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--demand", '{"CPU": 1}'),
        ("--show", "--demand", "CPU"),
        ("--show", "--demand", "[1]"),
        ("--show", "--demand", '{"CPU": -1}'),
        ("--show", "--demand", '{"CPU": "1"}'),
        ("--show", "--demand", '{"CPU": NaN}'),
    ],
)
def test_bad_demands_are_bad_input(invoke: Invoke, file: Path, arguments: tuple[str, ...]) -> None:
    assert invoke("check", str(file), *arguments).exit_code == 2


def test_a_missing_file_is_bad_input(invoke: Invoke, state: Path) -> None:
    for name in ("check", "up", "apply"):
        assert invoke(name, str(state / "missing.yaml")).exit_code == 2


def test_apply_puts_the_file_in_place_and_says_what_changed(
    invoke: Invoke, file: Path, cluster: ClusterRecord, state: Path, operations: FakeOperations
) -> None:
    result = invoke("apply", str(file))
    assert result.stdout == "max_workers of gpu is 8 now, it was 4\n"
    assert (state / "demo" / "config.yaml").read_text() == FILE
    assert operations.asked == [("apply",)]


def test_an_unchanged_file_tries_again_what_waits(
    invoke: Invoke, file: Path, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    operations.applied = {"changes": [], "again": ["gpu is asked for again now, last failure: no account"]}
    said = invoke("apply", str(file)).stdout
    assert said == "demo: nothing changed\ngpu is asked for again now, last failure: no account\n"


def test_a_refused_file_leaves_the_former_one(
    invoke: Invoke, file: Path, cluster: ClusterRecord, state: Path, operations: FakeOperations
) -> None:
    (state / "demo" / "config.yaml").write_text("former")
    operations.refusal = Refused("refused", "the head's type changed")
    result = invoke("apply", str(file))
    assert result.exit_code == 1
    assert "the head's type changed" in result.stderr
    assert (state / "demo" / "config.yaml").read_text() == "former"
    assert [path.name for path in (state / "demo").glob("*config*")] == ["config.yaml"]


def test_a_wrong_file_is_not_applied(
    invoke: Invoke, file: Path, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    file.write_text(FILE + "max_worker: 3\n")
    result = invoke("apply", str(file))
    assert result.exit_code == 2
    assert "max_worker: unknown key" in result.stderr
    assert operations.asked == []


def test_init_writes_a_file_that_passes_its_own_check(invoke: Invoke, state: Path) -> None:
    path = state / "new.yaml"
    result = invoke("init", "local", "-o", str(path), "--name", "mine")
    assert result.exit_code == 0
    assert f"heliostat check {path}" in result.stdout
    assert "cluster mine: fine" in invoke("check", str(path)).stdout


def test_init_does_not_overwrite_unless_forced(invoke: Invoke, file: Path) -> None:
    result = invoke("init", "local", "-o", str(file))
    assert result.exit_code == 1
    assert "--force replaces it" in result.stderr
    assert file.read_text() == FILE
    assert invoke("init", "local", "-o", str(file), "--force").exit_code == 0
    assert file.read_text() != FILE


def test_init_refuses_a_name_that_no_cluster_can_have(invoke: Invoke) -> None:
    result = invoke("init", "local", "-o", "-", "--name", "a/b")
    assert result.exit_code == 2
    assert "no file for the name 'a/b'" in result.stderr
    assert "cluster_name: local" in invoke("init", "local", "-o", "-").stdout.replace('"', "")


def test_apply_lays_options_over_the_file(invoke: Invoke, cluster: ClusterRecord, file: Path) -> None:
    file.write_text(FILE.replace("cluster_name: demo", "cluster_name: mine"))
    result = invoke("apply", str(file), "--name", "demo", "--max-workers", "2")
    assert result.exit_code == 0
    applied = (file.parent / "demo" / "config.yaml").read_text()
    assert "max_workers: 2\n" in applied
    assert "cluster_name: demo\n" in applied


def test_a_file_of_another_folder_mounts_what_lies_beside_it(
    invoke: Invoke, cluster: ClusterRecord, state: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    # Each onto itself, which needs no rsync here.
    (other / "base.yaml").write_text(f"file_mounts: {{{other}/base.yaml: base.yaml}}\n")
    text = FILE.replace("provider:\n", "provider:\n  defaults_from: base.yaml\n")
    (other / "new.yaml").write_text(text + f"file_mounts: {{{other}/data: data, /etc/hosts: /etc/hosts}}\n")
    result = invoke("apply", str(other / "new.yaml"))
    assert result.exit_code == 0, result.output
    copy = state / "demo" / "config.yaml"
    assert copy.read_text().startswith(f"# {other}/new.yaml, with absolute paths in file_mounts, provider\n")
    for file, base_dir in ((other / "new.yaml", None), (copy, Path(cluster.source).parent)):
        spec = load_cluster_file(file, backends=backend_keys(), base_dir=base_dir)
        mounts = {one.remote: one.local for one in spec.head_setup.mounts}
        assert mounts == {path: path for path in (f"{other}/data", f"{other}/base.yaml", "/etc/hosts")}


def test_a_file_of_another_folder_without_relative_paths_stays_as_it_is(
    invoke: Invoke, cluster: ClusterRecord, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.yaml").write_text(FILE)
    assert invoke("apply", str(tmp_path / "new.yaml")).exit_code == 0
    assert (state / "demo" / "config.yaml").read_text() == FILE


def test_what_is_laid_over_the_file_is_checked_like_it(invoke: Invoke, file: Path) -> None:
    result = invoke("apply", str(file), "--name", "No Name")
    assert result.exit_code == 2
    assert result.stderr.startswith('command line: cluster_name: "No Name"; allowed is text of 1 to 32')
