"""Where Slurm's commands run: here, or on a login node through OpenSSH. The one place with I/O.

A command has a deadline and leaves nothing behind: past it, or when its caller is
cancelled, its whole process group is killed. It may have acted all the same; what came of
an `sbatch` whose answer was lost is seen in the next listing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import re
import shlex
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from heliostat.ports.errors import AuthenticationFailed, ProviderError, Unavailable
from heliostat.providers.slurm.jobs import ENVIRONMENT
from heliostat.providers.slurm.keys import Ssh

OUTPUT_MOST_BYTES = 64 * 2**20
SIZE_PERIOD_S = 0.5
"""How often the size of a running command's output is looked at."""
REAP_S = 2.0
"""How long a killed process is waited for: one that hangs in a file system can't even be killed."""

COMMANDS = "SBATCH|SQUEUE|SCANCEL|SINFO|SACCT|SACCTMGR|SCONTROL|SRUN|SALLOC"
BENDING = re.compile(rf"({COMMANDS})_\w+")
"""Defaults that people set for their own commands: ours must not change with them."""
OWN_OF_SLURM = re.compile(r"SLURM_(CONF\w*|CLUSTERS|JWT|SACK_\w+)")
"""What of SLURM_* says where Slurm is. The rest describes a job that we may be running in."""

CONTROL_PATH_MOST_BYTES = 90
"""A socket's path has 107 bytes at most, and ssh adds 17 to it while it makes one."""
CONTROL_PERSIST_S = 600
CONNECT_TIMEOUT_S = 10
CLOSE_DEADLINE_S = 5.0
REMOTE_EXTRA_S = 2
"""How much longer a command may run on the far side: then it ends there, too, if we were cut off."""
DEFAULTS = (
    "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "-o", "ServerAliveInterval=10",
    "-o", "ServerAliveCountMax=3",
    "-o", "LogLevel=ERROR",
)  # fmt: skip
"""The user's own options stand before them, and ssh takes the first of two."""
NOT_FOUND = 127
MARK = "\x1dheliostat\x1d"
SSH_REFUSED = re.compile(
    r"Permission denied \(|Host key verification failed|Too many authentication failures"
    r"|No more authentication methods"
)


@dataclass(frozen=True)
class Output:
    """What a command gave; text is UTF-8, with U+FFFD for what is not."""

    code: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Runs one command. Raises Unavailable when it can't be run, or hangs past its deadline."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Return how many times each command was run."""
        ...

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output: ...

    async def aclose(self) -> None: ...


def command_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Slurm's commands: inherited, less what would bend them."""
    kept = {name: value for name, value in inherited.items() if not _is_bending(name)}
    return {**kept, **ENVIRONMENT}


def _is_bending(name: str) -> bool:
    if BENDING.fullmatch(name):
        return True
    return name.startswith("SLURM_") and not OWN_OF_SLURM.fullmatch(name)


class LocalRunner:
    """Runs Slurm's commands on this machine."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = command_environment(environment)
        self.counts: Counter[str] = Counter()

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        try:
            return await _run(
                argv, stdin=stdin, deadline_s=deadline_s, environment=self._environment, name=argv[0]
            )
        except FileNotFoundError as error:
            raise Unavailable(
                f"{argv[0]} was not found: is this a machine with Slurm, and Slurm in the PATH?"
            ) from error
        except OSError as error:
            raise Unavailable(f"{argv[0]} could not be run: {error.strerror or error}") from error

    async def aclose(self) -> None: ...


class SshRunner:
    """Runs Slurm's commands on another machine, through one connection that stays open.

    `environment` is what they get there. Where the user's own ssh configuration shares
    connections (ControlPath), theirs is used and left alone: on a site with a second
    factor a person opens it. Else ours is in `runtime_dir`, private, and ended by `aclose`.
    """

    def __init__(self, ssh: Ssh, *, runtime_dir: str, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._destination = f"{ssh.user}@{ssh.host}" if ssh.user else ssh.host
        port = ("-p", str(ssh.port)) if ssh.port else ()
        self._options = (*port, *ssh.options)
        self._environment = dict(environment)
        self._runtime_dir = Path(runtime_dir)
        self._sharing: tuple[str, ...] | None = None
        self._spare_folder: str | None = None
        self._opening: Final = asyncio.Lock()
        self._is_open = False
        self.counts: Counter[str] = Counter()

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        if self._is_open:
            return await self._run(argv, stdin, deadline_s)
        # Many at once would each log in on their own.
        async with self._opening:
            found = await self._run(argv, stdin, deadline_s)
            self._is_open = True
            return found

    async def aclose(self) -> None:
        """End the shared connection, if it is ours."""
        if self._sharing:
            with contextlib.suppress(ProviderError, OSError):
                await self._ssh(("-O", "exit"), deadline_s=CLOSE_DEADLINE_S)
        if self._spare_folder is not None:
            shutil.rmtree(self._spare_folder, ignore_errors=True)
        self._sharing, self._spare_folder, self._is_open = None, None, False

    async def _run(self, argv: Sequence[str], stdin: str, deadline_s: float) -> Output:
        if self._sharing is None:
            self._sharing = await self._shared(deadline_s)
        remote = remote_command(argv, self._environment, remote_s=math.ceil(deadline_s) + REMOTE_EXTRA_S)
        name = f"{argv[0]} on {self._destination}"
        answer = await self._ssh(("-T",), (remote,), stdin=stdin, deadline_s=deadline_s, name=name)
        found = read_remote(answer)
        if found is None:
            self._is_open = False
            raise _ssh_error(self._destination, answer)
        if found.code == NOT_FOUND:
            raise Unavailable(f"{argv[0]} was not found on {self._destination}: {_last_line(found.stderr)}")
        return found

    async def _ssh(
        self,
        before: Sequence[str],
        after: Sequence[str] = (),
        *,
        stdin: str = "",
        deadline_s: float,
        name: str = "ssh",
    ) -> Output:
        command = ("ssh", *(self._sharing or ()), "-o", "BatchMode=yes", *self._options, *DEFAULTS, *before)
        try:
            return await _run(
                (*command, "--", self._destination, *after),
                stdin=stdin,
                deadline_s=deadline_s,
                environment=os.environ,
                name=name,
            )
        except OSError as error:
            raise Unavailable(f"ssh could not be run: {error.strerror or error}") from error

    async def _shared(self, deadline_s: float) -> tuple[str, ...]:
        """Return the options for a shared connection of our own; none where the user has one."""
        answer = await self._ssh(("-G",), deadline_s=deadline_s)
        if answer.code != 0:
            raise _ssh_error(self._destination, answer)
        if re.search(r"^controlpath (?!none$)", answer.stdout, re.MULTILINE):
            return ()
        try:
            path = self._control_path()
        except OSError as error:
            raise Unavailable(f"no folder for ssh's connection: {error}") from error
        shared = ("ControlMaster=auto", f"ControlPersist={CONTROL_PERSIST_S}", f"ControlPath={path}")
        return tuple(part for option in shared for part in ("-o", option))

    def _control_path(self) -> str:
        name = hashlib.sha256(repr((self._destination, self._options)).encode()).hexdigest()[:12]
        self._runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = str(self._runtime_dir / f"ssh-{name}")
        # A percent sign would be one of ssh's own tokens.
        if len(path.encode()) <= CONTROL_PATH_MOST_BYTES and "%" not in path:
            return path
        self._spare_folder = tempfile.mkdtemp(prefix="hel-", dir="/tmp")
        return f"{self._spare_folder}/ssh-{name}"


def remote_command(argv: Sequence[str], environment: Mapping[str, str], *, remote_s: int) -> str:
    """Return the line for the far side's login shell, whichever that is.

    The answer stands between two marks, the exit code behind the second: so what a
    profile prints is told from the answer, and a 255 of Slurm's from one of ssh's.
    """
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = shlex.join(["env", *variables, *argv])
    script = (
        f"command -v {shlex.quote(argv[0])} >/dev/null 2>&1 || "
        "{ [ -r /etc/profile ] && . /etc/profile >/dev/null 2>&1; }; "
        f"unset $(env | grep -oE '^({COMMANDS})_[A-Za-z0-9_]+'); "
        f"limit=$(command -v timeout >/dev/null 2>&1 && echo 'timeout -s KILL {remote_s}'); "
        f"printf '\\035heliostat\\035'; $limit {command}; printf '\\035heliostat\\035%d' $?"
    )
    return f"exec /bin/sh -c {shlex.quote(script)}"


def read_remote(answer: Output) -> Output | None:
    """Return what the command gave; None when ssh did not bring its whole answer."""
    parts = answer.stdout.split(MARK)
    if answer.code != 0 or len(parts) < 3 or not parts[-1].strip().isdigit():
        return None
    return Output(int(parts[-1]), MARK.join(parts[1:-1]), answer.stderr)


def _ssh_error(destination: str, answer: Output) -> ProviderError:
    words = _last_line(answer.stderr)
    if SSH_REFUSED.search(answer.stderr):
        return AuthenticationFailed(
            f"ssh to {destination} was refused: {words}; `ssh {destination}` must work without a question"
        )
    said = words or (f"exit code {answer.code}" if answer.code else "its answer breaks off")
    return Unavailable(f"ssh to {destination} failed: {said}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


# One process.


async def _run(
    argv: Sequence[str], *, stdin: str, deadline_s: float, environment: Mapping[str, str], name: str
) -> Output:
    """Run to the end. Raises OSError when it can't start, Unavailable when it must be killed.

    Input and output are files in memory, not pipes: whoever inherits them (ssh's shared
    connection does) can't keep us waiting for their end.
    """
    with _memory_file("in") as source, _memory_file("out") as output, _memory_file("err") as errors:
        os.write(source, stdin.encode())
        os.lseek(source, 0, os.SEEK_SET)
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=source, stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        try:
            async with asyncio.timeout(deadline_s):
                await _ended(child, (output, errors), name)
        except TimeoutError as error:
            last = _last_line(_text(errors))
            raise Unavailable(
                f"{name} did not answer within {deadline_s:g} s{f': {last}' if last else ''}"
            ) from error
        finally:
            if child.returncode is None:
                await _kill(child)
        assert child.returncode is not None, "it has ended"
        return Output(child.returncode, _text(output), _text(errors))


async def _ended(child: asyncio.subprocess.Process, files: Sequence[int], name: str) -> None:
    """Wait for the end; Unavailable when the output outgrows its limit."""
    end = asyncio.ensure_future(child.wait())
    try:
        while True:
            await asyncio.wait({end}, timeout=SIZE_PERIOD_S)
            if any(os.fstat(file).st_size > OUTPUT_MOST_BYTES for file in files):
                raise Unavailable(f"{name} printed more than {OUTPUT_MOST_BYTES} bytes")
            if end.done():
                return
    finally:
        end.cancel()


async def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), REAP_S)


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    file = os.memfd_create(f"heliostat-{name}", os.MFD_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _text(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
