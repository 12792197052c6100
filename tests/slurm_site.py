"""A real Slurm on this machine, for tests: its own munged, a controller and as many nodes as wanted.

Slurm as Debian builds it can run many slurmd on one machine. Everything is in one folder and on
free ports, so that several sites, and a Slurm of the machine itself, do not see each other.
Needs root, because slurmd does; no systemd, no cgroups, no munged of the system.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests import marked, slurm_accounting
from tests.packages import lacking

COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun")
PACKAGES = ("slurm-wlm", "munge")
READY_S = 30.0
COMMAND_S = 30.0
END_S = 10.0
POLL_S = 0.05
# Above the ports that Linux gives to clients, so that one that was free stays free.
PORTS = range(61000, 65500)
# In the environment of every process of a site, jobs included: how they are found again.
MARK = "MINI_SLURM_NODE"
PARTITIONS = (
    "PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00 State=UP",
    "PartitionName=short Nodes=ALL MaxTime=00:02:00 State=UP",
    "PartitionName=off Nodes=ALL MaxTime=1-00:00:00 State=DOWN",
)
# What slurmd says on every start here, whatever happens.
NOISE = re.compile(r"pmix|xcpuinfo_hwloc_topo_load|Node configuration differs from hardware")
# Keys that start a line of their own each time; all others may stand once.
REPEATED = ("nodename", "partitionname", "nodeset", "downnodes", "frontendname")


@dataclass(frozen=True)
class Kind:
    """`count` alike nodes, named `<prefix>1` and so on; `gpus` each, of `gpu_type` if it is named."""

    prefix: str
    count: int
    cpus: int = 4
    memory_mb: int = 4000
    gpus: int = 0
    gpu_type: str = ""
    features: tuple[str, ...] = ()


class Row(NamedTuple):
    """One job, or one task of an array (`46_3`), as squeue lists it."""

    id: str
    name: str
    state: str
    user: str
    node: str
    comment: str


def obstacle(*, accounting: bool = False) -> str | None:
    """Return why no Slurm can run here, or None; on a Debian, root installs what is missing."""
    if os.getuid() != 0:
        return "a mini Slurm needs root, because slurmd does"
    commands = (*COMMANDS, *(slurm_accounting.COMMANDS if accounting else ()))
    packages = (*PACKAGES, *(slurm_accounting.PACKAGES if accounting else ()))
    missing = lacking(commands, packages)
    if missing:
        return f"no {', '.join(missing)} here; on a Debian: apt-get install {' '.join(packages)}"
    return None


@dataclass
class SlurmSite:
    """A running site. `environment` is a user's: with it every Slurm command talks to this site."""

    folder: Path
    node_names: tuple[str, ...]
    environment: dict[str, str]
    controller_port: int
    _controller: subprocess.Popen[bytes] | None = None
    _munged: subprocess.Popen[bytes] | None = None
    _accounting_ports: tuple[int, int] | None = None
    _accounting: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(
        self, *argv: str, stdin: str = "", check: bool = True, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as `user`, with the site's environment; with `check` a failure raises its words."""
        done = subprocess.run(
            argv,
            input=stdin,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=COMMAND_S,
            user=user,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done

    def jobs(self, *, ended: bool = True) -> list[Row]:
        """Return every job that Slurm still knows, a row for each task; without `ended` only what may run."""
        rows = self._squeue("all" if ended else "pending,configuring,running,suspended,completing")
        return [Row(*line.split("\x1f")) for line in rows]

    def wait_for(self, told: Callable[[], bool], what: str, *, deadline_s: float = READY_S) -> None:
        """Wait until `told()`; else TimeoutError with what the site's logs end with."""
        deadline = time.monotonic() + deadline_s
        while not told():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {deadline_s:g} s: {what}\n{self.logs()}")
            time.sleep(POLL_S)

    def wait_for_states(self, states: Mapping[str, str], *, deadline_s: float = READY_S) -> None:
        """Wait until each of these jobs, or tasks, is in its state."""

        def told() -> bool:
            found = {row.id: row.state for row in self.jobs()}
            return all(found.get(one) == state for one, state in states.items())

        self.wait_for(told, f"jobs are {dict(states)}", deadline_s=deadline_s)

    def node_states(self) -> dict[str, str]:
        """Return each node's state as `sinfo` says it; a star behind it means that it does not answer."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def cancel_all(self, *, deadline_s: float = READY_S) -> None:
        """End every job of the site, those of all users; returns when none is left running."""
        ids = {row.id.partition("_")[0] for row in self.jobs(ended=False)}
        if ids:
            self.run("scancel", *sorted(ids), check=False)
            # A job whose script ignores TERM would take KillWait.
            self.run("scancel", "--signal=KILL", "--full", *sorted(ids), check=False)
        self.wait_for(lambda: not self.jobs(ended=False), "no job is left", deadline_s=deadline_s)

    def start_controller(self) -> None:
        """Start slurmctld, with the state that an earlier one left; returns when it answers."""
        assert self._controller is None
        self._controller = self._start("slurmctld", "-D", node="controller")
        self.wait_for(self._answers, "slurmctld answers")

    def stop_controller(self, *, gently: bool = True) -> None:
        """Stop slurmctld: gently it saves its state, else it is killed as by a crash. Jobs go on.

        A crashed one forgets, and its successor kills, what began after the last `save_state`.
        """
        assert self._controller is not None
        _end(self._controller, signal.SIGTERM if gently else signal.SIGKILL)
        self._controller = None

    def save_state(self) -> None:
        """Return when slurmctld has written down every job of now; it does within seconds of a change."""
        saved, now_ns = self.folder / "state" / "job_state", time.time_ns()
        options = ("--parsable", "--hold", "--output=/dev/null", "--chdir=/", "--wrap=true")
        change = self.run("sbatch", *options).stdout.strip()
        self.wait_for(lambda: saved.exists() and saved.stat().st_mtime_ns > now_ns, "the state is saved")
        self.run("scancel", change)

    def start_node(self, name: str, *, wait: bool = True) -> None:
        """Start a node's slurmd; returns when the node is usable, unless told not to `wait`."""
        assert name not in self._nodes
        self._nodes[name] = self._start("slurmd", "-D", "-N", name, node=name)
        if wait:
            self.wait_for(lambda: self.node_states()[name] in ("idle", "mixed", "allocated"), f"{name} is up")

    def stop_node(self, name: str, *, noticed: bool = True) -> None:
        """Let a node die with all that runs on it; if `noticed`, Slurm knows now, not after SlurmdTimeout."""
        process = self._nodes.pop(name)
        marked.kill(MARK, f"{self.folder}/{name}".__eq__)
        process.wait(END_S)
        if noticed:
            self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=stopped by a test")

    def logs(self, lines: int = 8) -> str:
        """Return the last lines of the daemons' logs, the controller's in front, without usual noise."""
        paths = sorted((self.folder / "log").iterdir(), key=lambda path: ("slurmctld" not in path.name, path))
        texts = [
            f"{path.name}: {line}"
            for path in paths
            for line in [
                one for one in path.read_text(errors="replace").splitlines() if not NOISE.search(one)
            ][-lines:]
        ]
        return "\n".join(texts[: 20 * lines])

    def _squeue(self, states: str) -> list[str]:
        shown = "--format=%i\x1f%j\x1f%T\x1f%u\x1f%N\x1f%k"
        return self.run(
            "squeue", "--noheader", "--array", "--all", f"--states={states}", shown
        ).stdout.splitlines()

    def _answers(self) -> bool:
        if self._controller is None or self._controller.poll() is not None:
            raise RuntimeError(f"slurmctld ended\n{self.logs(30)}")
        # A Slurm command that finds nobody tries for seconds.
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.controller_port)):
                return False
        return self.run("sinfo", "--noheader", check=False).returncode == 0

    def all_idle(self) -> bool:
        return set(self.node_states().values()) == {"idle"}

    def _start(self, *argv: str, node: str) -> subprocess.Popen[bytes]:
        environment = {**self.environment, MARK: f"{self.folder}/{node}"}
        with (self.folder / "log" / f"{Path(argv[0]).name}-{node}.out").open("ab") as out:
            return subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.folder,
            )

    def _start_all(self) -> None:
        self._munged = self._start(
            "munged",
            "--foreground",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munge.pid",
            f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/log/munged.log",
            node="munged",
        )
        self.wait_for((self.folder / "munge.socket").exists, "munged listens")
        if self._accounting_ports:
            self._start_accounting(*self._accounting_ports)
        self.start_controller()
        for name in self.node_names:
            self.start_node(name, wait=False)
        self.wait_for(self.all_idle, "all nodes are idle")

    def _start_accounting(self, database_port: int, port: int) -> None:
        database = slurm_accounting.database_argv(self.folder, port=database_port)
        self._accounting.append(self._start(*database, node="database"))
        self.wait_for(lambda: slurm_accounting.listens(database_port), "the database listens")
        self._accounting.append(self._start("slurmdbd", "-D", node="slurmdbd"))
        self.wait_for(lambda: slurm_accounting.listens(port), "slurmdbd listens")
        for arguments in slurm_accounting.first_entities(f"site{self.controller_port}"):
            self.run("sacctmgr", "--immediate", "add", *arguments)

    def _stop_all(self) -> None:
        marked.kill(MARK, lambda value: value.startswith(f"{self.folder}/"))
        for daemon in (self._controller, *self._nodes.values(), *self._accounting, self._munged):
            if daemon is not None:
                daemon.wait(END_S)


@contextmanager
def start(
    folder: Path | str,
    *,
    nodes: int = 4,
    cpus: int = 4,
    memory_mb: int = 4000,
    gpus_per_node: int = 0,
    kinds: Sequence[Kind] = (),
    partitions: Sequence[str] = PARTITIONS,
    extra_conf: str = "",
    files: Mapping[str, str] = MappingProxyType({}),
    accounting: bool = False,
) -> Iterator[SlurmSite]:
    """Run a site while the block runs; all of it, jobs and `folder` included, is gone afterwards.

    Its nodes are n1 to n`nodes`, and those of `kinds`. `partitions` are lines of slurm.conf, and so
    is `extra_conf`, which wins over what stands here (`MinJobAge=5`, `MaxArraySize=11`). `files` are
    more files beside slurm.conf, by their names. With
    `accounting` (ask `obstacle` for it) accounts, QOS and limits are enforced; root and nobody have
    the account `tests`, and `site.run("sacctmgr", "-i", …)` makes more.
    """
    place = Path(folder).resolve()
    place.mkdir(parents=True)
    place.chmod(0o755)
    first = Kind("n", nodes, cpus, memory_mb, gpus_per_node)
    all_kinds = [kind for kind in (first, *kinds) if kind.count]
    names = tuple(name for kind in all_kinds for name in _names(kind))
    port, database_port, accounting_port, *node_ports = _free_ports(3 + len(names))
    site = SlurmSite(place, names, _environment(place), port)
    try:
        _write_files(place)
        if accounting:
            extra_conf = slurm_accounting.conf(place, accounting_port) + extra_conf
            slurm_accounting.write_files(place, port=accounting_port, database_port=database_port)
            site._accounting_ports = (database_port, accounting_port)
        _write_gres(place, all_kinds)
        conf = [*_node_lines(all_kinds, node_ports), *partitions]
        _write_conf(place, port, conf, extra_conf)
        for name, text in files.items():
            (place / name).write_text(text)
        site._start_all()
        yield site
    finally:
        try:
            site._stop_all()
        finally:
            shutil.rmtree(place)


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment without what would bend Slurm's commands."""
    bent = ("SLURM", "SBATCH_", "SQUEUE_", "SCANCEL_", "SRUN_", "SINFO_", "SALLOC_", "SCONTROL_", "SACCT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(bent)}
    return {**kept, "SLURM_CONF": f"{folder}/slurm.conf"}


def _names(kind: Kind) -> list[str]:
    return [f"{kind.prefix}{number}" for number in range(1, kind.count + 1)]


def _write_files(folder: Path) -> None:
    for name in ("log", "state", "gpus"):
        (folder / name).mkdir()
    cache = folder / "state" / "env_cache"
    cache.mkdir()
    for user in pwd.getpwall():
        (cache / user.pw_name).write_text(
            f"PATH={os.environ['PATH']}\nHOME={user.pw_dir}\nUSER={user.pw_name}\n"
        )
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    # What it prints gets into the environment of every task, whatever the job says about exports.
    prolog = folder / "task_prolog"
    prolog.write_text(f'#!/bin/sh\necho "export {MARK}={folder}/$SLURMD_NODENAME"\n')
    prolog.chmod(0o755)


def _write_conf(folder: Path, port: int, lines: Sequence[str], extra_conf: str) -> None:
    once, repeated = _split(extra_conf)
    settings = [f"{key}={value}" for key, value in _settings(folder, port).items() if key.lower() not in once]
    (folder / "slurm.conf").write_text("\n".join([*settings, *once.values(), *lines, *repeated, ""]))


def _settings(folder: Path, port: int) -> dict[str, str]:
    """Return slurm.conf's keys that may stand once."""
    return {
        "ClusterName": f"site{port}",
        "SlurmctldHost": f"{_host()}(127.0.0.1)",
        "SlurmctldPort": str(port),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool-%n",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd-%n.pid",
        "SlurmctldLogFile": f"{folder}/log/slurmctld.log",
        "SlurmdLogFile": f"{folder}/log/slurmd-%n.log",
        "TaskProlog": f"{folder}/task_prolog",
        # Nothing that needs cgroups, a database or the machine's real hardware.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "100",
        "SchedulerType": "sched/backfill",
        # Schedule at once: by default Slurm lets a new job wait for seconds.
        "SchedulerParameters": "bf_interval=1,sched_interval=5,batch_sched_delay=0,sched_min_interval=0",
        "GresTypes": "gpu",
        "ReturnToService": "2",
        "KillWait": "5",
        # Else every job with `--export=NONE` runs its user's login files, however long they take.
        "GetEnvTimeout": "0",
        "MailProg": "/bin/true",
    }


def _node_lines(kinds: Sequence[Kind], ports: Sequence[int]) -> Iterator[str]:
    numbers = iter(ports)
    for kind in kinds:
        gres = f" Gres={_gres(kind)}" if kind.gpus else ""
        feature = f" Feature={','.join(kind.features)}" if kind.features else ""
        for name in _names(kind):
            yield (
                f"NodeName={name} NodeHostname={_host()} NodeAddr=127.0.0.1 Port={next(numbers)}"
                f" CPUs={kind.cpus} RealMemory={kind.memory_mb}{gres}{feature} State=UNKNOWN"
            )


def _gres(kind: Kind) -> str:
    return ":".join(("gpu", *filter(None, (kind.gpu_type,)), str(kind.gpus)))


def _write_gres(folder: Path, kinds: Sequence[Kind]) -> None:
    """Write gres.conf, and make the files that stand for the GPUs."""
    lines = []
    for kind in kinds:
        files = [folder / "gpus" / f"{kind.prefix}{number}" for number in range(kind.gpus)]
        for file in files:
            # Slurm wants devices; ones like /dev/null do no harm.
            os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        if files:
            type_ = f" Type={kind.gpu_type}" if kind.gpu_type else ""
            lines += [
                f"NodeName={name} Name=gpu{type_} File={file}\n" for name in _names(kind) for file in files
            ]
    (folder / "gres.conf").write_text("".join(lines))


def _split(extra_conf: str) -> tuple[dict[str, str], list[str]]:
    """Return the lines that may stand once, by their lower-case key, and the others."""
    once: dict[str, str] = {}
    repeated: list[str] = []
    for line in extra_conf.splitlines():
        key = line.partition("=")[0].strip().lower()
        if key in REPEATED:
            repeated.append(line.strip())
        elif key:
            once[key] = line.strip()
    return once, repeated


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens, from a place drawn for this site."""
    begin = secrets.randbelow(len(PORTS))
    found = []
    for step in range(len(PORTS)):
        port = PORTS[(begin + step) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} ports are free within {PORTS[0]} and {PORTS[-1]}")


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    process.send_signal(number)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_S)
