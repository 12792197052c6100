from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.slurm.fit import features_in, jobs_on, need_of, slurm_time
from heliostat.providers.slurm.inventory import Association, NodeKind, Partition
from heliostat.providers.slurm.options import JobOptions
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.site import (
    CONFIG_COMMAND,
    NODES_COMMAND,
    PARTITIONS_COMMAND,
    USER_COMMAND,
    Site,
    associations_command,
    longest_s,
    probe,
    problems,
    troubles,
    usual_s,
)

CAPTURED = Path(__file__).parent / "captured"
CONFIG, PARTITIONS, NODES = (
    (CAPTURED / f"{name}.txt").read_text(encoding="utf-8") for name in ("config", "partitions", "nodes")
)
ANSWERS: Mapping[tuple[str, ...], Output] = {
    CONFIG_COMMAND: Output(0, CONFIG, ""),
    PARTITIONS_COMMAND: Output(0, PARTITIONS, ""),
    NODES_COMMAND: Output(0, NODES, ""),
}
WITH_ACCOUNTING = CONFIG.replace("accounting_storage/none", "accounting_storage/slurmdbd")
MIB = 2**20


class Answering:
    """A runner that answers from a table; a command that is not in it fails."""

    def __init__(self, answers: Mapping[tuple[str, ...], Output]) -> None:
        self._answers = answers
        self.counts: dict[str, int] = {}
        self.asked: list[tuple[str, ...]] = []

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.asked.append(tuple(argv))
        return self._answers.get(tuple(argv), Output(1, "", f"{argv[0]}: error: no such thing"))

    async def aclose(self) -> None:
        return


def look(answers: Mapping[tuple[str, ...], Output] = ANSWERS, user: str | None = None) -> Site:
    return asyncio.run(probe(Answering(answers), deadline_s=5, user=user))


def accounted(*associations: Association, enforced: str = "associations,limits,qos") -> Site:
    config = replace(BARE.config, has_accounting=True, enforced=frozenset(enforced.split(",")))
    return replace(BARE, config=config, associations=associations)


BARE = look()
"""A site without accounting."""
SITE = accounted(
    Association("chem", "", frozenset({"normal"}), "normal"),
    Association("bio", "", frozenset({"normal", "long"}), "normal", is_default=True),
)


def of(cpus: float = 1, *, mib: int = 0, gpus: float = 0, name: str = "t", **more: int) -> NodeType:
    resources = Resources.of({"CPU": cpus, "memory": mib * MIB, "GPU": gpus})
    return NodeType(name, "slurm", resources, shape_id="s", **{"max_workers": 4, **more})


def said(node_type: NodeType, job: JobOptions, site: Site = SITE) -> list[str]:
    return problems([node_type], {node_type.name: job}, site)


def test_a_site_is_looked_at_with_three_commands() -> None:
    runner = Answering(ANSWERS)
    site = asyncio.run(probe(runner, deadline_s=5))
    assert sorted(runner.asked) == sorted(ANSWERS)
    assert (site.kill_wait_s, site.max_array_size, site.min_job_age_s) == (5, 1001, 300)
    assert site.message_timeout_s == 10
    assert site.default_partition is not None
    assert site.default_partition.name == "main"
    assert site.associations is None


def test_a_command_that_fails_says_so() -> None:
    with pytest.raises(ProviderError, match="no such thing"):
        look({**ANSWERS, NODES_COMMAND: Output(1, "", "sinfo: error: no such thing")})


@pytest.mark.parametrize("command", [CONFIG_COMMAND, NODES_COMMAND])
def test_words_that_are_not_known_are_no_inventory(command: tuple[str, ...]) -> None:
    with pytest.raises(Unavailable, match="printed"):
        look({**ANSWERS, command: Output(0, "something else\n", "")})


def test_accounting_is_asked_where_there_is_some() -> None:
    command = associations_command("ada", BARE.config.cluster)
    answers = {
        **ANSWERS,
        CONFIG_COMMAND: Output(0, WITH_ACCOUNTING, ""),
        USER_COMMAND: Output(0, "ada\n", ""),
        command: Output(0, "physics|physics||normal|\n", ""),
    }
    expected = (Association("physics", "", frozenset({"normal"}), "", is_default=True),)
    assert look(answers).associations == expected
    assert (
        look({key: one for key, one in answers.items() if key != USER_COMMAND}, "ada").associations
        == expected
    )


@pytest.mark.parametrize("answer", [Output(1, "", "Access denied"), Output(0, "odd\n", "")])
def test_accounting_that_does_not_tell_is_no_obstacle(answer: Output) -> None:
    command = associations_command("ada", BARE.config.cluster)
    answers = {**ANSWERS, CONFIG_COMMAND: Output(0, WITH_ACCOUNTING, ""), command: answer}
    assert look(answers, "ada").associations is None


FINE = {
    "the default partition": (of(4, mib=4000), JobOptions()),
    "a node that is up now": (of(4), JobOptions(partition=("main",), time_limit_s=86400)),
    "gpus of a type": (of(4, gpus=2), JobOptions(partition=("gpu",), account="chem", gpu_type="a100")),
    "any gpu": (of(4, gpus=4), JobOptions(partition=("gpu",), account="chem", constraint="hopper")),
    "one of two": (of(1), JobOptions(partition=("debug", "main"), time_limit_s=3600)),
    "gpus by other means": (of(1, gpus=8), JobOptions(gpu_request="none")),
    "memory that is not asked for": (of(1, mib=10**6), JobOptions(memory_request=False)),
    "either feature": (of(1), JobOptions(partition=("gpu",), account="chem", constraint="nope|ib")),
    "no limit asked": (of(1), JobOptions(partition=("debug",))),
}


@pytest.mark.parametrize(("node_type", "job"), FINE.values(), ids=FINE.keys())
def test_what_fits_is_no_problem(node_type: NodeType, job: JobOptions) -> None:
    assert said(node_type, job) == []


GPU = JobOptions(partition=("gpu",), account="chem")
WRONG = {
    "unknown partition": (
        of(), JobOptions(partition=("mian",)),
        "partition: mian: no such partition here (did you mean main?);"
        " there are closed, debug, empty, gpu, held, main, off",
    ),
    "down": (
        of(), JobOptions(partition=("off",)),
        "partition: off is down: jobs wait in it until an administrator brings it up",
    ),
    "drained": (
        of(), JobOptions(partition=("closed",)), "partition: closed is drained: it takes no new jobs",
    ),
    "no nodes": (of(), JobOptions(partition=("empty",)), "partition: empty has no nodes"),
    "reserved": (
        of(), JobOptions(partition=("held",)),
        "reservation: partition held takes only jobs with a reservation",
    ),
    "root": (
        of(), JobOptions(partition=("held",), reservation="mine"), "partition: held is for root's jobs only",
    ),
    "too long": (
        of(), JobOptions(time_limit_s=100000),
        "time_limit: 1-03:46:40 is more than partition main allows, 1-00:00:00",
    ),
    "too long at least": (
        of(), JobOptions(partition=("debug",), time_min_s=660),
        "time_min: 00:11:00 is more than partition debug allows, 00:10:00",
    ),
    "without a limit": (
        of(), JobOptions(time_limit_s=float("inf")),
        "time_limit: UNLIMITED is more than partition main allows, 1-00:00:00",
    ),
    "cpus": (
        of(64), JobOptions(),
        "resources.CPU: no node of partition main gives 64 CPUs to a job, the largest gives 32",
    ),
    "cpus of the partition's own limit": (
        of(13), GPU, "resources.CPU: no node of partition gpu gives 13 CPUs to a job, the largest gives 12",
    ),
    "memory": (
        of(1, mib=64001), JobOptions(),
        "resources.memory: no node of partition main gives 64001 MB to a job, the largest gives 64000",
    ),
    "gpus": (
        of(1, gpus=5), GPU, "resources.GPU: no node of partition gpu has 5 GPUs, the largest has 4",
    ),
    "gpus of one type": (
        of(1, gpus=3), replace(GPU, gpu_type="a100"),
        "resources.GPU: no node of partition gpu has 3 a100 GPUs, the largest has 2",
    ),
    "gpu type": (
        of(1, gpus=1), replace(GPU, gpu_type="a1000"),
        "gpu_type: no a1000 in partition gpu (did you mean a100?); it has a100, h100",
    ),
    "gpus where there are none": (
        of(1, gpus=1), JobOptions(),
        "resources.GPU: no node of partition main has 1 GPUs, the largest has none",
    ),
    "feature": (
        of(), replace(GPU, constraint="ib&hoper"),
        "constraint: no node of partition gpu has hoper (did you mean hopper?); it has fast, hopper, ib",
    ),
    "features of no one node": (
        of(), replace(GPU, constraint="fast&hopper"),
        "constraint: no node of partition gpu has fast&hopper; it has fast, hopper, ib",
    ),
    "all at once": (
        of(10, gpus=2), replace(GPU, gpu_type="a100"),
        "resources: no node of partition gpu has all of it at once; it has"
        " 2 nodes with 8 CPUs, 8000 MB, 2 GPUs (a100), fast, ib;"
        " 1 node with 16 CPUs, 16000 MB, 4 GPUs (h100), hopper, ib",
    ),
    "nodes that are down": (of(32), JobOptions(), "partition: no node of main that fits is up now (of 1)"),
    "account": (
        of(), JobOptions(partition=("gpu",), account="phisics"),
        "account: partition gpu does not allow phisics (did you mean physics?); it allows chem, physics",
    ),
    "qos": (
        of(), replace(GPU, qos="high"), "qos: partition gpu does not allow high; it allows long, normal",
    ),
    "too many": (
        of(max_workers=20000), JobOptions(),
        "max_workers: 20000 is more than this site's MaxJobCount, 10000",
    ),
    "too many for ever": (
        of(4, min_workers=13), JobOptions(),
        "min_workers: 13 never fit at once; partition main holds 12",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("node_type", "job", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_would_never_start_is_told(node_type: NodeType, job: JobOptions, words: str) -> None:
    assert f"t: {words}" in said(node_type, job)


def test_all_is_told_at_once() -> None:
    job = JobOptions(partition=("off",), time_limit_s=60)
    assert [one.split(": ")[1] for one in said(of(5, mib=5000, gpus=1), job)] == [
        "partition",
        "resources.CPU",
        "resources.memory",
        "resources.GPU",
    ]


@pytest.mark.parametrize(
    ("node_type", "job", "for_ever"),
    [
        (of(), JobOptions(partition=("off",)), False),
        (of(32), JobOptions(), False),
        (of(4, min_workers=13), JobOptions(), False),
        (of(max_workers=20000), JobOptions(), False),
        (of(), JobOptions(partition=("off", "debug"), time_limit_s=3600), False),
        (of(64), JobOptions(), True),
        (of(), JobOptions(partition=("nope",)), True),
        (of(), JobOptions(partition=("gpu",)), True),
    ],
)
def test_what_the_site_may_cure_is_not_for_ever(node_type: NodeType, job: JobOptions, for_ever: bool) -> None:
    assert said(node_type, job)
    assert bool(problems([node_type], {"t": job}, SITE, for_ever=True)) is for_ever


@pytest.mark.parametrize(
    ("partition", "account", "words"),
    [
        ("main", None, []),
        ("closed", None, ["closed is drained: it takes no new jobs"]),
        ("gpu", None, ["partition gpu does not allow bio; it allows chem, physics"]),
        ("gpu", "chem", []),
        ("empty", None, ["empty has no nodes"]),
    ],
)
def test_whether_a_partition_is_of_use_at_all(partition: str, account: str | None, words: list[str]) -> None:
    found = SITE.partition(partition)
    assert found is not None
    assert troubles(found, SITE, account=account) == words


def test_one_partition_that_is_right_is_enough_unless_the_site_wants_all() -> None:
    job = JobOptions(partition=("debug", "main"), time_limit_s=3600)
    strict = replace(SITE, config=replace(SITE.config, enforce_part_limits="ALL"))
    assert said(of(), job) == []
    assert said(of(), job, strict) == [
        "t: time_limit: 01:00:00 is more than partition debug allows, 00:10:00"
    ]


def test_a_site_without_a_default_partition_wants_one_named() -> None:
    bare = replace(SITE, partitions=(Partition("a", kinds=(NodeKind(1, 1),)),))
    assert said(of(), JobOptions(), bare) == [
        "t: partition: none is given, and this site has no default; there are a"
    ]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (JobOptions(account="chem", qos="normal"), None),
        (
            JobOptions(account="chems"),
            "account: chems is none of yours (did you mean chem?); yours are bio, chem",
        ),
        (JobOptions(account="chem", qos="long"), "qos: account chem may not use long; allowed are normal"),
        (JobOptions(qos="long"), None),
        (
            JobOptions(qos="longer"),
            "qos: account bio may not use longer (did you mean long?); allowed are long, normal",
        ),
        (JobOptions(partition=("gpu",), account="chem"), None),
        (
            JobOptions(partition=("gpu",)),
            "account: partition gpu does not allow bio; it allows chem, physics",
        ),
    ],
)
def test_accounts_and_qos_are_those_of_the_user(job: JobOptions, words: str | None) -> None:
    assert said(of(), job) == ([] if words is None else [f"t: {words}"])


def test_a_qos_that_is_the_accounts_default_counts_too() -> None:
    site = accounted(Association("chem", "", frozenset({"high"}), "high", is_default=True))
    assert said(of(), JobOptions(partition=("gpu",)), site) == [
        "t: qos: partition gpu does not allow high; it allows long, normal"
    ]


def test_an_account_that_is_denied_is_told() -> None:
    open_ = replace(
        BARE, partitions=(Partition("p", deny_accounts=frozenset({"bio"}), kinds=(NodeKind(1, 1),)),)
    )
    site = replace(SITE, partitions=open_.partitions)
    assert said(of(), JobOptions(partition=("p",)), site) == ["t: account: partition p does not allow bio"]
    assert said(of(), JobOptions(partition=("p",), account="chem"), site) == []


def test_a_user_without_an_account_is_told_but_not_for_ever() -> None:
    site = accounted()
    assert said(of(), JobOptions(), site)[0].startswith("t: account: accounting knows no account of yours")
    assert problems([of()], {"t": JobOptions()}, site, for_ever=True) == []


def test_where_accounting_does_not_tell_nothing_is_assumed() -> None:
    site = replace(SITE, associations=None)
    assert said(of(), JobOptions(partition=("gpu",)), site) == []
    assert said(of(), JobOptions(account="x", qos="y"), site) == []


def test_without_accounting_names_do_not_matter_but_a_partition_for_accounts_is_closed() -> None:
    assert said(of(), JobOptions(account="x", qos="y"), BARE) == []
    assert said(of(), JobOptions(partition=("gpu",), account="chem", qos="x"), BARE) == [
        "t: partition: partition gpu is for chem, physics, and this site knows no accounts"
    ]
    newer = replace(BARE, config=replace(BARE.config, version="24.11.5"))
    assert said(of(), JobOptions(partition=("gpu",)), newer) == []


def test_the_longest_job_is_what_all_its_partitions_allow() -> None:
    found = {one: longest_s(JobOptions(partition=one), SITE) for one in ((), ("gpu",), ("gpu", "debug"))}
    assert found == {(): 86400, ("gpu",): 216000, ("gpu", "debug"): 600}
    assert longest_s(JobOptions(), replace(SITE, partitions=())) == math.inf


def test_a_job_that_asks_for_no_time_gets_its_partitions_default_else_the_most() -> None:
    found = {one: usual_s(JobOptions(partition=one), SITE) for one in ((), ("gpu",), ("gpu", "debug"))}
    assert found == {(): 3600, ("gpu",): 216000, ("gpu", "debug"): 600}
    assert usual_s(JobOptions(), replace(SITE, partitions=())) == math.inf


def test_how_many_jobs_a_node_holds() -> None:
    kind = NodeKind(16, 16000, {"a100": 4})
    held = [
        jobs_on(need_of(node_type, job), kind, partition)
        for node_type, job, partition in [
            (of(4), JobOptions(), Partition("p", kinds=(kind,))),
            (of(4, mib=6000), JobOptions(), Partition("p", kinds=(kind,))),
            (of(1, gpus=1), JobOptions(), Partition("p", kinds=(kind,))),
            (of(1), JobOptions(exclusive=True), Partition("p", kinds=(kind,))),
            (of(1), JobOptions(), Partition("p", exclusive=True, kinds=(kind,))),
            (of(17), JobOptions(), Partition("p", kinds=(kind,))),
            (of(1), JobOptions(cpus_per_task=8), Partition("p", kinds=(kind,))),
        ]
    ]
    assert held == [4, 2, 4, 1, 1, 0, 2]


@pytest.mark.parametrize(
    ("constraint", "features"),
    [
        ("ib", {"ib"}),
        ("ib&fast", {"ib", "fast"}),
        ("[rack1|rack2]", {"rack1", "rack2"}),
        ("ib*2&(a|b)", {"ib", "a", "b"}),
    ],
)
def test_features_of_a_constraint(constraint: str, features: set[str]) -> None:
    assert features_in(constraint) == features


def test_a_time_is_written_as_slurm_does() -> None:
    assert [slurm_time(one) for one in (90, 3600, 129600, float("inf"))] == [
        "00:01:30",
        "01:00:00",
        "1-12:00:00",
        "UNLIMITED",
    ]
