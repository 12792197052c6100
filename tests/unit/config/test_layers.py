"""The site's defaults, a file's own defaults, and the command line."""

from __future__ import annotations

from pathlib import Path

from tests.unit.config.files import GOOD, Load, Problems

SITE = """\
max_workers: 50
idle_timeout_minutes: 1
provider:
  orphan_timeout_s: 77
  backends:
    local: {cpus: 2, gpus: 0}
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_nearest_wins_key_by_key(load: Load, tmp_path: Path) -> None:
    site = _write(tmp_path / "site.yaml", SITE)
    _write(tmp_path / "team.yaml", "idle_timeout_minutes: 3\nprovider: {backends: {local: {cpus: 5}}}\n")
    text = GOOD.replace(
        "backends: {local: {}}", "defaults_from: team.yaml\n  backends: {local: {temp_root: /t}}"
    )
    spec = load(text, site_file=site)
    assert spec.policy.max_workers == 4
    assert spec.policy.idle_timeout_s == 180.0
    assert spec.orphan_timeout_s == 77.0
    assert spec.backends == {"local": {"temp_root": "/t", "cpus": 5, "gpus": 0}}


ADMINS = """\
max_workers: 20
provider:
  backends:
    local: {}
    slurm: {account: physics, network: ib0, sbatch: ["--mail-type=FAIL"]}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 8}, node_config: {backend: slurm, partition: main, time_limit: 240}}
head_node_type: head
"""


def test_an_admins_file_leaves_one_line_to_the_user(load: Load, tmp_path: Path) -> None:
    spec = load("cluster_name: mine\n", site_file=_write(tmp_path / "site.yaml", ADMINS))
    assert (spec.name, spec.head_type.name, spec.policy.max_workers) == ("mine", "head", 20)
    (cpu,) = spec.policy.node_types
    assert (cpu.max_workers, cpu.options) == (20, {"partition": "main", "time_limit": 240})
    assert spec.backends["slurm"]["account"] == "physics"


def test_a_section_of_comments_alone_lets_the_sites_show_through(load: Load, tmp_path: Path) -> None:
    site = _write(tmp_path / "site.yaml", ADMINS)
    text = "cluster_name: mine\nprovider:\n  backends:\n    slurm:\n      # account: chemistry\n"
    assert load(text, site_file=site).backends["slurm"] == {
        "account": "physics",
        "network": "ib0",
        "sbatch": ["--mail-type=FAIL"],
    }


def test_node_types_keep_the_order_of_the_near_file(load: Load, tmp_path: Path) -> None:
    extra = "available_node_types:\n  big: {resources: {CPU: 9}, node_config: {backend: local}}\n"
    site = _write(tmp_path / "site.yaml", extra + "  worker: {max_workers: 1}\n")
    types = load(GOOD, site_file=site).policy.node_types
    assert [(one.name, one.max_workers) for one in types] == [("worker", 1), ("big", 4)]


def test_a_site_file_that_is_not_there_is_fine(load: Load, tmp_path: Path) -> None:
    assert load(GOOD, site_file=tmp_path / "none.yaml").policy.max_workers == 4


def test_problems_name_the_file_they_are_in(problems: Problems, tmp_path: Path) -> None:
    site = _write(tmp_path / "site.yaml", SITE + "    slrum: {}\n  max_surge: x\nmax_nodes: 1\n")
    found = problems(GOOD.replace("cluster_name: demo", "cluster_name: 5"), site_file=site)
    assert [line.split(";")[0].split(" (")[0] for line in found] == [
        "cluster.yaml:1: cluster_name: 5",
        "site.yaml:7: provider.backends.slrum: no backend slrum is installed",
        'site.yaml:8: provider.max_surge: "x"',
        "site.yaml:9: max_nodes: unknown key",
    ]


def test_a_near_value_hides_a_bad_far_one(load: Load, tmp_path: Path) -> None:
    site = _write(tmp_path / "site.yaml", "max_workers: many\n")
    assert load(GOOD, site_file=site).policy.max_workers == 4


def test_defaults_that_cannot_be_read(problems: Problems, tmp_path: Path) -> None:
    text = GOOD.replace("backends:", "defaults_from: none.yaml\n  backends:")
    (line,) = problems(text)
    assert line.startswith("cluster.yaml:4: provider.defaults_from: none.yaml: there is no such file")
    _write(tmp_path / "none.yaml", "a: [")
    assert problems(text)[0].startswith("none.yaml:1: not valid YAML")


def test_defaults_do_not_chain(problems: Problems, tmp_path: Path) -> None:
    _write(tmp_path / "team.yaml", "provider: {defaults_from: other.yaml}\n")
    text = GOOD.replace("backends:", "defaults_from: team.yaml\n  backends:")
    assert problems(text) == [
        "team.yaml:1: provider.defaults_from: a file of defaults names another one; only the cluster file may"
    ]


def test_a_copy_finds_the_defaults_of_the_original(load: Load, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    _write(home / "team.yaml", "idle_timeout_minutes: 9\n")
    text = GOOD.replace("backends:", "defaults_from: team.yaml\n  backends:")
    assert load(text, base_dir=home).policy.idle_timeout_s == 540.0


def test_the_command_line_is_over_all(load: Load, problems: Problems) -> None:
    spec = load(GOOD, overrides={"cluster_name": "mine", "provider": {"max_surge": 2}})
    assert (spec.name, spec.policy.max_surge, spec.policy.max_workers) == ("mine", 2, 4)
    assert problems(GOOD, overrides={"max_workers": -1}) == [
        "command line: max_workers: -1; allowed is a whole number, 0 or more"
    ]
