"""What this site is, as its own commands tell, and what would go wrong with node types on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heliostat.model.node_type import NodeType
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.slurm.fit import (
    Need,
    Shortcoming,
    jobs_on,
    listed,
    meant,
    need_of,
    shortcomings,
)
from heliostat.providers.slurm.inventory import (
    ASSOCIATION_FIELDS,
    NODE_FIELDS,
    SEPARATOR,
    Association,
    Config,
    Partition,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
)
from heliostat.providers.slurm.options import JobOptions
from heliostat.providers.slurm.refusals import refusal
from heliostat.providers.slurm.runner import Runner

CONFIG_COMMAND = ("scontrol", "show", "config")
PARTITIONS_COMMAND = ("scontrol", "show", "partition", "--oneliner")
NODES_COMMAND = ("sinfo", "--noheader", "--all", "--exact", f"--format={SEPARATOR.join(NODE_FIELDS)}")
USER_COMMAND = ("id", "-un")

CLOSED_UNTIL = 2205
"""The last release known to close a partition with `AllowAccounts` on a site without accounting."""


@dataclass(frozen=True)
class Site:
    """A Slurm site. `associations` None: accounting does not say what this user may use."""

    config: Config
    partitions: tuple[Partition, ...]
    associations: tuple[Association, ...] | None = None

    @property
    def kill_wait_s(self) -> float:
        return self.config.kill_wait_s

    @property
    def message_timeout_s(self) -> float:
        return self.config.message_timeout_s

    @property
    def max_array_size(self) -> int:
        return self.config.max_array_size

    @property
    def min_job_age_s(self) -> float:
        return self.config.min_job_age_s

    def partition(self, name: str) -> Partition | None:
        return next((one for one in self.partitions if one.name == name), None)

    @property
    def default_partition(self) -> Partition | None:
        return next((one for one in self.partitions if one.is_default), None)


def associations_command(user: str, cluster: str) -> tuple[str, ...]:
    """Return what asks which accounts and QOS a user has on a cluster."""
    return (
        "sacctmgr",
        "--noheader",
        "--parsable2",
        "--readonly",
        "show",
        "user",
        "where",
        f"name={user}",
        f"cluster={cluster}",
        "withassoc",
        f"format={','.join(ASSOCIATION_FIELDS)}",
    )


async def probe(runner: Runner, *, deadline_s: float, user: str | None = None) -> Site:
    """Look at the site; `user` None is whoever runs the commands.

    Raises a ProviderError where Slurm does not answer, or not in words that are known.
    """
    config_text, partitions_text, nodes_text = await asyncio.gather(
        *(
            _answer(runner, command, deadline_s)
            for command in (CONFIG_COMMAND, PARTITIONS_COMMAND, NODES_COMMAND)
        )
    )
    try:
        config = parse_config(config_text)
        partitions = parse_partitions(partitions_text, parse_nodes(nodes_text))
    except ValueError as error:
        raise Unavailable(str(error)) from error
    return Site(config, partitions, await _associations(runner, config, user, deadline_s))


async def _answer(runner: Runner, command: tuple[str, ...], deadline_s: float) -> str:
    output = await runner.run(command, deadline_s=deadline_s)
    if output.code != 0:
        raise refusal(command, output.code, output.stderr)
    return output.stdout


async def _associations(
    runner: Runner, config: Config, user: str | None, deadline_s: float
) -> tuple[Association, ...] | None:
    """Return what the user may use; None where there is no accounting, or it may not be asked."""
    if not config.has_accounting:
        return None
    try:
        name = user or (await _answer(runner, USER_COMMAND, deadline_s)).strip()
        return parse_associations(
            await _answer(runner, associations_command(name, config.cluster), deadline_s)
        )
    except (ProviderError, ValueError):
        # Many sites keep this from their users; sbatch says what is wrong then.
        return None


def problems(
    node_types: Sequence[NodeType],
    job_options_by_type: Mapping[str, JobOptions],
    site: Site,
    *,
    for_ever: bool = False,
) -> list[str]:
    """Return what would go wrong with these types here, a sentence each.

    With `for_ever` only what keeps a job of the type from ever starting: nothing that the site may
    cure by itself, such as nodes that are down, and nothing about how many workers there may be.
    """
    return [
        f"{node_type.name}: {one.key}: {one.words}"
        for node_type in node_types
        for one in _of_type(node_type, job_options_by_type[node_type.name], site, for_ever=for_ever)
    ]


def troubles(partition: Partition, site: Site, *, account: str | None = None) -> list[str]:
    """Return why not even the smallest job of this user would start in a partition; empty if it may."""
    job = JobOptions(partition=(partition.name,), account=account)
    least = Need(cpus=1, memory_mb=None, gpus=0, gpu_type=None, constraint=None, whole_node=False)
    found = [*shortcomings(least, job, partition), *_of_access(job, partition, site)]
    return [one.words for one in found]


def longest_s(job: JobOptions, site: Site) -> float:
    """Return the longest time limit that all of a job's partitions allow; infinite where none has one."""
    return min((one.max_time_s for one in _chosen(job, site)[0]), default=math.inf)


def usual_s(job: JobOptions, site: Site) -> float:
    """Return the time limit of a job that asks for none, the shortest of those its partitions give."""
    limits = (one.default_time_s or one.max_time_s for one in _chosen(job, site)[0])
    return min(limits, default=math.inf)


def _of_type(node_type: NodeType, job: JobOptions, site: Site, *, for_ever: bool) -> Iterator[Shortcoming]:
    chosen, unknown = _chosen(job, site)
    yield from (lack for lack in (*unknown, *_of_account(job, site)) if not (for_ever and lack.may_pass))
    if not for_ever:
        yield from _of_job_count(node_type, site)
    if unknown or not chosen:
        return
    need = need_of(node_type, job)
    lacking = {
        one.name: [
            lack
            for lack in (*shortcomings(need, job, one), *_of_access(job, one, site))
            if not (for_ever and lack.may_pass)
        ]
        for one in chosen
    }
    right = [one for one in chosen if not lacking[one.name]]
    if not right or site.config.enforce_part_limits == "ALL":
        # Slurm starts a job in any of its partitions, so one that is right is enough.
        yield from dict.fromkeys(lack for each in lacking.values() for lack in each)
    if right and not for_ever:
        yield from _of_room(node_type, need, right)


def _of_job_count(node_type: NodeType, site: Site) -> Iterator[Shortcoming]:
    most = site.config.max_job_count
    if node_type.max_workers > most:
        yield Shortcoming(
            "max_workers", f"{node_type.max_workers} is more than this site's MaxJobCount, {most}"
        )


def _chosen(job: JobOptions, site: Site) -> tuple[list[Partition], list[Shortcoming]]:
    """Return the partitions a job goes to, and what is wrong with their names."""
    names = [one.name for one in site.partitions]
    if not job.partition:
        if site.default_partition:
            return [site.default_partition], []
        words = f"none is given, and this site has no default; there are {listed(names)}"
        return [], [Shortcoming("partition", words)]
    unknown = [name for name in job.partition if name not in names]
    lacking = [
        Shortcoming(
            "partition", f"{name}: no such partition here{meant(name, names)}; there are {listed(names)}"
        )
        for name in unknown
    ]
    return [one for name in job.partition if (one := site.partition(name))], lacking


def _of_account(job: JobOptions, site: Site) -> Iterator[Shortcoming]:
    """Yield what accounting would refuse. Without enforcement Slurm takes any name."""
    if site.associations is None or not site.config.enforced:
        return
    accounts = {one.account for one in site.associations}
    if not accounts:
        words = "accounting knows no account of yours on this cluster, so Slurm takes no job of yours"
        # It may hide them from their owner, though.
        yield Shortcoming("account", words, may_pass=True)
    elif job.account and job.account not in accounts:
        words = f"{job.account} is none of yours{meant(job.account, accounts)}; yours are {listed(accounts)}"
        yield Shortcoming("account", words)
    elif job.qos and "qos" in site.config.enforced:
        charged = _charged(job, site)
        allowed = {name for one in charged for name in one.qos}
        if allowed and job.qos not in allowed:
            names = listed({one.account for one in charged})
            words = f"account {names} may not use {job.qos}{meant(job.qos, allowed)}"
            yield Shortcoming("qos", f"{words}; allowed are {listed(allowed)}")


def _charged(job: JobOptions, site: Site) -> list[Association]:
    """Return what a job may be charged to: the account it names, or the user's default."""
    every = list(site.associations or ())
    if job.account:
        return [one for one in every if one.account == job.account]
    return [one for one in every if one.is_default] or every


def _of_access(job: JobOptions, partition: Partition, site: Site) -> Iterator[Shortcoming]:
    """Yield what the partition's own lists refuse. A name that is not given is the user's default."""
    charged = _charged(job, site)
    accounts = {job.account} if job.account else {one.account for one in charged}
    qos = {job.qos} if job.qos else {name for one in charged if (name := one.usual_qos)}
    if site.config.has_accounting:
        yield from _of_list(
            "account",
            accounts,
            partition,
            allowed=partition.allow_accounts,
            denied=partition.deny_accounts,
        )
    elif partition.allow_accounts is not None and site.config.release <= CLOSED_UNTIL:
        # Slurm knows no account then, whatever a job says (seen on 22.05; from 24.11 on it asks for none).
        allowed = listed(partition.allow_accounts)
        words = f"partition {partition.name} is for {allowed}, and this site knows no accounts"
        yield Shortcoming("partition", words)
    if "qos" in site.config.enforced:
        yield from _of_list("qos", qos, partition, allowed=partition.allow_qos, denied=partition.deny_qos)


def _of_list(
    key: str,
    names: set[str],
    partition: Partition,
    *,
    allowed: frozenset[str] | None,
    denied: frozenset[str],
) -> Iterator[Shortcoming]:
    if names and not names & ((names if allowed is None else allowed) - denied):
        hint = meant(min(names), allowed or ())
        rest = "" if allowed is None else f"; it allows {listed(allowed)}"
        yield Shortcoming(key, f"partition {partition.name} does not allow {listed(names)}{hint}{rest}")


def _of_room(node_type: NodeType, need: Need, partitions: Sequence[Partition]) -> Iterator[Shortcoming]:
    """Yield where what shall always be there is more than all nodes hold, were they empty."""
    most = sum(kind.count * jobs_on(need, kind, one) for one in partitions for kind in one.kinds)
    if node_type.min_workers > most:
        names = listed(one.name for one in partitions)
        words = f"{node_type.min_workers} never fit at once; partition {names} holds {most}"
        yield Shortcoming("min_workers", words)


def _nodes(partition: Partition) -> int:
    return sum(kind.count for kind in partition.kinds)
