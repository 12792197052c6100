from __future__ import annotations

from typing import Any

import pytest
import yaml

from heliostat.config.init_slurm import FoundSite, Nodes, Place, slurm_cluster_file
from heliostat.model.resources import Resources
from heliostat.providers.slurm import check_options, check_section
from heliostat.providers.slurm.options import job_options, parse_section
from tests.unit.config.files import Load

DAY_S = 86400.0
CPU_NODES = Nodes(cpus=64, memory_mb=256000, count=100)
MAIN = Place("main", (CPU_NODES,), is_default=True, max_time_s=2 * DAY_S)
GPU = Place(
    "gpu",
    (Nodes(64, 512000, 4, 4, "a100"), Nodes(96, 1024000, 2, 8, "h100")),
    max_time_s=DAY_S,
    account="physics",
)
DEBUG = Place("debug", (Nodes(64, 256000, 2),), max_time_s=3600)
SHORT = Place("tiny", (Nodes(64, 256000, 2),), max_time_s=600)
OFF = Place("off", (CPU_NODES,), trouble="off is drained: it takes no new jobs")
GONE = Place("gone", (Nodes(64, 256000, 0),))

SITES = {
    "one partition": FoundSite("small", "22.05.8", (MAIN,)),
    "a university": FoundSite(
        "alma", "23.11.4", (DEBUG, GPU, MAIN, SHORT, OFF, GONE), ("physics", "teaching"),
        (("lo", "127.0.0.1"), ("eth0", "192.0.2.7"), ("ib0", "198.51.100.7")),
    ),
    "whole nodes": FoundSite("big", "24.05", (Place("all", (Nodes(128, 512000, 9, 4),), whole_nodes=True),)),
    "odd words": FoundSite(
        'a "b"\n# c: {d}', "x",
        (Place("Yes", (Nodes(2, 2000, 1),)), Place("no", (Nodes(2, 2000, 1, 1, "1g.5gb"),))),
    ),
    "through ssh": FoundSite("far", "22.05", (MAIN,), ssh="me@login.example.org", memory_is_counted=False),
    "fewer cpus than gpus": FoundSite("edge", "22.05", (Place("p", (Nodes(2, 8000, 1, 4, "t4"),)),)),
    "many": FoundSite("many", "22.05", tuple(Place(f"p{n}", (CPU_NODES,)) for n in range(40))),
}  # fmt: skip


def parsed(site: FoundSite) -> Any:
    return yaml.safe_load(slurm_cluster_file(site, name="mine"))


@pytest.mark.parametrize("site", SITES.values(), ids=SITES.keys())
def test_what_is_written_loads_and_its_keys_are_the_backends(load: Load, site: FoundSite) -> None:
    spec = load(slurm_cluster_file(site, name="mine"))
    assert spec.name == "mine"
    assert spec.head_type.resources == Resources()
    assert spec.head_type.backend == "local"
    section = dict(spec.backends["slurm"])
    assert check_section(section) == []
    assert spec.policy.node_types
    for one in spec.policy.node_types:
        assert one.backend == "slurm"
        assert check_options(dict(one.options)) == []
        job = job_options(parse_section(section), one.options)
        assert len(job.partition) == 1
        assert 0 < (job.time_limit_s or 0) <= 4 * 3600
        assert 1 <= one.max_workers <= spec.policy.max_workers


def test_the_default_comes_first_and_trials_are_comments() -> None:
    site = SITES["a university"]
    assert list(parsed(site)["available_node_types"]) == ["head", "main", "gpu-a100", "gpu-h100"]
    text = slurm_cluster_file(site, name="mine")
    for name, why in (
        ("debug", "for trials, to judge by its name"),
        ("tiny", "for trials: jobs end after 10 minutes"),
        ("off", "off is drained: it takes no new jobs"),
        ("gone", "no node of it is up now"),
    ):
        assert any(f"  # {shown}:\n" in text for shown in (name, f'"{name}"'))
        assert f"# Left out, {why}:" in text


def test_a_comment_is_a_node_type_once_it_is_none() -> None:
    text = slurm_cluster_file(FoundSite("s", "1", (MAIN, DEBUG)), name="mine")
    lines = text.splitlines()
    begin = lines.index("  # debug:")
    for index in range(begin, begin + 8):
        lines[index] = lines[index].replace("# ", "", 1)
    debug = yaml.safe_load("\n".join(lines))["available_node_types"]["debug"]
    assert debug["node_config"]["partition"] == "debug"
    assert debug["node_config"]["time_limit"] == "01:00:00"


def test_a_worker_is_a_share_of_a_node() -> None:
    types = parsed(SITES["a university"])["available_node_types"]
    assert types["main"] == {
        "resources": {"CPU": 8},
        "min_workers": 0,
        "max_workers": 10,
        "node_config": {
            "backend": "slurm",
            "partition": "main",
            "time_limit": "04:00:00",
            "memory": "31GiB",
        },
    }
    assert types["gpu-h100"]["resources"] == {"CPU": 12, "GPU": 1}
    assert types["gpu-h100"]["node_config"] == {
        "backend": "slurm",
        "partition": "gpu",
        "account": "physics",
        "time_limit": "04:00:00",
        "memory": "125GiB",
        "gpu_type": "h100",
    }


def test_whole_nodes_are_asked_for_whole() -> None:
    (one,) = (
        body for name, body in parsed(SITES["whole nodes"])["available_node_types"].items() if name != "head"
    )
    assert one["resources"] == {"CPU": 128, "GPU": 4}
    assert one["max_workers"] == 9


def test_a_fast_network_is_taken_and_others_are_named() -> None:
    text = slurm_cluster_file(SITES["a university"], name="mine")
    assert parsed(SITES["a university"])["provider"]["backends"]["slurm"]["network"] == "ib0"
    assert "# This host has: eth0 (192.0.2.7), ib0 (198.51.100.7)" in text
    assert parsed(SITES["one partition"])["provider"]["backends"]["slurm"] is None


def test_the_head_as_a_job_is_a_line_to_uncomment(load: Load) -> None:
    text = slurm_cluster_file(SITES["a university"], name="mine")
    (line,) = [one for one in text.splitlines() if one.startswith("    # node_config: {backend: slurm")]
    text = text.replace("    node_config: {backend: local}\n", "").replace(line, line.replace("# ", "", 1))
    head = load(text).head_type
    assert (head.backend, head.options["partition"]) == ("slurm", "main")
    assert (head.options["time_limit"], head.options["memory"]) == ("24:00:00", "4096MiB")
    assert "the head can be a job" not in slurm_cluster_file(SITES["through ssh"], name="mine")


def test_the_host_asked_is_written_and_memory_only_where_it_counts() -> None:
    site = parsed(SITES["through ssh"])
    assert site["provider"]["backends"]["slurm"]["ssh"] == "me@login.example.org"
    assert "memory" not in site["available_node_types"]["main"]["node_config"]


def test_names_are_safe_and_differ() -> None:
    assert list(parsed(SITES["odd words"])["available_node_types"]) == ["head", "yes", "no-1g.5gb"]
    twice = FoundSite(
        "s", "1", (Place("P", (CPU_NODES,)), Place("p", (CPU_NODES,)), Place("head", (CPU_NODES,)))
    )
    assert list(parsed(twice)["available_node_types"]) == ["head", "p", "p-2", "head-2"]


def test_a_site_with_very_many_partitions_gets_a_file_of_some() -> None:
    text = slurm_cluster_file(SITES["many"], name="mine")
    assert "# And 24 more, which `scontrol show partition` lists." in text


@pytest.mark.parametrize(
    ("places", "words"),
    [((), "there is none"), ((OFF, GONE), "off: off is drained: .*; gone: no node of it is up")],
)
def test_a_site_that_takes_no_job_gets_no_file(places: tuple[Place, ...], words: str) -> None:
    with pytest.raises(ValueError, match=f"no partition would take a job now: {words}"):
        slurm_cluster_file(FoundSite("s", "1", places), name="mine")
