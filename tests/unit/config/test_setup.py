"""What is done before Ray starts: from the file's keys to the steps of a head and of each type's workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.config.cluster_file import load_cluster_file
from heliostat.config.setup import BYTES_MAX, missing_here
from heliostat.model.node_type import ClusterSpec, NodeType
from heliostat.model.setup import NO_SETUP, Command, Mount
from heliostat.ports.errors import ConfigError
from tests.unit.config.files import GOOD, INSTALLED, Load, Problems

STEPS = """\
file_mounts: {~/data: data, /opt/x: /shared/x}
cluster_synced_files: [~/synced]
file_mounts_sync_continuously: true
rsync_exclude: ["*.tmp", "it's"]
rsync_filter: [.gitignore]
initialization_commands: [first]
setup_commands: [both]
head_setup_commands: [of head]
worker_setup_commands: [of worker]
"""
OWN = """\
  own:
    resources: {CPU: 1}
    initialization_commands: []
    worker_setup_commands: ["its own"]
    node_config: {backend: local}
head_node_type"""


def texts(commands: tuple[Command, ...]) -> list[str]:
    return [f"{one.key}: {one.text}" for one in commands]


def type_of(spec: ClusterSpec, name: str) -> NodeType:
    found = spec.policy.node_type(name)
    assert found is not None
    return found


def test_each_host_has_its_steps_in_rays_order(load: Load, tmp_path: Path) -> None:
    spec = load(GOOD.replace("head_node_type", OWN) + STEPS)
    head = spec.head_setup
    assert head.mounts == (Mount("~/data", str(tmp_path / "data")), Mount("/opt/x", "/shared/x"))
    assert (head.synced, head.continuously) == (("~/synced",), True)
    assert texts(head.initialization) == ["initialization_commands.0: first"]
    assert texts(head.commands) == ["setup_commands.0: both", "head_setup_commands.0: of head"]
    worker = type_of(spec, "worker").setup
    assert texts(worker.commands) == ["setup_commands.0: both", "worker_setup_commands.0: of worker"]
    assert worker.mounts == head.mounts
    own = type_of(spec, "own").setup
    assert texts(own.initialization) == []
    assert texts(own.commands) == ["own.worker_setup_commands.0: its own"]


def test_they_reach_the_start_document_as_data(load: Load) -> None:
    assert load(GOOD + STEPS).head_setup.document() == {
        "mounts": [["~/data", load(GOOD + STEPS).head_setup.mounts[0].local], ["/opt/x", "/shared/x"]],
        "synced": ["~/synced"],
        "rsync": ["--exclude=*.tmp", "--exclude=it's", "--filter=dir-merge,- .gitignore"],
        "again_s": 30,
        "initialization": [["initialization_commands.0", "first"]],
        "commands": [["setup_commands.0", "both"], ["head_setup_commands.0", "of head"]],
    }


def test_without_any_nothing_is_said_and_shapes_are_those_of_before(load: Load) -> None:
    spec = load(GOOD)
    assert spec.head_setup == NO_SETUP
    assert spec.head_setup.document() == {}
    assert type_of(spec, "worker").shape_id == type_of(load(GOOD + "rsync_exclude: [a]\n"), "worker").shape_id


def test_workers_of_other_steps_have_drifted_and_the_head_has_not(load: Load) -> None:
    before = load(GOOD)
    for steps in ("setup_commands: [a]", "worker_setup_commands: [a]", "file_mounts: {/a: /b}"):
        after = load(f"{GOOD}{steps}\n")
        assert type_of(after, "worker").shape_id != type_of(before, "worker").shape_id
        assert after.head_type == before.head_type
    for_head = load(GOOD + "head_setup_commands: [a]\n")
    assert type_of(for_head, "worker") == type_of(before, "worker")
    assert for_head.head_setup != before.head_setup


MANY = "setup_commands: [" + "'" + "x" * BYTES_MAX + "']"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("setup_commands: [1]", "setup_commands.0: 1; allowed is text"),
        ("setup_commands: [' ']", 'setup_commands.0: " "; allowed is a command for bash'),
        ('setup_commands: ["a\\0b"]', "allowed is a command for bash"),
        (MANY, "has 49"),
        (MANY, "allowed are 49152: call a script"),
        ("file_mounts: {a: /b}", "file_mounts.a: where to copy to is not a path that begins with / or ~"),
        ("file_mounts: {/a: ''}", 'file_mounts./a: ""; allowed is the path of a file or a folder here'),
        ("file_mounts: {/a: [b]}", "file_mounts./a: a list; allowed is the path of a file or a folder"),
        ("cluster_synced_files: [a]", 'cluster_synced_files.0: "a"; allowed is a path that begins with /'),
        ("rsync_exclude: a", 'rsync_exclude: "a"; allowed is a list of patterns for rsync'),
    ],
)
def test_what_could_not_be_done_is_named(problems: Problems, line: str, expected: str) -> None:
    found = problems(f"{GOOD}{line}\n")
    assert any(expected in one for one in found), found


def test_a_node_types_list_that_is_nothing_is_refused(problems: Problems) -> None:
    found = problems(GOOD.replace("CPU: 1}\n", "CPU: 1}\n    worker_setup_commands:\n"))
    assert found == [
        "cluster.yaml:11: available_node_types.worker.worker_setup_commands: nothing (null); allowed is a "
        "list of commands for bash, or leave the key out"
    ]


# -- what is not here


def none(_: str) -> str | None:
    return None


def there(_: str) -> str | None:
    return "/usr/bin/rsync"


def missing(tmp_path: Path, mounts: dict[str, str], which: Callable[[str], str | None]) -> list[str]:
    return [
        f"{path[-1]}: {text}" for path, text in missing_here({"file_mounts": mounts}, tmp_path, which=which)
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert missing(tmp_path, {"/a": "b"}, there) == [f'/a: "b": there is no {tmp_path}/b here']


def test_a_copy_onto_itself_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    for remote in (f"{tmp_path}/b", f"{tmp_path}/b/", f"{tmp_path}/link"):
        assert missing(tmp_path, {remote: "b"}, none) == []


def test_any_other_needs_rsync(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert missing(tmp_path, {"/a": "b"}, there) == []
    (found,) = missing(tmp_path, {"/a": "b"}, none)
    assert "there is no rsync here, which copies it; install it, or mount a path onto itself" in found


def test_a_folder_into_itself(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (found,) = missing(tmp_path, {f"{tmp_path}/b/copy": "b"}, there)
    assert "lies in it, and a folder can't be copied into itself" in found
    assert missing(tmp_path, {f"{tmp_path}/bc": "b"}, there) == []


def test_the_disk_is_looked_at_before_a_start_and_not_where_a_cluster_runs(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD + "file_mounts: {/a: gone}\n")
    assert load_cluster_file(path, backends=INSTALLED).head_setup.mounts
    with pytest.raises(ConfigError, match=r"cluster\.yaml:13: file_mounts\./a: \"gone\": there is no"):
        load_cluster_file(path, backends=INSTALLED, on_disk=True)
