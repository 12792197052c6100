"""What runs on every worker, in any image: one file, standard library only, and the Ray that is there.

    python bootstrap.py START.json        (`-`: the document comes on standard input)
    HELIOSTAT_START=<base64> python bootstrap.py

Two processes. The parent is small and imports no Ray: it takes a temp dir and a port block, starts
the child, forwards signals, and leaves no process behind however things end. The child imports Ray
once: it checks that the cluster is still ours, claims the instance's id, does the steps that come before
Ray (`setup`), and runs Ray's own `ray start --block` in the same process. Its threads watch the parent,
the raylet, the lease and the controller's heartbeat.

    python bootstrap.py --setup LAUNCH.json      does a head's steps (`head_setup`) and nothing else

The document's keys, the exit codes and the log lines are described in docs/bootstrap.md.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import glob
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

ENDED, STRANGER, CLAIMED, VERSIONS, NO_PORTS, RAY_FAILED = 0, 10, 11, 12, 13, 14
UNREACHABLE, BAD_DOCUMENT, NO_TEMP_DIR, RAYLET_DIED, SETUP_FAILED = 15, 16, 17, 18, 19

NAMESPACE = b"heliostat"
REACH_S = 60.0
CALL_S = 5.0
LOOK_S = 0.25
HEARTBEAT_LOOK_S = 2.0
DRAIN_AGAIN_S = 5.0
KILL_S = 5.0
FAREWELL_S = 1.0
PARENT_LOOK_S = 0.1
NEWS_S = 3.0
LOG_LINES = 15
SETUP_LOOK_S = 0.1
COPY_S = 600.0
"""How long a copy that is made again may take."""
SETUP_LINES = 3
SETUP_SHOWN_CHARS = 300
VANISHED = 24
"""rsync's exit code where files went while it read them: another worker of this host copies, too."""
SOCKET_BYTES_MAX = 107
RAY_SOCKET_CHARS = 69
"""Ray's longest socket path below its temp dir."""

BLOCK = 8
RAY_WORKER_PORTS = (10002, 19999)
"""Where other Ray nodes of this host put their worker processes, unless they are told otherwise."""
EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
PORTS = (
    *("node-manager", "object-manager", "runtime-env-agent"),
    *("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"),
)

IDLE_TERMINATION, PREEMPTION = 1, 2
LEAVE_SOON, STOP = "leave soon", "stop"
"""What the parent says on the child's line."""
DEATHS = {
    1: "terminated as expected",
    2: "terminated unexpectedly",
    3: "drained ahead of its end",
    4: "drained because it was idle",
}
"""Ray's `NodeDeathInfo.Reason`, in words."""
PLANNED = (1, 3, 4)

NOT_CUSTOM = {"CPU", "GPU", "memory", "object_store_memory"}
# The raylet connects to the object store that it starts itself at that moment. If it comes too early it tries
# again after a whole second, so that one start in three or so takes that much longer. The limit, 10 s, stays.
QUICK_CONNECTS = {
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
}
NOT_INHERITED = ("HELIOSTAT_START", "RAY_ADDRESS", "RAY_OVERRIDE_")
REQUIRED = ("cluster_uid", "gcs_address", "instance_id", "node_type", "resources")

# Parts of Ray's command line that `ray start` does not need; without them its import is shorter.
# Ray takes their absence as «not installed», which it allows for.
UNNEEDED = ("ray.serve.scripts", "ray.dashboard.modules.job.cli", "ray.util.state.state_cli")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)

Document = dict[str, Any]


class Failed(Exception):
    """Why this worker can't come up: an exit code and one plain line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def say(text: str) -> None:
    # Whoever read our output may be gone; that must not end a worker that works.
    with contextlib.suppress(OSError):
        print(f"bootstrap: {text}", flush=True)


def read_document(argv: list[str]) -> Document:
    """Return the start document, checked for what is needed here; raise Failed(BAD_DOCUMENT)."""
    try:
        if argv == ["-"]:
            text = sys.stdin.read()
        elif argv:
            with open(argv[0], encoding="utf-8") as file:
                text = file.read()
        else:
            text = base64.b64decode(os.environ["HELIOSTAT_START"]).decode()
        found = json.loads(text)
    except (OSError, KeyError, ValueError) as error:
        raise Failed(BAD_DOCUMENT, f"the start document can't be read: {error!r}") from error
    missing = [key for key in REQUIRED if not isinstance(found, dict) or key not in found]
    if missing:
        raise Failed(BAD_DOCUMENT, f"the start document lacks {', '.join(missing)}")
    return dict(found)


def make_temp_dir(root: str) -> str:
    """Make a short private folder, since workers that share one race for socket names."""
    limit = SOCKET_BYTES_MAX - RAY_SOCKET_CHARS - len("/hel-12345678")
    if len(os.fsencode(root)) > limit:
        raise Failed(NO_TEMP_DIR, f"temp_root {root} is too long for Ray's sockets: at most {limit} bytes")
    try:
        return tempfile.mkdtemp(prefix="hel-", dir=root)
    except OSError as error:
        raise Failed(NO_TEMP_DIR, f"no temp dir can be made in {root}: {error.strerror}") from error


def take_ports(low: int, high: int) -> tuple[socket.socket, dict[str, int]]:
    """Return a bound sentinel, which is the lock on the block, and the block's ports.

    The kernel drops the sentinel with this process, and every user of the host sees it. Worker processes
    take ports of the kernel's choice: their number has no limit, and the kernel gives no port twice.
    """
    taken = (RAY_WORKER_PORTS, ephemeral_ports())
    bases = [
        base
        for base in range(low, high - BLOCK + 2, BLOCK)
        if not any(base <= last and first < base + BLOCK for first, last in taken)
    ]
    start = secrets.randbelow(len(bases)) if bases else 0
    for base in bases[start:] + bases[:start]:
        sentinel = _bound(base, "127.0.0.1")
        if sentinel is None:
            continue
        ports = {name: base + 1 + index for index, name in enumerate(PORTS)}
        probes = [_bound(port, "") for port in ports.values()]
        for probe in probes:
            if probe is not None:
                probe.close()
        if all(probes):
            return sentinel, ports
        sentinel.close()
    besides = ", ".join(f"{first}–{last}" for first, last in taken)
    text = f"no block of {BLOCK} free ports between {low} and {high} (not used: {besides}): set port_range"
    raise Failed(NO_PORTS, text)


def ephemeral_ports() -> tuple[int, int]:
    """Return the range from which the kernel gives ports to whoever asks for any; (0, 0) if unknown."""
    try:
        with open(EPHEMERAL, encoding="ascii") as file:
            first, last = file.read().split()
    except (OSError, ValueError):
        return 0, 0
    return int(first), int(last)


def _bound(port: int, host: str) -> socket.socket | None:
    bound = socket.socket()
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        return None
    return bound


# -- processes


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


def process(pid: int) -> tuple[int, str] | None:
    """Return (parent, name) of a process that lives; None for one that is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, tail = file.read().rpartition(")")
    except OSError:
        return None
    state, parent = tail.split()[:2]
    return None if state in "ZX" else (int(parent), head.partition("(")[2])


def descendants(pid: int) -> list[int]:
    """Return the living descendants of `pid`, children before grandchildren."""
    table = {int(one): process(int(one)) for one in os.listdir("/proc") if one.isdigit()}
    found: list[int] = []
    frontier = {pid}
    while frontier:
        frontier = {one for one, known in table.items() if known is not None and known[0] in frontier}
        found += sorted(frontier)
    return found


def raylet_of(pid: int) -> int | None:
    """Return the raylet that the process `pid` has started."""
    return next((one for one in descendants(pid) if process(one) == (pid, "raylet")), None)


def kill_all() -> None:
    """Kill every descendant, those that start meanwhile too; orphans are ours (`adopt_orphans`)."""
    until_s = time.monotonic() + KILL_S
    while (left := descendants(os.getpid())) and time.monotonic() < until_s:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def worker_environment(document: Document) -> dict[str, str]:
    """Return the child's environment: this one's, with what ties the node to its instance."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return (
        QUICK_CONNECTS
        | kept
        | {
            "HELIOSTAT_CLUSTER_UID": str(document["cluster_uid"]),
            "HELIOSTAT_INSTANCE_ID": str(document["instance_id"]),
            "RAY_CLOUD_INSTANCE_ID": str(document["instance_id"]),
            "RAY_NODE_TYPE_NAME": str(document["node_type"]),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(int(grace_s(document))),
        }
    )


def grace_s(document: Document) -> float:
    return float(document.get("drain_grace_s", 30))


# -- the steps before Ray


def do_setup(setup: Document, output: str, *, tell: Callable[[str], None], look: Callable[[], None]) -> None:
    """Do the steps in order; raise Failed(SETUP_FAILED) with the last lines of the first that fails.

    `output` is a file for what a step prints, which is shown on standard output. While a step runs, `look`
    is called again and again, and may raise Failed: whoever catches it kills what still runs. Raises
    Failed(VERSIONS) where another Ray is there in the end.
    """
    before = installed_ray()
    for path in setup.get("synced") or ():
        if not os.path.exists(os.path.expanduser(path)):
            raise Failed(SETUP_FAILED, f"cluster_synced_files: {path} {not_here()}")
    steps: list[tuple[str, list[str]]] = []
    for remote, argv in copies(setup):
        steps.append((f"file_mounts.{remote}", argv))
    for key, text in [*(setup.get("initialization") or ()), *(setup.get("commands") or ())]:
        steps.append((key, ["bash", "-c", text]))
    for number, (name, argv) in enumerate(steps, start=1):
        tell(f"setup, step {number} of {len(steps)}: {name}")
        do_step(name, argv, output, look=look)
    if (now := installed_ray()) != before:
        text = (
            f"its setup has put Ray {now} in the place of {before}; Ray must be there before, in one version"
        )
        raise Failed(VERSIONS, f"{text} for the head and its workers")


def not_here() -> str:
    where = socket.gethostname()
    return f"is not on {where}: it must lie on a file system that the head and its workers share"


def copies(setup: Document) -> list[tuple[str, list[str]]]:
    """Return rsync's command for each mount; none for one that is in its place already."""
    found = []
    for remote, local in setup.get("mounts") or ():
        target = os.path.expanduser(remote).rstrip("/") or "/"
        if not os.path.exists(local):
            raise Failed(SETUP_FAILED, f"file_mounts.{remote}: {local} {not_here()}")
        here, there = os.path.realpath(local), os.path.realpath(target)
        if here == there:
            continue
        if os.path.isdir(local) and there.startswith(here.rstrip("/") + "/"):
            text = f"file_mounts.{remote}: on {socket.gethostname()} {target} lies in {local}, and a folder"
            raise Failed(SETUP_FAILED, f"{text} can't be copied into itself")
        if shutil.which("rsync") is None:
            raise Failed(SETUP_FAILED, f"file_mounts.{remote}: there is no rsync on {socket.gethostname()}")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except OSError as error:
            text = f"file_mounts.{remote}: {os.path.dirname(target)} can't be made: {error.strerror}"
            raise Failed(SETUP_FAILED, text) from error
        slash = "/" if os.path.isdir(local) else ""
        options = setup.get("rsync") or []
        found.append((remote, ["rsync", "-a", *options, "--", local.rstrip("/") + slash, target + slash]))
    return found


def copy_again(setup: Document) -> str:
    """Do the copies once more; return what went wrong, nothing if all is well."""
    wrong = []
    try:
        for remote, argv in copies(setup):
            if why := copied(argv):
                wrong.append(f"file_mounts.{remote} is not copied again: {why}")
    except Failed as error:
        wrong.append(str(error))
    return "; ".join(wrong)


def copied(argv: list[str]) -> str:
    """Run rsync; return what is wrong with that, in the first line of what it says."""
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    try:
        done = subprocess.run(argv, stdin=quiet, stdout=quiet, stderr=pipe, timeout=COPY_S, check=False)
    except subprocess.TimeoutExpired:
        return f"rsync took more than {COPY_S:g} s"
    except OSError as error:
        return f"rsync can't be run: {error.strerror}"
    if done.returncode in (0, VANISHED):
        return ""
    first = next(iter(done.stderr.decode(errors="replace").splitlines()), "it said nothing")
    return f"exit code {done.returncode}: {first[:SETUP_SHOWN_CHARS]}"


def do_step(name: str, argv: list[str], output: str, *, look: Callable[[], None]) -> None:
    """Run one step in the home folder, without input. What it leaves in the background goes on."""
    home = os.path.expanduser("~")
    # A pipe would keep us until all in the background has closed it; a file does not.
    with open(output, "wb") as file:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=home if os.path.isdir(home) else "/",
            )
        except OSError as error:
            raise Failed(SETUP_FAILED, f"{name}: {argv[0]} can't be run: {error.strerror}") from error
    with open(output, "rb") as file:
        while (code := process.poll()) is None:
            show(file.read())
            look()
            time.sleep(SETUP_LOOK_S)
        show(file.read())
    if code and not (argv[0] == "rsync" and code == VANISHED):
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise Failed(SETUP_FAILED, f"{name} failed with {how}{last_words(output)}")


def show(chunk: bytes) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os.write(1, chunk)


def last_words(output: str) -> str:
    """Return the last lines of a step, as the end of a sentence of one line."""
    with open(output, encoding="utf-8", errors="replace") as file:
        lines = [" ".join(line.split()) for line in file.readlines()[-LOG_LINES:] if line.strip()]
    said = " / ".join(lines[-SETUP_LINES:])
    return f": {said[-SETUP_SHOWN_CHARS:]}" if said else ", and said nothing"


def set_up_head(path: str) -> int:
    """Do the `head_setup` of a launch file; return an exit code. Nothing of a step is left if it failed."""
    adopt_orphans()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))

    def look() -> None:
        if asked:
            raise Failed(128 + asked[0], f"asked to stop ({signal.Signals(asked[0]).name})")

    code, why = SETUP_FAILED, ""
    try:
        with open(path, encoding="utf-8") as file, tempfile.TemporaryDirectory(prefix="hel-") as folder:
            do_setup(json.load(file)["head_setup"], f"{folder}/setup", tell=say, look=look)
            code = ENDED
    except Failed as error:
        code, why = error.code, str(error)
    except OSError as error:
        code, why = SETUP_FAILED, f"the setup of the head's host can't be done: {error}"
    finally:
        if code != ENDED:
            kill_all()
    if why:
        say(f"ended with {code}: {why}")
    return code


# -- the parent


class Parent:
    """Starts the child, listens to it and to signals, and cleans up."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.status: Document = {"state": "checking", "detail": "", "pid": os.getpid(), "exit_code": None}
        self.end: tuple[int, str] | None = None
        self.raylet: int | None = None
        self.stopping_since_s: float | None = None
        self.gone_since_s: float | None = None
        self.buffer = b""

    def run(self) -> int:
        """Return the exit code; no process and no temp dir is left then."""
        try:
            # Blocked, they wait until the loop asks for them; the child unblocks them for itself.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self.with_place()
        except Failed as error:
            self.end = (error.code, str(error))
        code, detail = self.end or (RAY_FAILED, "Ray did not start")
        self.tell(state="ended", detail=detail, exit_code=code)
        say(f"ended with {code}: {detail}")
        return code

    def with_place(self) -> None:
        adopt_orphans()
        low, high = self.document.get("port_range") or (20000, 32000)
        # The sentinel stays bound until the last process is gone.
        sentinel, ports = take_ports(int(low), int(high))
        with sentinel:
            temp_dir = make_temp_dir(str(self.document.get("temp_root") or "/tmp"))
            self.document |= {"ports": ports, "temp_dir": temp_dir}
            self.tell(ports=ports, temp_dir=temp_dir)
            try:
                self.supervise()
            finally:
                kill_all()
                self.show_logs(temp_dir)
                shutil.rmtree(temp_dir, ignore_errors=True)

    def show_logs(self, temp_dir: str) -> None:
        """Print the raylet's last lines after a failure, since its logs go with the temp dir."""
        for path in (
            sorted(glob.glob(f"{temp_dir}/session_2*/logs/raylet.*")) if self.end and self.end[0] else ()
        ):
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
                for line in file.readlines()[-LOG_LINES:]:
                    print(f"{os.path.basename(path)}: {line.rstrip()}", flush=True)

    def tell(self, **changes: object) -> None:
        """Write what is new to the status file, whole or not at all."""
        self.status |= changes
        path = self.document.get("status_file")
        # A status that can't be written must not end a worker that works.
        with contextlib.suppress(OSError):
            if path:
                with open(f"{path}.new", "w", encoding="utf-8") as file:
                    json.dump(self.status | {"at_s": time.time()}, file)
                os.replace(f"{path}.new", path)

    def supervise(self) -> None:
        """Run the child until it has ended or must be ended."""
        news, outlet = os.pipe()
        self.child = self.start_child(outlet)
        os.close(outlet)
        os.set_blocking(news, False)
        while self.child.poll() is None and not self.is_over():
            found = signal.sigtimedwait(SIGNALS, PARENT_LOOK_S)
            if found is not None:
                self.act_on(found.si_signo)
            self.hear(news)
        self.hear(news)
        os.close(news)
        self.end = self.end or self.unexplained_end()

    def start_child(self, news: int) -> subprocess.Popen[bytes]:
        """Start the child; its standard input is the line from here, and this process's end closes it."""
        child = subprocess.Popen(
            [sys.executable, "-u", os.path.abspath(__file__), "--child", str(news)],
            stdin=subprocess.PIPE,
            pass_fds=[news],
            env=worker_environment(self.document),
        )
        self.line = child.stdin
        self.send(json.dumps(self.document))
        return child

    def send(self, text: str) -> None:
        assert self.line is not None
        with contextlib.suppress(BrokenPipeError):
            self.line.write(text.encode() + b"\n")
            self.line.flush()

    def hear(self, news: int) -> None:
        """Read the child's news: lines, one message each."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(news, 65536):
                self.buffer += chunk
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self.heard(json.loads(line))

    def heard(self, message: Document) -> None:
        if "exit_code" in message:
            self.end = self.end or (int(message["exit_code"]), str(message["detail"]))
            return
        self.raylet = message.get("ray_pid", self.raylet)
        if self.stopping_since_s is None:
            self.tell(**message)
        say(str(message["detail"]))

    def act_on(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self.send(LEAVE_SOON)
        elif number != signal.SIGCHLD and self.stopping_since_s is None:
            self.stop(signal.Signals(number).name)

    def stop(self, why: str) -> None:
        """Have the child drain and end; before Ray runs there is nothing to drain."""
        self.stopping_since_s = time.monotonic()
        runs = self.raylet is not None
        say(f"{why}: stopping" + ("" if runs else ", nothing runs here yet"))
        self.tell(state="stopping", detail=why)
        self.end = (ENDED, f"asked to stop ({why})")
        # Not by a signal: what Ray makes of one differs, and before 2.57 it ends busy tasks at once.
        if runs:
            self.send(STOP)
        else:
            self.child.kill()

    def is_over(self) -> bool:
        """Say whether the child has to be ended: it overstays, or its raylet is gone.

        `ray start --block` does not return when the raylet leaves by itself after a drain.
        """
        now_s = time.monotonic()
        lease_end_s = self.document.get("lease_end_s")
        if self.end is None and lease_end_s is not None and time.time() >= lease_end_s:
            # Ray lets a task go on past a drain's deadline.
            self.end = (ENDED, "the lease has ended")
        if self.stopping_since_s is None and self.end is not None:
            return True
        if (
            self.stopping_since_s is not None
            and now_s - self.stopping_since_s > grace_s(self.document) + KILL_S
        ):
            say(f"Ray did not stop within {grace_s(self.document):g} s")
            return True
        if self.raylet is None or process(self.raylet) == (self.child.pid, "raylet"):
            return False
        # The child knows better why; it is given a moment to say so, and Ray one to tidy up.
        self.gone_since_s = self.gone_since_s or now_s
        return now_s - self.gone_since_s > (NEWS_S if self.stopping_since_s is None else 1.0)

    def unexplained_end(self) -> tuple[int, str]:
        if self.gone_since_s is not None:
            return RAYLET_DIED, "the raylet is gone"
        code = self.child.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        ran = self.status["state"] in ("running", "draining")
        return RAYLET_DIED if ran else RAY_FAILED, f"ray start ended ({how}), see the lines above"


# -- the child


def ray_arguments(document: Document) -> list[str]:
    """Return the arguments of `ray start` for this worker."""
    resources: dict[str, float] = dict(document["resources"])
    custom = {name: amount for name, amount in resources.items() if name not in NOT_CUSTOM}
    labels = ",".join(f"{key}={value}" for key, value in sorted((document.get("labels") or {}).items()))
    low, high = document.get("worker_ports") or (0, 0)
    arguments = [
        "start",
        f"--address={document['gcs_address']}",
        "--block",
        f"--temp-dir={document['temp_dir']}",
    ]
    arguments += [f"--num-cpus={resources.get('CPU', 0):g}", f"--num-gpus={resources.get('GPU', 0):g}"]
    arguments += [f"--{name}-port={port}" for name, port in document["ports"].items()]
    arguments += [f"--min-worker-port={low}", f"--max-worker-port={high}"]
    optional = {
        "memory": int(resources.get("memory", 0)),
        "object-store-memory": int(resources.get("object_store_memory", 0)),
        "resources": json.dumps(custom, sort_keys=True) if custom else "",
        "labels": labels,
        "node-ip-address": document.get("node_ip"),
        "include-log-monitor": "" if document.get("log_monitor", True) else "false",
    }
    arguments += [f"--{name}={value}" for name, value in optional.items() if value]
    return arguments + [str(one) for one in document.get("ray_args") or []]


class Child:
    """Checks, claims, becomes `ray start`, and watches from its threads."""

    def __init__(self, news: int) -> None:
        self.news = news
        # What Ray starts must neither read the parent's line nor hold the news open.
        self.line = os.fdopen(os.dup(0), encoding="utf-8")
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.set_inheritable(news, False)
        self.document: Document = json.loads(self.line.readline())
        self.node_id: str | None = None
        self.warned = False
        self.asked = threading.Event()
        self.heartbeat: bytes | None = None
        self.heard_s = time.monotonic()
        self.next_look_s = 0.0
        self.said = self.complained = ""
        self.one_call = threading.Lock()

    def tell(self, **message: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.news, json.dumps(message).encode() + b"\n")

    def run(self) -> NoReturn:
        adopt_orphans()
        # A terminal's Ctrl-C is the parent's to act on. (Ignoring it would reach tasks, a handler does not.)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=self.watch_parent, daemon=True).start()
        try:
            check_token()
            reach(self.document["gcs_address"], float(self.document.get("reach_timeout_s", REACH_S)))
            check_versions(self.document)
            start = import_ray_start()
            self.gcs = connect(self.document["gcs_address"])
            self.check()
            self.claim()
            if self.document.get("setup"):
                self.set_up(self.document["setup"])
        except Failed as error:
            self.tell(exit_code=error.code, detail=str(error))
            os._exit(error.code)
        self.tell(state="starting", detail="this id is ours; Ray starts")
        threading.Thread(target=self.watch, daemon=True).start()
        if (self.document.get("setup") or {}).get("again_s"):
            threading.Thread(target=self.keep_synced, daemon=True).start()
        start(ray_arguments(self.document))
        os._exit(RAY_FAILED)

    def check(self) -> None:
        """Raise Failed unless the cluster that answers is the one that this worker was made for."""
        address = self.document["gcs_address"]
        uid = self.get(b"cluster_uid", NAMESPACE)
        if uid != self.document["cluster_uid"]:
            whose = "another cluster" if uid else "a Ray that Heliostat did not start"
            raise Failed(STRANGER, f"at {address} is now {whose}: this worker does not join it")
        session, wanted = self.get(b"session_name", b"session"), self.document.get("session_name")
        if wanted and session != wanted:
            raise Failed(STRANGER, f"the head at {address} was restarted: session {session}, not {wanted}")

    def claim(self) -> None:
        """Take the instance's id in the cluster, so that of two with one id only one joins."""
        mine = f"{socket.gethostname()}:{os.getppid()}:{secrets.token_hex(8)}"
        key = f"claim:{self.document['instance_id']}".encode()
        added = self.ask("internal_kv_put", key, mine.encode(), False, NAMESPACE)
        # A put that was repeated on the way finds itself.
        if not added and (holder := self.get(key, NAMESPACE)) != mine:
            who = holder.rpartition(":")[0]
            raise Failed(CLAIMED, f"instance {self.document['instance_id']} has joined already from {who}")

    def set_up(self, setup: Document) -> None:
        """Do the steps before Ray; raise Failed. Lease and controller count as for a node that runs.

        They may take long: that the cluster is still its own is checked again at their end.
        """
        limit_s = float(self.document.get("orphan_timeout_s", 300))

        def look() -> None:
            if self.asked.is_set():
                raise Failed(SETUP_FAILED, "the machine's lease ends, and its setup is not done yet")
            if self.hears_nobody():
                raise Failed(ENDED, f"no controller was heard for {limit_s:g} s; the setup is not done yet")

        def tell(text: str) -> None:
            self.tell(state="starting", detail=text)

        self.heard_s = time.monotonic()
        try:
            do_setup(setup, f"{self.document['temp_dir']}/setup", tell=tell, look=look)
        except OSError as error:
            raise Failed(SETUP_FAILED, f"the setup can't be done: {error}") from error
        # The head may just be coming back with its state.
        reach(self.document["gcs_address"], float(self.document.get("reach_timeout_s", REACH_S)))
        self.check()

    def keep_synced(self) -> None:
        """Copy again and again what has changed in `file_mounts`; what goes wrong is said when it changes."""
        said = ""
        while True:
            time.sleep(self.document["setup"]["again_s"])
            found = self.guarded(lambda: copy_again(self.document["setup"]))
            if found is not None and found != said:
                said = found
                say(found or "file_mounts are copied again")

    def get(self, key: bytes, namespace: bytes) -> str:
        return (self.ask("internal_kv_get", key, namespace) or b"").decode(errors="replace")

    def ask(self, method: str, *arguments: object) -> Any:
        """Call the head; raise Failed(UNREACHABLE) if it does not answer."""
        call = getattr(self.gcs, method)
        try:
            try:
                return call(*arguments, timeout=CALL_S)
            except TypeError:
                # Before 2.57 Ray's `drain_node` takes no timeout and waits as long as the head is silent.
                return self.within_deadline(lambda: call(*arguments))
        except errors() as error:
            raise Failed(UNREACHABLE, f"the head does not answer: {error}") from error

    def within_deadline(self, call: Callable[[], Any]) -> Any:
        """Return what `call` does; raise TimeoutError after CALL_S. At most one is left behind unanswered."""
        outcomes: list[Any] = []

        def work() -> None:
            try:
                outcomes.append(call())
            except errors() as error:
                outcomes.append(error)
            finally:
                self.one_call.release()

        if self.one_call.acquire(timeout=CALL_S):
            waiting = threading.Thread(target=work, daemon=True)
            waiting.start()
            waiting.join(CALL_S)
        found = outcomes[0] if outcomes else TimeoutError(f"no answer within {CALL_S:g} s")
        if isinstance(found, BaseException):
            raise found
        return found

    # The threads.

    def watch_parent(self) -> None:
        """Hear the parent; when it says so, or is dead and its line closes, everything ends."""
        for word in self.line:
            if word.strip() == STOP:
                break
            self.asked.set()
        if self.node_id is not None:
            self.guarded(self.leave)
        kill_all()
        # This process's main thread may still be making files there, so they go after it.
        remove_after(os.getpid(), self.document["temp_dir"])
        os._exit(RAY_FAILED)

    def leave(self) -> None:
        """Let tasks run on for up to `drain_grace_s`, then let the raylet take its leave of the head."""
        end_s = time.monotonic() + grace_s(self.document)
        # Ray refuses no preemption: without a yes no head is there to wait for.
        if self.drain(PREEMPTION, "the worker stops", time.time() + grace_s(self.document)):
            wait_for(lambda: raylet_of(os.getpid()) is None or time.monotonic() > end_s)
        with contextlib.suppress(ProcessLookupError):
            if raylet := raylet_of(os.getpid()):
                os.kill(raylet, signal.SIGTERM)
        end_s = time.monotonic() + FAREWELL_S
        wait_for(lambda: raylet_of(os.getpid()) is None or time.monotonic() > end_s)

    def watch(self) -> None:
        """Announce the node, then look after its lease and the controller until the raylet has gone."""
        raylet = wait_for(lambda: raylet_of(os.getpid()))
        node = wait_for(
            lambda: self.guarded(lambda: self.own_node(alive=True)) or (process(raylet) is None and "gone")
        )
        if node == "gone":
            self.tell(exit_code=RAYLET_DIED, detail="the raylet ended during its start, see the lines above")
            return
        node_id = self.node_id = node.node_id.hex()
        self.tell(state="running", detail=f"node {node_id} runs", ray_pid=raylet, node_id=node_id)
        while process(raylet) == (os.getpid(), "raylet"):
            time.sleep(LOOK_S)
            self.guarded(self.watch_lease)
            self.guarded(self.watch_controller)
        self.guarded(self.say_why_gone)

    def guarded(self, step: Callable[[], Any]) -> Any:
        """Return what `step` does; an error that nobody expects is printed, a repeated one once."""
        try:
            return step()
        except Exception:  # noqa: BLE001 -- the guard of the threads: nobody else looks after this worker
            found = traceback.format_exc()
            if found != self.complained:
                self.complained = found
                say(f"an error that was not expected; this goes on:\n{found}")
            return None

    def own_node(self, *, alive: bool) -> Any:
        nodes: dict[Any, Any] = {}
        with contextlib.suppress(*errors()):
            nodes = self.gcs.get_all_node_info(timeout=CALL_S, state_filter=0 if alive else None)
        wanted = self.document["instance_id"]
        return next((one for one in nodes.values() if one.instance_id == wanted), None)

    def watch_lease(self) -> None:
        """Announce the lease's end while there is time to checkpoint; USR1 asks for it, too."""
        end_s, ahead_s = self.document.get("lease_end_s"), float(self.document.get("lease_warning_s", 120))
        now_s = time.time()
        due = end_s is not None and now_s >= end_s - ahead_s
        if self.warned or not (due or self.asked.is_set()):
            return
        self.warned = True
        soon_s = now_s + ahead_s
        # Only a busy node is told of a preemption; an idle one leaves now: what it still took would be lost.
        if not self.drain(IDLE_TERMINATION, "the machine's lease ends", 0):
            self.drain(PREEMPTION, "the machine's lease ends", min(end_s or soon_s, soon_s))

    def watch_controller(self) -> None:
        """Let this node go when no controller has been heard for long and Ray has no work on it."""
        if self.hears_nobody():
            limit_s = float(self.document.get("orphan_timeout_s", 300))
            self.drain(IDLE_TERMINATION, f"no controller was heard for {limit_s:g} s", 0)
            self.next_look_s = time.monotonic() + DRAIN_AGAIN_S

    def hears_nobody(self) -> bool:
        """Say whether no controller has been heard for too long; False, too, when it is not time to look."""
        if time.monotonic() < self.next_look_s:
            return False
        self.next_look_s = time.monotonic() + HEARTBEAT_LOOK_S
        try:
            beat = self.get(b"heartbeat", NAMESPACE).encode()
        except Failed:
            # A head that stays away ends Ray here in the end. One that comes back gives its controller time
            # to be heard, so the silence counts from then on.
            self.heard_s = time.monotonic()
            return False
        if beat != self.heartbeat:
            self.heartbeat, self.heard_s = beat, time.monotonic()
        return time.monotonic() - self.heard_s > float(self.document.get("orphan_timeout_s", 300))

    def drain(self, reason: int, why: str, deadline_s: float) -> bool:
        """Ask the head to drain this node, and tell its answer, a repeated one once."""
        try:
            accepted, refusal = self.ask("drain_node", self.node_id, reason, why, int(deadline_s * 1000))
        except Failed as error:
            accepted, refusal = False, str(error)
        state, detail = ("draining", f"{why}; draining") if accepted else ("running", f"{why}; {refusal}")
        if detail != self.said:
            self.said = detail
            self.tell(state=state, detail=detail)
        return bool(accepted)

    def say_why_gone(self) -> None:
        """Tell a planned end (drain, shutdown) from the raylet's death; Ray keeps the reason."""
        until_s, reason = time.monotonic() + NEWS_S / 2, 0
        while not reason and time.monotonic() < until_s:
            found = self.own_node(alive=False)
            reason = found.death_info.reason if found is not None else 0
            time.sleep(0 if reason else 0.1)
        word = DEATHS.get(reason, "unknown why")
        self.tell(
            exit_code=ENDED if reason in PLANNED else RAYLET_DIED, detail=f"the raylet has gone: {word}"
        )


def check_token() -> None:
    """Raise Failed if a token is wanted and there is none: Ray's client would crash without a plain word."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    try:
        empty = os.path.getsize(path) == 0
    except OSError as error:
        raise Failed(UNREACHABLE, f"the cluster's token can't be read: {path}: {error.strerror}") from error
    if empty:
        raise Failed(UNREACHABLE, f"the cluster's token is empty: {path}")


def remove_after(pid: int, folder: str) -> None:
    """Remove `folder` as soon as the process `pid` has gone, by a process that outlives this one."""
    wait = 'n=0; while kill -0 "$1" 2>/dev/null && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done'
    script = f'{wait}; rm -rf -- "$2"'
    quiet = subprocess.DEVNULL
    subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", str(pid), folder], stdin=quiet, stdout=quiet, stderr=quiet
    )


def reach(address: str, limit_s: float) -> None:
    """Wait until something listens at `host:port`; raise Failed(UNREACHABLE) after `limit_s`."""
    host, _, port = address.rpartition(":")
    until_s = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CALL_S).close()
        except (OSError, ValueError) as error:
            if time.monotonic() > until_s or isinstance(error, ValueError):
                raise Failed(UNREACHABLE, f"no head answers at {address}: {error}") from error
            time.sleep(LOOK_S)
        else:
            return


def check_versions(document: Document) -> None:
    """Raise Failed(VERSIONS) unless Python and Ray here are the head's."""
    try:
        import ray
    except ImportError as error:
        raise Failed(VERSIONS, f"this worker's Python, {sys.executable}, has no Ray: {error}") from error
    here = {"ray_version": ray.__version__, "python_version": "{}.{}".format(*sys.version_info)}
    for key, found in here.items():
        head, name = document.get(key), key.partition("_")[0].title()
        if head and head != found:
            raise Failed(VERSIONS, f"this worker has {name} {found}, the head has {head}: they must be equal")


def installed_ray() -> str | None:
    """Return the version of Ray that a process started now would find."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("ray")
    return None


def import_ray_start() -> Callable[[list[str]], None]:
    """Import Ray and its command line once; return what runs `ray ARGUMENTS`."""
    sys.modules.update(dict.fromkeys(UNNEEDED))  # type: ignore[arg-type]
    from ray.scripts.scripts import cli

    for name in UNNEEDED:
        del sys.modules[name]
    return lambda arguments: cli.main(arguments, standalone_mode=True)


def connect(address: str) -> Any:
    """Return a GCS client; raise Failed(UNREACHABLE) if the head does not let us in."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        client = GcsClient(address=address)
        client.internal_kv_get(b"session_name", namespace=b"session", timeout=CALL_S)
    except errors() as error:
        text = next(iter(str(error).strip().splitlines()), repr(error))
        refused = "auth" in type(error).__name__.lower()
        what = "the head refuses our token" if refused else "no head of ours answers"
        raise Failed(UNREACHABLE, f"{what} at {address}: {text}") from error
    return client


def errors() -> tuple[type[BaseException], ...]:
    """Return what Ray's GCS client raises when the world is to blame."""
    import ray.exceptions

    return (RuntimeError, OSError, ray.exceptions.RayError)


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what `look` finds; the parent has the deadline (Ray's own, and start_timeout_s)."""
    while not (found := look()):
        time.sleep(LOOK_S / 2)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        Child(int(sys.argv[2])).run()
    if sys.argv[1:2] == ["--setup"]:
        sys.exit(set_up_head(sys.argv[2]))
    try:
        document = read_document(sys.argv[1:])
    except Failed as error:
        say(str(error))
        sys.exit(error.code)
    sys.exit(Parent(document).run())


if __name__ == "__main__":
    main()
