"""The section and a node type's part: what each key means, and how one is laid over the other."""

from __future__ import annotations

import math

import pytest

from heliostat.providers.slurm.keys import Container, EnvironmentFile, Ssh, time_s
from heliostat.providers.slurm.options import JobOptions, WrongOption, job_options, parse_section
from heliostat.providers.slurm.passthrough import refusal
from heliostat.providers.slurm.values import Wrong


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5, 300),
        ("90", 5400),
        ("30:15", 1815),
        ("04:00:00", 14400),
        ("26:00:00", 93600),
        ("1-0", 86400),
        ("1-12:30", 131400),
        ("2-03:04:05", 183845),
        ("unlimited", math.inf),
        ("INFINITE", math.inf),
    ],
)
def test_a_time_has_any_of_slurms_forms(written: object, seconds: float) -> None:
    assert time_s(written) == seconds


@pytest.mark.parametrize("written", [0, "0", "00:00:00", -1, True, 1.5, "4h", "1:2:3:4", "", "1-", None, []])
def test_a_time_that_is_none_is_refused(written: object) -> None:
    with pytest.raises(Wrong):
        time_s(written)


def test_a_number_above_a_day_may_be_a_time_without_quotes() -> None:
    # YAML reads 4:00:00 as 14400.
    with pytest.raises(WrongOption, match=r"time_limit is 14400; allowed: .* in quotes"):
        parse_section({"time_limit": 14400})


def test_without_keys_nothing_is_asked_for() -> None:
    section = parse_section({})
    assert (section.ssh, section.work_dir, section.user, section.command_deadline_s) == (None, None, None, 30)
    assert section.job == JobOptions()
    assert job_options(section, {}) == JobOptions()


def test_a_node_type_wins_over_the_section() -> None:
    section = parse_section({"partition": "cpu", "account": "p1", "time_limit": "1:00:00", "setup": ["a"]})
    job = job_options(section, {"partition": ["gpu", "long"], "time_limit": 10, "setup": ["b", "c"]})
    assert (job.partition, job.account, job.time_limit_s) == (("gpu", "long"), "p1", 600)
    assert job.setup == ("b", "c")
    assert section.job.partition == ("cpu",)


def test_nothing_takes_the_sections_value_away() -> None:
    assert job_options(parse_section({"qos": "high"}), {"qos": None}).qos is None


def test_environments_are_merged() -> None:
    section = parse_section({"environment": {"A": "1", "B": "2"}})
    assert job_options(section, {"environment": {"B": "3"}}).environment == {"A": "1", "B": "3"}


def test_every_key_reaches_its_field() -> None:
    job = parse_section(
        {
            "partition": "a,b",
            "reservation": "r",
            "constraint": "intel&avx512",
            "licenses": "matlab:1",
            "time_min": "10:00",
            "exclusive": "user",
            "gpu_request": "gpus",
            "gpu_type": "a100",
            "memory_request": False,
            "memory": "64GiB",
            "cpus_per_task": 4,
            "nice": 10,
            "comment": "for the paper",
            "sbatch": ["--mail-type=FAIL"],
            "env": {"uv": "~/requirements.txt"},
            "network": ["ib0", "10.1.0.0/16"],
            "temp_root": "/scratch",
            "port_range": [30000, 31000],
            "drain_notice_s": 600,
            "log_monitor": False,
            "ray_args": ["--verbose"],
        }
    ).job
    assert job == JobOptions(
        partition=("a", "b"),
        reservation="r",
        constraint="intel&avx512",
        licenses="matlab:1",
        time_min_s=600,
        exclusive="user",
        gpu_request="gpus",
        gpu_type="a100",
        memory_request=False,
        memory_bytes=64 * 2**30,
        cpus_per_task=4,
        nice=10,
        comment="for the paper",
        sbatch=("--mail-type=FAIL",),
        env=EnvironmentFile("uv", "~/requirements.txt"),
        network=("ib0", "10.1.0.0/16"),
        temp_root="/scratch",
        port_range=(30000, 31000),
        drain_notice_s=600,
        log_monitor=False,
        ray_args=("--verbose",),
    )


@pytest.mark.parametrize(
    ("written", "ssh"),
    [
        ("login.example.org", Ssh("login.example.org")),
        ("ada@login", Ssh("login", "ada")),
        (
            {"host": "login", "user": "ada", "port": 2222, "options": ["-v"]},
            Ssh("login", "ada", 2222, ("-v",)),
        ),
    ],
)
def test_ssh_is_a_host_or_more(written: object, ssh: Ssh) -> None:
    assert parse_section({"ssh": written}).ssh == ssh


@pytest.mark.parametrize("written", ["", "-oProxyCommand=x", "a b", {"user": "x"}, {"host": "-x"}, 5])
def test_a_host_that_ssh_would_take_for_something_else_is_refused(written: object) -> None:
    with pytest.raises(WrongOption, match="ssh"):
        parse_section({"ssh": written})


def test_a_container_has_a_runtime_and_arguments() -> None:
    job = parse_section({"container": {"image": "/shared/ray.sif", "args": ["--bind=/data"]}}).job
    assert job.container == Container("apptainer", "/shared/ray.sif", ("--bind=/data",))


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"time_limit": 10, "time_min": 20}, "time_min"),
        ({"env": {"uv": "/r.txt"}, "container": {"image": "x.sif"}}, "env"),
        ({"env": {"uv": "/r.txt"}, "python": "/usr/bin/python3"}, "python"),
        ({"gpu_type": "a100", "gpu_request": "none"}, "gpu_type"),
    ],
)
def test_keys_that_contradict_one_another(section: dict[str, object], key: str) -> None:
    with pytest.raises(WrongOption) as caught:
        parse_section(section)
    assert caught.value.key == key


def test_a_contradiction_of_both_parts_is_found() -> None:
    section = parse_section({"time_min": "2:00:00"})
    with pytest.raises(WrongOption, match="time_min is 120"):
        job_options(section, {"time_limit": "1:00:00"})


def test_a_site_key_is_none_of_a_node_type() -> None:
    with pytest.raises(WrongOption, match="ssh is 'x'; allowed: no such key"):
        job_options(parse_section({}), {"ssh": "x"})


@pytest.mark.parametrize(
    "option",
    [
        "--mail-type=FAIL",
        "--mem-per-cpu=2G",
        "--dependency=afterok:5",
        "--tmp=10G",
        "--contiguous",
        "--exclude=n1",
    ],
)
def test_an_option_of_sbatch_passes_through(option: str) -> None:
    assert refusal(option) is None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--array=0-3", "other options than --array"),
        ("--arr=0-3", "other options than --array"),
        ("--output=x", "log's place"),
        ("--requeue", "never starts twice"),
        ("--nodes=2", "follows from the node type"),
        ("--no", "other options"),
        ("--export=ALL", "login environment"),
        ("--partition=x", "use the key partition"),
        ("--mem=5G", "use the key memory"),
        ("--gres=gpu:1", "gpu_request and gpu_type"),
        ("--wait", "would not return"),
        ("-C x", "one long option"),
        ("gpu", "one long option"),
        ("--x=\n", "one long option"),
    ],
)
def test_an_option_that_would_break_us_is_refused_with_the_reason(option: str, words: str) -> None:
    assert words in (refusal(option) or "")
