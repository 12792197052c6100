"""What runs on every worker, in any image: one file, standard library only, and the Ray that is there.

    python bootstrap.py START.json        (`-`: the document comes on standard input)
    HELIOSTAT_START=<base64> python bootstrap.py

Two processes. The parent is small and imports no Ray: it takes a temp dir and a port block,
starts the child, forwards signals, and leaves no process behind however things end. The
child imports Ray once: it checks that the cluster is still ours, claims the instance's id, and
then runs Ray's own `ray start --block` in the same process, so that seconds of imports are
paid for once. A thread of it watches the raylet, the lease and the controller's heartbeat.

The document's keys, the exit codes and the log lines are described in docs/bootstrap.md.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

ENDED = 0
STRANGER = 10
CLAIMED = 11
VERSIONS = 12
NO_PORTS = 13
RAY_FAILED = 14
UNREACHABLE = 15
BAD_DOCUMENT = 16
NO_TEMP_DIR = 17
RAYLET_DIED = 18

NAMESPACE = b"heliostat"
REACH_S = 60.0
CALL_S = 5.0
LOOK_S = 0.25
HEARTBEAT_LOOK_S = 2.0
DRAIN_AGAIN_S = 5.0
KILL_S = 5.0
NEWS_S = 3.0
SOCKET_BYTES_MAX = 107
RAY_SOCKET_CHARS = 69
"""Ray's longest socket path below its temp dir."""

PORTS = (
    *("node-manager", "object-manager", "runtime-env-agent"),
    *("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"),
)
BLOCK = 8

DEATHS = {
    1: "terminated as expected",
    2: "terminated unexpectedly",
    3: "drained ahead of its end",
    4: "drained because it was idle",
}
"""Ray's `NodeDeathInfo.Reason`, in words."""

IDLE_TERMINATION = 1
PREEMPTION = 2

NOT_CUSTOM = {"CPU", "GPU", "memory", "object_store_memory"}
REQUIRED = ("cluster_uid", "gcs_address", "instance_id", "node_type", "resources")

# Parts of Ray's command line that `ray start` does not need; without them its import is shorter.
# Ray takes their absence as «not installed», which it allows for.
UNNEEDED = ("ray.serve.scripts", "ray.dashboard.modules.job.cli", "ray.util.state.state_cli")

Document = dict[str, Any]


class Failed(Exception):
    """Why this worker can't come up: an exit code and one plain line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def say(text: str) -> None:
    print(f"bootstrap: {text}", flush=True)


# -- the start document -------------------------------------------------------------------


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


# -- temp dir and ports -------------------------------------------------------------------


def make_temp_dir(root: str) -> str:
    """Make a short private folder, since workers that share one race for socket names."""
    path = os.path.join(root, f"hel-{secrets.token_hex(3)}")
    if len(os.fsencode(path)) + RAY_SOCKET_CHARS > SOCKET_BYTES_MAX:
        limit = SOCKET_BYTES_MAX - RAY_SOCKET_CHARS
        raise Failed(NO_TEMP_DIR, f"the temp dir {path} is too long for Ray's sockets: at most {limit} bytes")
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise Failed(NO_TEMP_DIR, f"the temp dir {path} can't be made: {error.strerror}") from error
    return path


def take_ports(low: int, high: int) -> tuple[socket.socket, dict[str, int]]:
    """Return a bound sentinel, which is the lock on the block, and the block's ports.

    The kernel drops the sentinel with this process, and every user of the host sees it.
    Worker processes take ports of the kernel's choice: their number has no limit, and the
    kernel gives no port twice.
    """
    bases = list(range(low, high - BLOCK, BLOCK))
    start = secrets.randbelow(len(bases)) if bases else 0
    for base in bases[start:] + bases[:start]:
        sentinel = _bound(base)
        if sentinel is None:
            continue
        ports = {name: base + 1 + index for index, name in enumerate(PORTS)}
        if all(_is_free(port) for port in ports.values()):
            return sentinel, ports
        sentinel.close()
    raise Failed(NO_PORTS, f"no block of {BLOCK} free ports between {low} and {high}")


def _bound(port: int, host: str = "127.0.0.1") -> socket.socket | None:
    bound = socket.socket()
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        return None
    return bound


def _is_free(port: int) -> bool:
    bound = _bound(port, "")
    if bound is not None:
        bound.close()
    return bound is not None


# -- processes ------------------------------------------------------------------------------


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def parents() -> dict[int, tuple[int, str, str]]:
    """Return pid → (parent, name, state) of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        found[int(entry)] = (int(fields[1]), head.partition("(")[2], fields[0])
    return found


def descendants(pid: int) -> list[int]:
    """Return the living descendants of `pid`, children before grandchildren."""
    table = parents()
    found, frontier = [], {pid}
    while frontier:
        frontier = {one for one, (parent, _, _) in table.items() if parent in frontier}
        found += sorted(frontier)
    return [one for one in found if table[one][2] not in "ZX"]


def raylet_of(pid: int) -> int | None:
    """Return the raylet that the process `pid` has started."""
    for one, (parent, name, state) in parents().items():
        if parent == pid and name == "raylet" and state not in "ZX":
            return one
    return None


def end_all(grace_s: float) -> None:
    """End every descendant: TERM, KILL after `grace_s`; orphans are ours, too (subreaper)."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_S)):
        until_s = time.monotonic() + wait_s
        for pid in descendants(os.getpid()) if wait_s > 0 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while descendants(os.getpid()) and time.monotonic() < until_s:
            reap()
            time.sleep(0.05)
    reap()


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# -- the parent -------------------------------------------------------------------------------


class Parent:
    """Starts the child, listens to it and to signals, and cleans up."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.status: Document = {"state": "checking", "detail": "", "pid": os.getpid(), "exit_code": None}
        self.grace_s = float(document.get("drain_grace_s", 30))
        self.code: int | None = None
        self.detail = ""
        self.stopping_since_s: float | None = None
        self.gone_since_s: float | None = None
        self.raylet: int | None = None
        self.buffer = b""

    def run(self) -> int:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        low, high = self.document.get("port_range") or (20000, 32000)
        sentinel, ports = take_ports(int(low), int(high))
        temp_dir = make_temp_dir(str(self.document.get("temp_root") or "/tmp"))
        self.document |= {"ports": ports, "temp_dir": temp_dir}
        self.tell(ports=ports, temp_dir=temp_dir)
        try:
            self.supervise()
        finally:
            end_all(0)
            shutil.rmtree(temp_dir, ignore_errors=True)
            sentinel.close()
        code = RAY_FAILED if self.code is None else self.code
        self.finish(code, self.detail)
        return code

    def finish(self, code: int, detail: str) -> None:
        self.tell(state="ended", detail=detail, exit_code=code)
        say(f"ended with {code}" + (f": {detail}" if detail else ""))

    def tell(self, **changes: object) -> None:
        """Write what is new to the status file, whole or not at all."""
        self.status |= changes
        path = self.document.get("status_file")
        if not path:
            return
        # A status that can't be written must not end a worker that works.
        with contextlib.suppress(OSError):
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(self.status | {"at_s": time.time()}, file)
            os.replace(f"{path}.new", path)

    def supervise(self) -> None:
        """Run the child until it has ended or must be ended."""
        signals, news = self.listen(), os.pipe()
        child = self.start_child(news[1])
        os.close(news[1])
        os.set_blocking(news[0], False)
        with selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            selector.register(news[0], selectors.EVENT_READ)
            while child.poll() is None and not self.is_over(child):
                for key, _ in selector.select(LOOK_S):
                    if key.fd == news[0] and not self.hear(news[0]):
                        selector.unregister(news[0])
                    elif key.fd != news[0]:
                        self.forward(signals, child)
        self.hear(news[0])
        os.close(news[0])
        self.conclude(child)

    def listen(self) -> socket.socket:
        """Return a socket that gets a byte, the number, for each signal."""
        inside, outside = socket.socketpair()
        inside.setblocking(False)
        outside.setblocking(False)
        signal.set_wakeup_fd(outside.fileno())
        self.outside = outside
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        return inside

    def start_child(self, news: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-u", os.path.abspath(__file__), "--child", str(news)],
            stdin=subprocess.PIPE,
            pass_fds=[news],
            env=ray_environment(self.document),
        )
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(json.dumps(self.document).encode())
        return child

    def hear(self, news: int) -> bool:
        """Read the child's news; False at their end."""
        while True:
            try:
                chunk = os.read(news, 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            *lines, self.buffer = (self.buffer + chunk).split(b"\n")
            for line in lines:
                self.heard(json.loads(line))

    def heard(self, message: Document) -> None:
        if "exit_code" in message:
            self.code, self.detail = int(message["exit_code"]), str(message["detail"])
        else:
            self.raylet = message.get("ray_pid", self.raylet)
            if self.stopping_since_s is None:
                self.tell(**message)
            say(str(message.get("detail") or message["state"]))

    def forward(self, signals: socket.socket, child: subprocess.Popen[bytes]) -> None:
        for number in signals.recv(64):
            if number == signal.SIGUSR1:
                child.send_signal(signal.SIGUSR1)
            elif number != signal.SIGCHLD and self.stopping_since_s is None:
                self.stop(child, signal.Signals(number).name)

    def stop(self, child: subprocess.Popen[bytes], why: str) -> None:
        """Let Ray drain and end; before it runs there is nothing to drain, and Ray would not hear."""
        self.stopping_since_s = time.monotonic()
        running = self.status["state"] == "running"
        say(f"{why}: stopping" + ("" if running else ", nothing runs here yet"))
        self.tell(state="stopping", detail=why)
        self.code, self.detail = ENDED, f"asked to stop ({why})"
        child.send_signal(signal.SIGTERM if running else signal.SIGKILL)

    def is_over(self, child: subprocess.Popen[bytes]) -> bool:
        """Say whether the child has to be ended: it overstays, or its raylet is gone.

        `ray start --block` does not return when the raylet leaves by itself after a drain.
        """
        now_s = time.monotonic()
        if self.stopping_since_s is not None and now_s - self.stopping_since_s > self.grace_s + KILL_S:
            say(f"Ray did not stop within {self.grace_s:g} s")
            return True
        if self.code is not None and self.stopping_since_s is None:
            return True
        if self.raylet is not None and raylet_of(child.pid) != self.raylet:
            self.gone_since_s = self.gone_since_s or now_s
            # The child knows better why; it is given a moment to say so.
            if self.stopping_since_s is not None or now_s - self.gone_since_s > NEWS_S:
                return True
        return False

    def conclude(self, child: subprocess.Popen[bytes]) -> None:
        code = child.poll()
        if self.code is None and self.gone_since_s is not None:
            self.code, self.detail = RAYLET_DIED, "the raylet is gone"
        elif self.code is None:
            self.code = RAY_FAILED
            ended = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            self.detail = f"ray start ended ({ended}), see the lines above"


def ray_environment(document: Document) -> dict[str, str]:
    """Return the child's environment: this one's, with what ties the node to its instance."""
    grace_s = int(float(document.get("drain_grace_s", 30)))
    return {
        **{k: v for k, v in os.environ.items() if k not in ("HELIOSTAT_START", "RAY_ADDRESS")},
        "RAY_CLOUD_INSTANCE_ID": str(document["instance_id"]),
        "RAY_NODE_TYPE_NAME": str(document["node_type"]),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(grace_s),
        "PYTHONUNBUFFERED": "1",
    }


# -- the child ----------------------------------------------------------------------------------


def ray_arguments(document: Document) -> list[str]:
    """Return the arguments of `ray start` for this worker."""
    resources: dict[str, float] = dict(document["resources"])
    custom = {name: amount for name, amount in resources.items() if name not in NOT_CUSTOM}
    low, high = document.get("worker_ports") or (0, 0)
    arguments = ["start", f"--address={document['gcs_address']}", "--block"]
    arguments += [f"--num-cpus={resources.get('CPU', 0):g}", f"--num-gpus={resources.get('GPU', 0):g}"]
    arguments += [f"--temp-dir={document['temp_dir']}"]
    arguments += [f"--{name}-port={port}" for name, port in document["ports"].items()]
    arguments += [f"--min-worker-port={low}", f"--max-worker-port={high}"]
    if resources.get("memory"):
        arguments.append(f"--memory={int(resources['memory'])}")
    if resources.get("object_store_memory"):
        arguments.append(f"--object-store-memory={int(resources['object_store_memory'])}")
    if custom:
        arguments.append(f"--resources={json.dumps(custom, sort_keys=True)}")
    if document.get("labels"):
        arguments.append("--labels=" + ",".join(f"{k}={v}" for k, v in sorted(document["labels"].items())))
    if document.get("node_ip"):
        arguments.append(f"--node-ip-address={document['node_ip']}")
    if document.get("log_monitor", True) is False:
        arguments.append("--include-log-monitor=false")
    return arguments + [str(one) for one in document.get("ray_args") or []]


class Child:
    """Checks, claims, becomes `ray start`, and watches from a thread."""

    def __init__(self, document: Document, news: int) -> None:
        self.document = document
        self.news = news
        self.warned = False
        self.asked = threading.Event()
        self.heartbeat: bytes | None = None
        self.heard_s = time.monotonic()

    def tell(self, **message: object) -> None:
        os.write(self.news, json.dumps(message).encode() + b"\n")

    def run(self) -> NoReturn:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.signal(signal.SIGUSR1, lambda *_: self.asked.set())
        start = import_ray_start()
        try:
            self.gcs = connect(self.document["gcs_address"])
            self.check()
            self.claim()
        except Failed as error:
            self.tell(exit_code=error.code, detail=str(error))
            os._exit(error.code)
        self.tell(state="starting", detail="this id is ours; Ray starts")
        threading.Thread(target=self.watch, daemon=True).start()
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
        import ray

        here = (ray.__version__, "{}.{}".format(*sys.version_info))
        for name, found, key in zip(("Ray", "Python"), here, ("ray_version", "python_version"), strict=True):
            head = self.document.get(key)
            if head and head != found:
                raise Failed(
                    VERSIONS, f"this worker has {name} {found}, the head has {head}: they must be equal"
                )

    def claim(self) -> None:
        """Take the instance's id in the cluster, so that of two with one id only one joins."""
        mine = f"{socket.gethostname()}:{os.getppid()}:{secrets.token_hex(8)}".encode()
        key = f"claim:{self.document['instance_id']}".encode()
        try:
            added = self.gcs.internal_kv_put(key, mine, False, NAMESPACE, timeout=CALL_S)
        except errors() as error:
            raise Failed(UNREACHABLE, f"the head stopped answering: {error}") from error
        if not added:
            holder = self.get(key, NAMESPACE).rpartition(":")[0]
            raise Failed(CLAIMED, f"instance {self.document['instance_id']} has joined already from {holder}")

    def get(self, key: bytes, namespace: bytes) -> str:
        try:
            found = self.gcs.internal_kv_get(key, namespace=namespace, timeout=CALL_S)
        except errors() as error:
            raise Failed(UNREACHABLE, f"the head stopped answering: {error}") from error
        return (found or b"").decode(errors="replace")

    # The watching thread.

    def watch(self) -> None:
        raylet = wait_for(lambda: raylet_of(os.getpid()))
        self.node_id = wait_for(self.own_node_id)
        self.tell(state="running", detail=f"node {self.node_id} runs", ray_pid=raylet, node_id=self.node_id)
        looked_s = 0.0
        while os.path.exists(f"/proc/{raylet}") and raylet_of(os.getpid()) == raylet:
            time.sleep(LOOK_S)
            self.watch_lease()
            if time.monotonic() - looked_s > HEARTBEAT_LOOK_S:
                looked_s = time.monotonic()
                self.watch_controller()
        self.say_why_gone()

    def own_node(self, *, alive: bool) -> Any:
        try:
            nodes = self.gcs.get_all_node_info(timeout=CALL_S, state_filter=0 if alive else None)
        except errors():
            return None
        wanted = self.document["instance_id"]
        return next((one for one in nodes.values() if one.instance_id == wanted), None)

    def own_node_id(self) -> str | None:
        found = self.own_node(alive=True)
        return found.node_id.hex() if found is not None else None

    def watch_lease(self) -> None:
        """Announce the lease's end while there is time to checkpoint; a signal asks for it, too."""
        end_s = self.document.get("lease_end_s")
        due = end_s is not None and time.time() >= end_s - self.document.get("lease_warning_s", 120)
        if self.warned or not (due or self.asked.is_set()):
            return
        self.warned = True
        deadline_s = end_s or time.time() + float(self.document.get("drain_grace_s", 30))
        self.drain(PREEMPTION, "the machine's lease ends", deadline_s)

    def watch_controller(self) -> None:
        """Let this node go when no controller has been heard for long and Ray has no work on it."""
        with contextlib.suppress(Failed):
            beat = self.get(b"heartbeat", NAMESPACE).encode()
            if beat != self.heartbeat:
                self.heartbeat, self.heard_s = beat, time.monotonic()
        limit_s = float(self.document.get("orphan_timeout_s", 300))
        if time.monotonic() - self.heard_s > limit_s:
            self.drain(IDLE_TERMINATION, f"no controller was heard for {limit_s:g} s", 0)
            time.sleep(DRAIN_AGAIN_S)

    def drain(self, reason: int, why: str, deadline_s: float) -> None:
        try:
            reply = self.gcs.drain_node(self.node_id, reason, why, int(deadline_s * 1000), timeout=CALL_S)
        except errors() as error:
            self.tell(state="running", detail=f"{why}; drain not heard: {error}")
            return
        accepted = reply[0] if isinstance(reply, tuple) else reply
        self.tell(
            state="draining" if accepted else "running",
            detail=f"{why}; {'draining' if accepted else reply[1]}",
        )

    def say_why_gone(self) -> None:
        """Tell a planned end (drain, shutdown) from the raylet's death; Ray keeps the reason."""
        found = self.own_node(alive=False)
        reason = found.death_info.reason if found is not None else None
        word = DEATHS.get(reason or 0, "unknown")
        expected = reason in (1, 3, 4)  # Every planned end.
        self.tell(exit_code=ENDED if expected else RAYLET_DIED, detail=f"the raylet has gone: {word}")


def import_ray_start() -> Callable[[list[str]], None]:
    """Import Ray and its command line once; return what runs `ray ARGUMENTS`."""
    for name in UNNEEDED:
        sys.modules[name] = None  # type: ignore[assignment]
    from ray.scripts.scripts import cli

    for name in UNNEEDED:
        del sys.modules[name]
    return lambda arguments: cli.main(arguments, standalone_mode=True)


def connect(address: str) -> Any:
    """Return a GCS client; raise Failed(UNREACHABLE) if nothing answers within `REACH_S`."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    until_s = time.monotonic() + REACH_S
    while True:
        try:
            client = GcsClient(address=address)
            client.internal_kv_get(b"session_name", namespace=b"session", timeout=CALL_S)
        except errors() as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if time.monotonic() > until_s or "auth" in type(error).__name__.lower():
                raise Failed(UNREACHABLE, f"no head of ours answers at {address}: {text}") from error
            time.sleep(1.0)
        else:
            return client


def errors() -> tuple[type[BaseException], ...]:
    """Return what Ray's GCS client raises when the world is to blame."""
    import ray.exceptions

    found: list[type[BaseException]] = [RuntimeError, OSError, TimeoutError]
    names = ("RpcError", "AuthenticationError")
    return (*found, *(getattr(ray.exceptions, name) for name in names if hasattr(ray.exceptions, name)))


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what `look` finds; the parent has the deadline (Ray's own, and start_timeout_s)."""
    while True:
        found = look()
        if found is not None:
            return found
        time.sleep(LOOK_S)


@contextlib.contextmanager
def exiting() -> Iterator[None]:
    try:
        yield
    except Failed as error:
        say(str(error))
        sys.exit(error.code)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        Child(json.load(sys.stdin), int(sys.argv[2])).run()
    with exiting():
        document = read_document(sys.argv[1:])
    parent = Parent(document)
    try:
        code = parent.run()
    except Failed as error:
        code = error.code
        parent.finish(code, str(error))
    sys.exit(code)


if __name__ == "__main__":
    main()
