"""`heliostat init`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli import files
from heliostat.ports.errors import ConfigError, HeliostatError

if TYPE_CHECKING:
    from heliostat.config.init_slurm import FoundSite, Place
    from heliostat.providers.slurm.inventory import Partition
    from heliostat.providers.slurm.site import Site

LOOK_DEADLINE_S = 30.0


@click.group("init", short_help="Look at this site and write a cluster file that works here.")
def command() -> None:
    """Look at this site and write a cluster file that works here.

    \b
    Examples:
      heliostat init local -o cluster.yaml
      heliostat init slurm -o cluster.yaml
    """


def _written_options(default_name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options on the file and the cluster's name."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--name", default=default_name, show_default=True, help="The cluster's name."),
            click.option("--force", is_flag=True, help="Replace the file if it is there."),
            click.option(
                "-o",
                "--output",
                type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
                default=Path("cluster.yaml"),
                show_default=True,
                help="The file to write; - is stdout.",
            ),
        ):
            function = option(function)
        return function

    return add


@command.command("local", short_help="For this machine alone.")
@_written_options("local")
def local(*, output: Path, force: bool, name: str) -> None:
    """Write a cluster file for this machine: its CPUs, its memory and its GPUs.

    \b
    Examples:
      heliostat init local
      heliostat init local -o gpus.yaml --name gpus
    """
    _give(_local_text(name), output, force=force, name=name)


@command.command("slurm", short_help="For a Slurm site, on its login node or through ssh.")
@_written_options("slurm")
@click.option("--ssh", default="", metavar="HOST", help="Run Slurm's commands on this host, as ssh knows it.")
def slurm(*, output: Path, force: bool, name: str, ssh: str) -> None:
    """Write a cluster file for this Slurm site: a node type for each partition and kind of GPU.

    Starts nothing. What is for short trials, or takes no job of yours now, is there as a comment.

    \b
    Examples:
      heliostat init slurm
      heliostat init slurm --ssh login.example.org -o site.yaml --name site
    """
    _give(_slurm_text(name, ssh), output, force=force, name=name)


def _local_text(name: str) -> str:
    from heliostat.config.init_local import Machine, local_cluster_file
    from heliostat.providers.local.inventory import read_gpus, read_machine
    from heliostat.providers.local.options import LocalOptions

    found = read_machine(LocalOptions())
    gpus = read_gpus(LocalOptions(), os.environ)
    return local_cluster_file(Machine(found.cpus, found.memory_bytes, len(gpus)), name=name)


def _slurm_text(name: str, ssh: str) -> str:
    from heliostat.config.init_slurm import slurm_cluster_file

    found = _found(asyncio.run(_look(ssh)), ssh)
    try:
        return slurm_cluster_file(found, name=name)
    except ValueError as error:
        raise HeliostatError(str(error)) from error


async def _look(ssh: str) -> Site:
    """Ask the site what it has; nothing is left behind."""
    from heliostat.providers.slurm.options import parse_section
    from heliostat.providers.slurm.runner import LocalRunner, Runner, SshRunner
    from heliostat.providers.slurm.site import probe

    elsewhere = parse_section({"ssh": ssh} if ssh else {}).ssh
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        runner: Runner = SshRunner(elsewhere, runtime_dir=folder) if elsewhere else LocalRunner()
        try:
            return await probe(runner, deadline_s=LOOK_DEADLINE_S)
        finally:
            await runner.aclose()


def _found(site: Site, ssh: str) -> FoundSite:
    from heliostat.cli.addresses import interfaces
    from heliostat.config.init_slurm import FoundSite

    accounts = {one.account for one in site.associations or ()}
    return FoundSite(
        cluster=site.config.cluster,
        version=site.config.version,
        places=tuple(_place(one, site) for one in site.partitions),
        accounts=tuple(sorted(accounts)),
        interfaces=tuple((one.name, one.address) for one in interfaces()),
        ssh=ssh,
        memory_is_counted=site.config.memory_is_counted,
    )


def _place(partition: Partition, site: Site) -> Place:
    from heliostat.config.init_slurm import Nodes, Place
    from heliostat.providers.slurm.site import troubles

    allowed = partition.allow_accounts or frozenset()
    mine = sorted(allowed & {one.account for one in site.associations or ()})
    account = mine[0] if mine else ""
    found = troubles(partition, site, account=account or None)
    return Place(
        name=partition.name,
        nodes=tuple(
            Nodes(kind.cpus, kind.memory_mb, kind.usable, gpus, gpu_type)
            for kind in partition.kinds
            for gpu_type, gpus in (kind.gpus or {"": 0}).items()
        ),
        is_default=partition.is_default,
        max_time_s=partition.max_time_s,
        whole_nodes=partition.exclusive or site.config.whole_nodes_only,
        account=account,
        trouble="; ".join(found),
    )


def _give(text: str, output: Path, *, force: bool, name: str) -> None:
    """Write or print a file's text, checked with the same eyes as any file."""
    _check(text, name)
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    _write(output, text, force=force)
    click.echo(f"wrote {output}: `heliostat check {output}` tries it, `heliostat up {output}` starts it")


def _check(text: str, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        path = Path(folder, "cluster.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            files.load(path)
        except ConfigError as error:
            # The line is of a file that nobody has seen.
            problems = [one.rpartition("cluster.yaml:")[2].partition(": ")[2] for one in error.problems]
            raise click.UsageError(f"no file for the name {name!r}: " + "; ".join(problems)) from error


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise HeliostatError(f"{path} is there already; --force replaces it, -o names another") from error
