from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.config.cluster_file import (
    FILE_BYTES_MAX,
    BackendKeys,
    FileConfigSource,
    dump_for_state,
    load_cluster_file,
    shape_id,
)
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.resources import Resources
from heliostat.ports.errors import ConfigError
from tests.unit.config.files import GOOD, INSTALLED, Load, Problems


def test_defaults_are_those_that_ray_documents(load: Load) -> None:
    spec = load(GOOD.replace("max_workers: 4\n", ""))
    policy = spec.policy
    assert (policy.max_workers, policy.idle_timeout_s, policy.upscaling_speed) == (2, 300.0, 1.0)
    assert (policy.max_cost_usd_per_h, policy.max_surge) == (None, 0)
    assert policy.max_draining == (DrainLimit(20),)
    assert (spec.orphan_timeout_s, spec.head_timeout_s) == (300.0, 60.0)
    (worker,) = policy.node_types
    assert (worker.min_workers, worker.max_workers, worker.priority) == (0, 2, 0)
    assert (worker.idle_timeout_s, worker.start_timeout_s, worker.patience_s) == (None, 300.0, 0.0)


def test_every_key_reaches_the_spec(load: Load) -> None:
    spec = load("""\
cluster_name: all-of-it
max_workers: 7
idle_timeout_minutes: 0.5
upscaling_speed: 2
metadata: {anything: [1, 2]}
provider:
  type: external
  module: my.Provider
  backends: {local: {cpus: 3}, slurm: {}}
  max_cost_usd_per_h: 12.5
  max_surge: 1
  orphan_timeout_s: 20
  head_timeout_s: 30
  environment: {A_B: "1"}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  gpu:
    resources: {CPU: 8, GPU: 1, memory: 1000000000, licence: 2}
    min_workers: 1
    max_workers: 3
    idle_timeout_s: 2.5
    priority: -1
    labels: {tier: fast, example.org/rack: "7", empty: ""}
    node_config: {backend: slurm, patience_s: 600, price_usd_per_h: 2, start_timeout_s: 90, qos: [a, {b: c}]}
head_node_type: head
""")
    assert spec.name == "all-of-it"
    assert spec.backends == {"local": {"cpus": 3}, "slurm": {}}
    assert (spec.orphan_timeout_s, spec.head_timeout_s) == (20.0, 30.0)
    assert spec.environment == {"A_B": "1"}
    assert spec.policy.idle_timeout_s == 30.0
    assert (spec.policy.max_cost_usd_per_h, spec.policy.max_surge) == (12.5, 1)
    (gpu,) = spec.policy.node_types
    assert gpu.resources == Resources.of({"CPU": 8, "GPU": 1, "memory": 10**9, "licence": 2})
    assert (gpu.name, gpu.backend, gpu.min_workers, gpu.max_workers) == ("gpu", "slurm", 1, 3)
    assert (gpu.idle_timeout_s, gpu.priority, gpu.patience_s) == (2.5, -1, 600.0)
    assert (gpu.price_usd_per_h, gpu.start_timeout_s) == (2.0, 90.0)
    assert gpu.labels == {"tier": "fast", "example.org/rack": "7", "empty": ""}
    assert gpu.options == {"qos": ["a", {"b": "c"}]}
    assert spec.head_type.name == "head"
    assert spec.head_type.max_workers == 0


def test_the_heads_type_has_workers_only_if_it_says_so(load: Load) -> None:
    assert [one.name for one in load(GOOD).policy.node_types] == ["worker"]
    both = GOOD.replace("resources: {CPU: 0}\n", "resources: {CPU: 0}\n    max_workers: 2\n")
    spec = load(both)
    assert [one.name for one in spec.policy.node_types] == ["head", "worker"]
    assert spec.head_type == spec.policy.node_types[0]


def test_all_problems_come_at_once_in_the_order_of_lines(problems: Problems) -> None:
    found = problems("""\
cluster_name: Demo
max_worker: 3
max_workers: -1
provider:
  backends: {local: {}, slrum: {}}
available_node_types:
  head: {resources: {CPU: 0.5}, node_config: {backend: local}}
  worker:
    resources: {CPU: two}
    min_workers: 3
    max_workers: 1
    node_config: {backend: slurm}
head_node_type: haed
""")
    whole = (
        "a whole number, 0 or more, as in Ray's own schema: a task may ask for a part, a node has whole ones"
    )
    types = "available_node_types"
    assert found == [
        'cluster.yaml:1: cluster_name: "Demo"; allowed is text of 1 to 32 lower-case letters, digits and -, '
        "a letter first and no - last",
        "cluster.yaml:2: max_worker: unknown key (did you mean max_workers?); allowed are cluster_name, "
        "provider, available_node_types, head_node_type, max_workers, idle_timeout_minutes, "
        "upscaling_speed, metadata, file_mounts, cluster_synced_files, file_mounts_sync_continuously, "
        "rsync_exclude, rsync_filter, initialization_commands, setup_commands, head_setup_commands, "
        "worker_setup_commands",
        "cluster.yaml:3: max_workers: -1; allowed is a whole number, 0 or more",
        "cluster.yaml:5: provider.backends.slrum: no backend slrum is installed (did you mean slurm?); "
        "installed are local, slurm",
        f"cluster.yaml:7: {types}.head.resources.CPU: 0.5; allowed is {whole}",
        f'cluster.yaml:9: {types}.worker.resources.CPU: "two"; allowed is {whole}',
        f"cluster.yaml:10: {types}.worker.min_workers: 3 is above max_workers (1); allowed is at most 1",
        f'cluster.yaml:12: {types}.worker.node_config.backend: "slurm" has no section; '
        "add provider.backends.slurm, {} for its defaults",
        'cluster.yaml:13: head_node_type: "haed" is no node type (did you mean head?); '
        "allowed are head, worker",
    ]


WORKER = "  worker:\n    resources: {CPU: 1}\n"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("cluster_name: demo", "", "cluster.yaml:1: cluster_name: is missing; write text of 1 to 32"),
        ("cluster_name: demo", "cluster_name: no", "cluster.yaml:1: cluster_name: false; allowed is text"),
        ("cluster_name: demo", "cluster_name: a-", 'cluster.yaml:1: cluster_name: "a-"; allowed is text'),
        ("cluster_name: demo", "cluster_name: " + "a" * 33, "cluster.yaml:1: cluster_name: "),
        ("cluster_name: demo", "cluster_name: ../x", "cluster.yaml:1: cluster_name: "),
        ("max_workers: 4", "max_workers: 4.0", "cluster.yaml:2: max_workers: 4.0; allowed is a whole number"),
        ("max_workers: 4", "max_workers: true", "cluster.yaml:2: max_workers: true; allowed is a whole"),
        ("max_workers: 4", "max_workers:", "cluster.yaml:2: max_workers: nothing (null); allowed is a whole"),
        (
            "max_workers: 4",
            "upscaling_speed: -1",
            "cluster.yaml:2: upscaling_speed: -1; allowed is a number, 0",
        ),
        (
            "max_workers: 4",
            "upscaling_speed: true",
            "cluster.yaml:2: upscaling_speed: true; allowed is a number",
        ),
        (
            "max_workers: 4",
            "min_workers: 1",
            "cluster.yaml:2: min_workers: is not allowed here: not a key of the",
        ),
        ("max_workers: 4", "idle_timeout_s: 1", "cluster.yaml:2: idle_timeout_s: is not allowed here: "),
        (
            "max_workers: 4",
            "docker: {image: x}",
            "cluster.yaml:2: docker: a mapping: Heliostat starts no Docker",
        ),
        (
            "max_workers: 4",
            "setup_commands: ls",
            'cluster.yaml:2: setup_commands: "ls"; allowed is a list of commands for bash',
        ),
        (
            "max_workers: 4",
            "head_start_ray_commands: [ray]",
            'cluster.yaml:2: head_start_ray_commands.0: "ray": Heliostat starts Ray itself',
        ),
        (
            "max_workers: 4",
            "auth: {user: me}",
            "cluster.yaml:2: auth.user: unknown key (did you mean ssh_user?)",
        ),
        ("max_workers: 4", "file_mounts: {a: b}", "cluster.yaml:2: file_mounts.a: where to copy to is not"),
        ("max_workers: 4", "docker: [a]", "cluster.yaml:2: docker: a list; allowed is a mapping"),
        (
            "head_node_type: head",
            "",
            "cluster.yaml:1: head_node_type: is missing; write the name of a node type",
        ),
        ("backends: {local: {}}", "type: aws", 'cluster.yaml:4: provider.type: "aws"; allowed is external'),
        ("backends: {local: {}}", "typ: x", "cluster.yaml:4: provider.typ: unknown key (did you mean type?)"),
        (
            "backends: {local: {}}",
            "region: eu",
            "cluster.yaml:4: provider.region: is not allowed here: it is for",
        ),
        (
            "backends: {local: {}}",
            "backends: {}",
            'node_config.backend: "local" has no section; add provider.',
        ),
        (
            "backends: {local: {}}",
            "backends: {local: 5}",
            "cluster.yaml:4: provider.backends.local: 5",
        ),
        (
            "backends: {local: {}}",
            "backends: {}\n  orphan_timeout_s: 0",
            "orphan_timeout_s: 0; allowed is a number",
        ),
        (
            "backends: {local: {}}",
            "backends: {}\n  max_cost_usd_per_h:",
            "max_cost_usd_per_h: nothing (null)",
        ),
        (
            "backends: {local: {}}",
            "backends: {}\n  environment: {A: 1}",
            "environment.A: 1; allowed is text, so",
        ),
        (
            "backends: {local: {}}",
            "backends: {}\n  environment: {1A: b}",
            "environment.1A: no name of a variable",
        ),
        (
            "backends: {local: {}}",
            "backends: {}\n  environment: {RAY_AUTH_TOKEN: b}",
            "not allowed: a secret has",
        ),
        (
            "CPU: 1",
            "CPU: -1",
            "cluster.yaml:10: available_node_types.worker.resources.CPU: -1; allowed is a whole",
        ),
        ("CPU: 1", "gpu: 1", "cluster.yaml:10: available_node_types.worker.resources.gpu: Ray would take it"),
        ("CPU: 1", "'node:10.0.0.1': 1", "is a name that Ray makes itself; choose another"),
        ("CPU: 1", "CPU: 8GiB", 'resources.CPU: "8GiB"; allowed is a whole number'),
        (WORKER, WORKER + "    labels: {-a: b}\n", 'labels.-a: the label\'s name "-a"; allowed are up to 63'),
        (WORKER, WORKER + "    labels: {a: 1}\n", "labels.a: 1; allowed is text, so put it in quotes"),
        (WORKER, WORKER + "    labels: {a: b c}\n", 'labels.a: "b c"; allowed are up to 63'),
        (WORKER, WORKER + "    labels: {a_b..c/d: e}\n", "is no DNS name such as example.org"),
        (
            WORKER,
            WORKER + "    min_workers: 5\n",
            "max_workers: 4 is below the sum of min_workers (worker: 5)",
        ),
        (
            WORKER,
            WORKER + "    max_workers:\n",
            "worker.max_workers: nothing (null); allowed is a whole number",
        ),
        (
            WORKER,
            WORKER + "    backend: local\n",
            "worker.backend: is not allowed here: it belongs under node_c",
        ),
        (
            WORKER,
            WORKER + "    docker: {worker_image: x}\n",
            "worker.docker: a mapping: Heliostat starts no Docker",
        ),
        (
            WORKER,
            WORKER + "    idle_timeout_s: .inf\n",
            "worker.idle_timeout_s: .inf is neither text, a finite",
        ),
        (
            "  worker:",
            "  work er:",
            "available_node_types.work er: not a good name for a node type; allowed are",
        ),
        (
            "  worker:",
            "  1:",
            "cluster.yaml:9: available_node_types: 1 as a key; keys are text, so put it in quotes",
        ),
        (
            "resources: {CPU: 0}",
            "min_workers: 1",
            "head.min_workers: 1 is above max_workers (0, the default of the",
        ),
        (
            "{CPU: 0}\n    node_config: {backend: local}",
            "{CPU: 0}",
            "head.node_config: is missing; write a mapping",
        ),
        (
            "{CPU: 0}\n    node_config: {backend: local}",
            "{}\n    node_config: {}",
            "backend: is missing; write the",
        ),
        (
            "{CPU: 0}\n    node_config: {backend: local}",
            "{}\n    node_config: {backend: locl}",
            "(did you mean local?)",
        ),
        (
            "{CPU: 0}\n    node_config: {backend: local}",
            "{}\n    node_config: {backend: [a]}",
            "a list; allowed is the",
        ),
    ],
)
def test_each_mistake_is_named(problems: Problems, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(expected in line for line in found), found


def test_a_mistake_is_told_once(problems: Problems) -> None:
    assert len(problems(GOOD.replace("CPU: 1", "CPU: -1"))) == 1
    assert len(problems(GOOD.replace("max_workers: 4", "max_workers: .nan"))) == 1
    assert len(problems(GOOD.replace("max_workers: 4", "max_workers: 4\nmax_workers: 5"))) == 1


def test_no_node_types_at_all(problems: Problems) -> None:
    head, _, _ = GOOD.partition("available_node_types")
    found = problems(head + "available_node_types: {}\nhead_node_type: head\n")
    assert any("no node type; at least the head's must be there" in line for line in found)


def test_what_ray_knows_and_says_nothing_is_accepted(load: Load) -> None:
    empty = "auth: {}\ndocker: {}\nfile_mounts: {}\nsetup_commands: []\nrsync_filter: []\nno_restart: false\n"
    assert load(GOOD + empty).policy == load(GOOD).policy


def test_backends_check_their_own_keys(problems: Problems) -> None:
    seen: list[dict[str, object]] = []

    def section(values: dict[str, object]) -> list[tuple[str, str]]:
        seen.append(values)
        return [("gpus", "too many; allowed is 4"), ("list.1", "wrong")]

    def options(values: dict[str, object]) -> list[tuple[str, str]]:
        seen.append(values)
        return [("speed", "what is that?")] if "speed" in values else []

    text = GOOD.replace("{local: {}}", "\n    local:\n      gpus: 9\n      list:\n        - 1\n        - 2")
    text = text.replace(
        "CPU: 1}\n    node_config: {backend: local}", "CPU: 1}\n    node_config: {backend: local, speed: 2}"
    )
    found = problems(text, backends={"local": BackendKeys(section, options)})
    assert found == [
        "cluster.yaml:6: provider.backends.local.gpus: too many; allowed is 4",
        "cluster.yaml:9: provider.backends.local.list.1: wrong",
        "cluster.yaml:16: available_node_types.worker.node_config.speed: what is that?",
    ]
    assert seen == [{"gpus": 9, "list": [1, 2]}, {}, {"speed": 2}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cluster.yaml:1: the file is empty; a cluster file is a mapping"),
        (b"# only a comment\n", "cluster.yaml:1: the file is empty"),
        (b"- a\n- b\n", "cluster.yaml:1: the file holds a list"),
        (b"word", "cluster.yaml:1: the file holds a single value"),
        (
            b"a: 1\nb:\n\t- c\n",
            "cluster.yaml:3: not valid YAML: a tab where YAML allows none; indent with spaces",
        ),
        (b"a: 1\nb: [1, 2\nc: 3\n", "cluster.yaml:3: not valid YAML: while parsing a flow sequence"),
        (b"a: 1\n---\nb: 2\n", "cluster.yaml:2: not valid YAML: expected a single document"),
        (b"a: *b\n", "cluster.yaml:1: not valid YAML: found undefined alias"),
        (b"a: 1\nb: \xff\n", "cluster.yaml:2: not UTF-8 text"),
        (b"a: 1\nb: \x01\n", "cluster.yaml:2: not valid YAML: special characters are not allowed"),
        (
            b"a: !!python/name:os.system x\n",
            "cluster.yaml:1: not valid YAML: could not determine a constructor",
        ),
        (b"#" * (FILE_BYTES_MAX + 1), f"cluster.yaml: more than {FILE_BYTES_MAX} bytes"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_cluster_file(path, backends=INSTALLED)
    assert caught.value.problems[0].startswith(f"{tmp_path}/{expected}")


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none\.yaml: there is no such file; `heliostat init local` writes one"
    ):
        load_cluster_file(tmp_path / "none.yaml", backends=INSTALLED)
    with pytest.raises(ConfigError, match="it is a folder; give the file in it"):
        dump_for_state(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_someone_else(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(ConfigError, match="you may not read it"):
        load_cluster_file(path, backends=INSTALLED)


def test_the_applied_copy_is_the_original_text(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("# a comment\n" + GOOD)
    assert dump_for_state(path) == "# a comment\n" + GOOD


def test_the_applied_copy_of_a_file_with_overrides_reads_as_it_was_started(tmp_path: Path) -> None:
    path, copy = tmp_path / "cluster.yaml", tmp_path / "copy.yaml"
    path.write_text("# a comment\n" + GOOD)
    overrides = {"cluster_name": "other", "max_workers": 17}
    copy.write_text(dump_for_state(path, overrides))
    assert copy.read_text().startswith(f"# {path}, with another cluster_name, max_workers from the command")
    started = load_cluster_file(path, backends=INSTALLED, overrides=overrides)
    assert (started.name, started.policy.max_workers) == ("other", 17)
    assert replace(load_cluster_file(copy, backends=INSTALLED), source=str(path)) == started


def test_the_config_source_reads_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    source = FileConfigSource(path, INSTALLED)
    path.write_text(GOOD)
    assert source.load().policy.max_workers == 4
    path.write_text(GOOD.replace("max_workers: 4", "max_workers: 9"))
    assert source.load().policy.max_workers == 9
    assert replace(source, overrides={"cluster_name": "other"}).load().name == "other"


def test_shapes() -> None:
    one = Resources.of({"CPU": 1, "GPU": 1})
    base = shape_id(one, {"a": "b"}, backend="local", options={"x": 1, "y": 2})
    assert len(base) == 12
    assert base == shape_id(one, {"a": "b"}, backend="local", options={"y": 2, "x": 1})
    others = {
        shape_id(Resources.of({"CPU": 2, "GPU": 1}), {"a": "b"}, backend="local", options={"x": 1, "y": 2}),
        shape_id(one, {"a": "c"}, backend="local", options={"x": 1, "y": 2}),
        shape_id(one, {"a": "b"}, backend="slurm", options={"x": 1, "y": 2}),
        shape_id(one, {"a": "b"}, backend="local", options={"x": 1}),
    }
    assert len(others | {base}) == 5


def test_limits_and_prices_are_no_part_of_the_shape(load: Load) -> None:
    before = load(GOOD).policy.node_types[0].shape_id
    changed = GOOD.replace(WORKER, WORKER + "    max_workers: 1\n    priority: 3\n    idle_timeout_s: 1\n")
    assert load(changed).policy.node_types[0].shape_id == before
    assert load(GOOD.replace("CPU: 1", "CPU: 2")).policy.node_types[0].shape_id != before
