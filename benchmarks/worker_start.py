"""What each part of a worker's start costs: from the process's start to RUNNING in the GCS.

    python benchmarks/worker_start.py [--runs 5] [--only NAME ...] [--json]

A head of its own is started and ended. Every recipe starts the same worker (1 CPU, a temp dir of
its own, log monitor on unless it says otherwise); the recipes take turns, so that a noisy machine
hits them all. Prints the median, the least and the most of each, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heliostat.model.instance import NodeStatus
from heliostat.raylink.head import HeadOptions, choose_ports, driver_environment, head_command
from heliostat.raylink.reader import GcsReader
from heliostat.raylink.ready import wait_until_ready
from heliostat.raylink.token import ensure_token, read_token

WAIT_S = 60.0
POLL_S = 0.01
UID = "uid-of-the-benchmark"
BOOTSTRAP = Path(__file__).parents[1] / "src" / "heliostat" / "node" / "bootstrap.py"
PORTS = (
    *("node-manager", "object-manager", "runtime-env-agent"),
    *("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"),
)

RAY = (sys.executable, "-m", "ray.scripts.scripts")
CHECK = "from ray._raylet import GcsClient; GcsClient(address={!r}).internal_kv_get(b'x', namespace=b'y')"
TWICE = (
    "import os, sys; {}; python = sys.executable; "
    "os.execv(python, [python, '-m', 'ray.scripts.scripts', *sys.argv[1:]])"
)
ONCE = "import sys; {}; from ray.scripts.scripts import cli; cli.main(sys.argv[1:])"
LEAN = """
import sys
absent = ("ray.serve.scripts", "ray.dashboard.modules.job.cli", "ray.util.state.state_cli")
sys.modules.update(dict.fromkeys(absent))
{}
from ray.scripts.scripts import cli
for name in absent: del sys.modules[name]
cli.main(sys.argv[1:])
"""
QUIET = ("--include-log-monitor=false",)
QUICK_CONNECT = {
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
}


@dataclass(frozen=True)
class Worker:
    """What one run starts: its id, its folder, and the head it goes to."""

    instance_id: str
    folder: Path
    address: str
    bytecode: Path


Environment = dict[str, str]
Recipe = Callable[[Worker], tuple[list[str], Environment]]


def by_hand(
    *flags: str, ports: str = "default", code: str = "", environment: Environment | None = None
) -> Recipe:
    """Return `ray start`, plain or in `code`, with ports by Ray (default), by the kernel (0) or chosen."""

    def recipe(worker: Worker) -> tuple[list[str], Environment]:
        start = [sys.executable, "-c", code.format(CHECK.format(worker.address))] if code else [*RAY]
        arguments = ["start", f"--address={worker.address}", "--block", "--num-cpus=1"]
        arguments += [f"--temp-dir={worker.folder}", "--object-store-memory=100000000", *flags]
        arguments += port_flags(ports)
        return [*start, *arguments], environment or {}

    return recipe


def with_bytecode(recipe: Recipe) -> Recipe:
    """Return the recipe with Python's bytecode kept, as where Ray's own is compiled."""

    def changed(worker: Worker) -> tuple[list[str], Environment]:
        argv, environment = recipe(worker)
        return argv, {
            **environment,
            "PYTHONPYCACHEPREFIX": str(worker.bytecode),
            "PYTHONDONTWRITEBYTECODE": "",
        }

    return changed


def ours(**more: object) -> Recipe:
    """Return the bootstrap as it is."""

    def recipe(worker: Worker) -> tuple[list[str], Environment]:
        resources = {"CPU": 1, "object_store_memory": 100_000_000}
        document = {
            "cluster_uid": UID,
            "gcs_address": worker.address,
            "instance_id": worker.instance_id,
            "node_type": "bench",
            "resources": resources,
            "drain_grace_s": 1,
            "temp_root": str(worker.folder.parent),
            **more,
        }
        (worker.folder / "start.json").write_text(json.dumps(document))
        return [sys.executable, str(BOOTSTRAP), str(worker.folder / "start.json")], {}

    return recipe


def port_flags(ports: str) -> list[str]:
    if ports == "default":
        return []
    if ports == "0":
        return ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
    chosen = [f"--{name}-port={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
    return [*chosen, "--min-worker-port=0", "--max-worker-port=0"]


def free_ports(count: int) -> list[int]:
    while True:
        base = 20000 + secrets.randbelow(12000)
        with suppress(OSError):
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind(("", port))
            return list(range(base, base + count))


RECIPES: dict[str, Recipe] = {
    "ray start, as it is": by_hand(),
    "+ agent and worker ports 0": by_hand(ports="0"),
    "+ a block of ports instead": by_hand(ports="chosen"),
    "+ no log monitor": by_hand(*QUIET, ports="chosen"),
    "checks, then ray start (imports twice)": by_hand(ports="chosen", code=TWICE),
    "checks and ray start in one process": by_hand(ports="chosen", code=ONCE),
    "+ without unneeded imports": by_hand(ports="chosen", code=LEAN),
    "+ quick connects": by_hand(ports="chosen", code=LEAN, environment=QUICK_CONNECT),
    "+ bytecode kept, not quick connects": with_bytecode(by_hand(ports="chosen", code=LEAN)),
    "the bootstrap": ours(),
    "the bootstrap, no log monitor": ours(log_monitor=False),
}


class Head:
    """A running head and how to look at it."""

    def __init__(self, address: str, token: str, environment: Environment) -> None:
        self.address, self.environment = address, environment
        self.reader = GcsReader(address, token)

    def status(self, instance_id: str) -> NodeStatus | None:
        nodes = self.reader.state().nodes
        return next((one.status for one in nodes if one.instance_id == instance_id), None)

    def until(self, worker: Worker, wanted: Callable[[NodeStatus | None], bool]) -> None:
        until_s = time.monotonic() + WAIT_S
        while not wanted(self.status(worker.instance_id)):
            if time.monotonic() > until_s:
                raise SystemExit(f"{worker.instance_id} did not come or go within {WAIT_S:.0f} s")
            time.sleep(POLL_S)


@contextmanager
def running_head(folder: Path) -> Iterator[Head]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token_path = ensure_token({**environ, "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")})
    gcs, dashboard, client = free_ports(3)
    options = HeadOptions(
        temp_dir=str(folder / "h"),
        token_path=token_path,
        node_type="head",
        resources={"object_store_memory": 100 * 2**20},
        port=gcs,
        dashboard_port=dashboard,
        client_port=client,
    )
    ports = choose_ports(options)
    command = head_command(options, ports, environment=environ)
    process = started(list(command.argv), dict(command.environment), folder / "head.log")
    try:
        address, token = f"127.0.0.1:{ports.gcs}", read_token(token_path)
        wait_until_ready(
            address,
            token=token,
            temp_dir=options.temp_dir,
            deadline_s=WAIT_S,
            alive=lambda: process.poll() is None,
        )
        driver = driver_environment(address=address, dashboard_url="", token_path=token_path)
        environment = {**environ, **driver}
        put_uid(address, environment)
        yield Head(address, token, environment)
    finally:
        end(process)


def put_uid(address: str, environment: Environment) -> None:
    """Write what the bootstrap looks for; in a process of its own, since Ray reads the token once."""
    code = (
        f"from ray._raylet import GcsClient; GcsClient(address={address!r})"
        f".internal_kv_put(b'cluster_uid', {UID.encode()!r}, True, b'heliostat')"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=WAIT_S)


def started(argv: list[str], environment: Environment, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(argv, env=environment, stdout=file, stderr=file, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM; after five seconds KILL what is left of the process's own group."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def start_once(head: Head, recipe: Recipe, root: Path) -> float:
    """Return the seconds from the process's start until the GCS calls its node RUNNING or IDLE."""
    folder = Path(tempfile.mkdtemp(prefix="w-", dir=root))
    worker = Worker(f"bench-{secrets.token_hex(4)}", folder, head.address, root / "bytecode")
    argv, more = recipe(worker)
    identity = {"RAY_CLOUD_INSTANCE_ID": worker.instance_id, "RAY_NODE_TYPE_NAME": "bench"}
    environment = {**head.environment, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1", **identity, **more}
    began_s = time.monotonic()
    process = started(argv, environment, folder / "log")
    try:
        head.until(worker, lambda status: status not in (None, NodeStatus.DEAD))
        took_s = time.monotonic() - began_s
    finally:
        end(process)
    head.until(worker, lambda status: status is NodeStatus.DEAD)
    shutil.rmtree(folder, ignore_errors=True)
    return took_s


def measure(runs: int, names: list[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    root = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))
    try:
        with running_head(root) as head:
            # The first run of each warms the file cache and is not counted.
            for turn in range(runs + 1):
                for name in names:
                    took_s = start_once(head, RECIPES[name], root)
                    print(f"{turn} {name}: {took_s:.2f} s", file=sys.stderr)
                    found[name] += [took_s] if turn else []
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # Ended from outside, it ends its head too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found = measure(options.runs, options.only)
    rows = {
        name: {
            "median_s": round(statistics.median(took), 2),
            "min_s": round(min(took), 2),
            "max_s": round(max(took), 2),
        }
        for name, took in found.items()
    }
    if options.json:
        print(json.dumps({"cores": os.cpu_count(), "runs": options.runs, "recipes": rows}, indent=1))
        return
    for name, row in rows.items():
        print(f"{row['median_s']:6.2f} s  ({row['min_s']:.2f} to {row['max_s']:.2f})  {name}")


if __name__ == "__main__":
    main()
