from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.providers.slurm.inventory import (
    SEPARATOR,
    Association,
    NodeKind,
    Partition,
    is_usable,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
)

CAPTURED = Path(__file__).parent / "captured"
CONFIG, PARTITIONS, NODES = (
    (CAPTURED / f"{name}.txt").read_text(encoding="utf-8") for name in ("config", "partitions", "nodes")
)
"""As Slurm 22.05.8 printed them, on a site of eight nodes of four kinds and seven partitions."""


def row(*fields: str) -> str:
    return SEPARATOR.join(fields)


def test_config_as_slurm_prints_it() -> None:
    config = parse_config(CONFIG)
    assert (config.version, config.max_array_size, config.max_job_count) == ("22.05.8", 1001, 10000)
    assert (config.release, replace(config, version="pre").release) == (2205, 0)
    assert (config.kill_wait_s, config.min_job_age_s) == (5, 300)
    assert config.enforce_part_limits == "NO"
    assert not config.has_accounting
    assert config.enforced == frozenset()
    assert config.memory_is_counted
    assert not config.whole_nodes_only


@pytest.mark.parametrize(
    ("line", "now", "field", "value"),
    [
        ("AccountingStorageType   = accounting_storage/none", "slurmdbd", "has_accounting", True),
        ("AccountingStorageEnforce = none", "associations,limits", "enforced", {"associations", "limits"}),
        ("EnforcePartLimits       = NO", "ALL", "enforce_part_limits", "ALL"),
        ("SelectTypeParameters    = CR_CPU_MEMORY", "CR_CPU", "memory_is_counted", False),
        ("SelectType              = select/cons_tres", "select/linear", "whole_nodes_only", True),
    ],
)
def test_a_site_may_be_set_up_otherwise(line: str, now: str, field: str, value: object) -> None:
    assert line in CONFIG
    name, _, old = line.partition("= ")
    text = CONFIG.replace(line, f"{name}= {old.replace('none', now) if field == 'has_accounting' else now}")
    assert getattr(parse_config(text), field) == value


@pytest.mark.parametrize(
    "text", ["", "slurm_load_ctl_conf error", CONFIG.replace("MaxArraySize", "MaxArray")]
)
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="printed something unknown"):
        parse_config(text)


def test_nodes_are_grouped_by_what_they_have() -> None:
    kinds = parse_nodes(NODES)
    assert list(kinds) == ["main", "debug", "gpu", "off", "closed", "held", "empty"]
    assert kinds["main"] == (
        NodeKind(4, 4000, count=4, usable=3),
        NodeKind(32, 64000, features=frozenset({"himem"}), count=1, usable=0),
    )
    assert kinds["gpu"] == (
        NodeKind(8, 8000, {"a100": 2}, frozenset({"ib", "fast"}), count=2, usable=2),
        NodeKind(16, 16000, {"h100": 4}, frozenset({"ib", "hopper"}), count=1, usable=1),
    )
    assert kinds["empty"] == ()


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,2),gpu:v100:1(S:1),nvme:1", {"a100": 2, "v100": 1}),
        ("gpu:1g.5gb:7,craynetwork:4", {"1g.5gb": 7}),
        ("gpu:a100:2,gpu:a100:2", {"a100": 4}),
        ("shard:8,mps:100", {}),
    ],
)
def test_gpus_of_a_node(gres: str, gpus: dict[str, int]) -> None:
    (kind,) = parse_nodes(row("p", "1", "8", "8000", gres, "(null)", "idle"))["p"]
    assert kind.gpus == gpus


@pytest.mark.parametrize(
    ("state", "usable"),
    [
        ("idle", True), ("mixed", True), ("allocated", True), ("planned", True), ("completing", True),
        ("idle~", True), ("mixed-", True), ("allocated#", True), ("reserved", True), ("maint", True),
        ("down", False), ("down*", False), ("idle*", False), ("drained", False), ("draining", False),
        ("draining@", False), ("drained*", False), ("fail", False), ("unknown*", False), ("inval", False),
    ],
)  # fmt: skip
def test_states_of_nodes(state: str, usable: bool) -> None:
    assert is_usable(state) is usable


@pytest.mark.parametrize(
    "text",
    [
        row("main", "1", "4", "4000", "(null)", "(null)"),
        row("main", "one", "4", "4000", "(null)", "(null)", "idle"),
        row("main", "1", "many", "4000", "(null)", "(null)", "idle"),
        "sinfo: error: something",
    ],
)
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`sinfo` printed"):
        parse_nodes(text)


def test_partitions_as_slurm_prints_them() -> None:
    main, debug, gpu, off, closed, held, empty = parse_partitions(PARTITIONS, parse_nodes(NODES))
    assert (main.name, main.state, main.is_default) == ("main", "UP", True)
    assert (main.max_time_s, main.default_time_s, main.max_nodes) == (86400, 3600, None)
    assert sum(kind.count for kind in main.kinds) == 5
    assert (debug.max_time_s, debug.default_time_s, debug.max_nodes) == (600, None, 2)
    assert (debug.is_default, debug.priority_tier) == (False, 10)
    assert (gpu.allow_accounts, gpu.allow_qos) == ({"physics", "chem"}, {"normal", "long"})
    assert (gpu.max_cpus_per_node, gpu.max_memory_mb_per_node) == (12, 12000)
    assert gpu.max_time_s == 60 * 3600
    assert (off.state, off.max_time_s) == ("DOWN", math.inf)
    assert (closed.state, closed.deny_accounts, closed.exclusive) == ("DRAIN", {"guests"}, True)
    assert (held.reserved_only, held.root_only) == (True, True)
    assert empty.kinds == ()


def test_no_partitions_are_none() -> None:
    assert parse_partitions("No partitions in the system\n", {}) == ()


@pytest.mark.parametrize(("good", "bad"), [("MaxTime=1-00:00:00", "MaxTime=long"), (" State=UP", "")])
def test_what_is_no_partition_is_refused(good: str, bad: str) -> None:
    with pytest.raises(ValueError, match="`scontrol show partition` printed something unknown"):
        parse_partitions(PARTITIONS.replace(good, bad), {})


def test_a_partition_by_itself_limits_nothing() -> None:
    bare = Partition("bare")
    assert (bare.max_time_s, bare.max_nodes, bare.allow_accounts) == (math.inf, None, None)


def test_associations_as_sacctmgr_prints_them() -> None:
    text = "physics|physics||normal,long|normal\nphysics|chem|gpu|normal|\n"
    assert parse_associations(text) == (
        Association("physics", "", frozenset({"normal", "long"}), "normal", is_default=True),
        Association("chem", "gpu", frozenset({"normal"}), ""),
    )
    assert parse_associations("") == ()


def test_what_is_no_association_is_refused() -> None:
    with pytest.raises(ValueError, match="`sacctmgr` printed 1 fields"):
        parse_associations("You are not running a supported accounting_storage plugin\n")


@pytest.mark.parametrize(
    ("qos", "default", "usual"),
    [("a,b", "b", "b"), ("a", "", "a"), ("a,normal", "", "normal"), ("a,b", "", ""), ("", "", "")],
)
def test_the_qos_of_a_job_that_names_none(qos: str, default: str, usual: str) -> None:
    (found,) = parse_associations(f"x|x||{qos}|{default}\n")
    assert found.usual_qos == usual
