"""What a Slurm job runs on its compute node, ahead of the bootstrap: standard library only, nothing of ours.

    python -I -c "$(this file)" [LINE] < PAYLOAD     the last line of a job script (script.py)

PAYLOAD is a line of JSON (`read_payload`), then the bootstrap's text. The start document in it is
completed with what only the node knows: which instance this is, what Slurm really gave, the node's
address, a place for temporary files. Then this process becomes the bootstrap, which runs from a
file without a name: nothing is left behind however the job ends. When its time ends is not told:
that may change, and USR1 comes ahead of it. Signals that come before the bootstrap listens stay
pending, and one that the job script has noted is raised again. LINE is a descriptor that brings
signals' names.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import ipaddress
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, NoReturn

BAD_PAYLOAD, NO_INSTANCE, NO_ADDRESS = 23, 24, 25
"""Exit codes; those below 20 are the bootstrap's, those between the job script's."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
TEMP_ROOT_BYTES = 25  # The bootstrap's own limit: Ray's sockets are below it.
MIB = 2**20
OBJECT_STORE_LEAST_BYTES = 75 * MIB  # Ray refuses to start with less.
MEMORY_PART, OBJECT_STORE_PART, OBJECT_STORE_LEAST_PART, SHM_PART = 0.6, 0.3, 0.1, 0.95
LABEL_CHARS = 63
IP_TOOL_S = 5.0
SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B
LEAVE_SOON = "HELIOSTAT_LEAVE_SOON"
"""The job script sets it when it has heard USR1."""
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")

Document = dict[str, Any]
Environment = Mapping[str, str]


class Failed(Exception):
    """Why no worker can be started here: an exit code and one plain line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Address(NamedTuple):
    interface: str
    ip: str


class Machine(NamedTuple):
    """The node itself, of which Slurm may have given a part."""

    cpus: int
    memory_bytes: int
    shm_bytes: int


def say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(f"bootstrap: {text}\n")
        sys.stdout.flush()


def read_payload(source: BinaryIO) -> tuple[Document, bytes]:
    """Return the payload's values and the bootstrap's text; raise Failed(BAD_PAYLOAD).

    `start` is the start document without what is found here; `launch_id`, `first`, `count` and
    `together` say whose job this is; `network`, `temp_root` and `gpus_asked` are the node type's
    options.
    """
    try:
        payload = json.loads(source.readline())
        return {**payload, "start": dict(payload["start"])}, source.read()
    except (KeyError, TypeError, ValueError) as error:
        raise Failed(BAD_PAYLOAD, f"the job script's payload can't be read: {error!r}") from error


# -- which instance


def member_of(payload: Document, environ: Environment) -> tuple[int, str]:
    """Return the index in the launch and the job's id: of an array's task, or of a gang's step."""
    together = bool(payload["together"])
    name = "SLURM_STEP_ID" if together else "SLURM_ARRAY_TASK_ID"
    written, count = environ.get(name, ""), int(payload["count"])
    if not written.isdecimal():
        text = f"{name} is {written!r}, so which instance this is is not known"
        raise Failed(NO_INSTANCE, f"{text}; a container's args must not clean the environment")
    member = int(written)
    if member >= count:
        raise Failed(NO_INSTANCE, f"{name} is {member}, the launch has {count} here: srun in a setup line?")
    job_id = environ.get("SLURM_JOB_ID", "")
    if not together:
        job_id = f"{environ.get('SLURM_ARRAY_JOB_ID', job_id)}_{member}"
    return int(payload["first"]) + member, job_id


def label_value(text: str) -> str:
    """Return what of a text a label's value may hold: letters, digits, - _ and . within."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:LABEL_CHARS].strip("-_.")


def labels_of(job_id: str, environ: Environment) -> dict[str, str]:
    node = environ.get("SLURMD_NODENAME") or socket.gethostname()
    found = {"job-id": job_id, "partition": environ.get("SLURM_JOB_PARTITION", ""), "node": node}
    return {f"heliostat.io/{key}": label_value(value) for key, value in found.items() if label_value(value)}


# -- what Slurm gave


def number(environ: Environment, *names: str) -> int | None:
    """Return the first of these variables that is a whole number."""
    return next((int(environ[name]) for name in names if environ.get(name, "").isdecimal()), None)


def given_gpus(environ: Environment) -> int | None:
    """Return how many GPUs are shown to this job; None where nothing tells."""
    for name in DEVICES:
        if name in environ:
            shown = [one for one in environ[name].split(",") if one and one != "NoDevFiles"]
            return 0 if shown == ["-1"] else len(shown)
    return number(environ, "SLURM_GPUS_ON_NODE")


def given_memory(environ: Environment, cpus: int, machine: Machine) -> int | None:
    """Return the bytes that the job may use on this node; None where Slurm sets no limit."""
    per_node = number(environ, "SLURM_MEM_PER_NODE")
    per_cpu = number(environ, "SLURM_MEM_PER_CPU")
    per_gpu = number(environ, "SLURM_MEM_PER_GPU")
    if per_node == 0:  # `--mem=0` asks for all of the node's.
        return machine.memory_bytes
    if per_node is not None:
        return per_node * MIB
    if per_cpu:
        return per_cpu * MIB * cpus
    return per_gpu * MIB * (given_gpus(environ) or 0) or None if per_gpu else None


def resources_of(
    promise: Mapping[str, float], environ: Environment, machine: Machine, *, gpus_asked: bool
) -> tuple[dict[str, float], list[str]]:
    """Return what Ray starts with, never more than was given, and a line for each difference."""
    found, lines = dict(promise), []
    cpus = number(environ, "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK") or machine.cpus
    gpus = given_gpus(environ)
    gpus = 0 if gpus is None and gpus_asked else gpus
    for name, given in (("CPU", cpus), ("GPU", gpus)):
        promised = promise.get(name, 0)
        if given is not None and promised and given != math.ceil(promised):
            found[name] = min(promised, given)
            lines.append(_differs(f"{name} {given}", f"{promised:g}", f"{found[name]:g}"))
    memory, line = _memory(promise, given_memory(environ, cpus, machine), cpus, machine)
    return {**found, **memory}, lines + line


def _differs(given: str, promised: str, smaller: str) -> str:
    return f"slurm gave {given}, the node type promises {promised}: Ray starts with {smaller}"


def _memory(
    promise: Mapping[str, float], given: int | None, cpus: int, machine: Machine
) -> tuple[dict[str, int], list[str]]:
    """Return `memory` and `object_store_memory` in bytes.

    What is promised stands where it was given. What is not promised, and Ray would take from the
    whole machine, is a share of what was given: 60 % memory and 30 % object store, or what the
    promised one leaves over of these 90 %. An object store beside promised memory has at least
    10 %. It never exceeds 95 % of /dev/shm.
    """
    usable = given or int(machine.memory_bytes * min(1.0, cpus / max(1, machine.cpus)))
    memory, store = promise.get("memory"), promise.get("object_store_memory")
    limit = min(given or machine.memory_bytes, machine.memory_bytes)
    promised = (memory or 0) + (store or 0)
    lines = []
    if promised > limit:
        memory, store = (part and part * limit / promised for part in (memory, store))
        lines.append(_differs(f"{limit // MIB} MiB of memory", f"{promised / MIB:.0f} MiB", "what it gave"))
    both = (MEMORY_PART + OBJECT_STORE_PART) * usable
    if not store:
        left = OBJECT_STORE_PART * usable if not memory else usable - memory
        store = min(OBJECT_STORE_PART * usable, max(OBJECT_STORE_LEAST_PART * usable, left))
    if machine.shm_bytes:
        store = min(store, SHM_PART * machine.shm_bytes)
    store = max(OBJECT_STORE_LEAST_BYTES, store)
    memory = memory or max(MIB, both - store)
    return {"memory": int(memory), "object_store_memory": int(store)}, lines


def read_machine() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shm = 0
    with contextlib.suppress(OSError):
        shm = shutil.disk_usage("/dev/shm").total
    return Machine(os.cpu_count() or 1, memory, shm)


# -- the address


def addresses() -> list[Address]:
    """Return this node's addresses; where there is no `ip` tool, each interface's first."""
    for tool in ("ip", "/sbin/ip", "/usr/sbin/ip"):
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(
                [tool, "-j", "addr"], capture_output=True, timeout=IP_TOOL_S, check=True, text=True
            )
            return parse_addresses(done.stdout)
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, interface in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack("256s", interface.encode()[:15])
                answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, request)
                found.append(Address(interface, socket.inet_ntoa(answer[20:24])))
    return found


def parse_addresses(text: str) -> list[Address]:
    """Read `ip -j addr`; link-local IPv6 addresses are left out, they mean nothing elsewhere."""
    rows = [(row.get("ifname"), one) for row in json.loads(text) for one in row.get("addr_info", [])]
    return [
        Address(name, one["local"]) for name, one in rows if "local" in one and one.get("scope") != "link"
    ]


def chosen_address(network: Sequence[str], found: Sequence[Address]) -> str:
    """Return the address by the first wish that one fits, IPv4 before IPv6; raise Failed(NO_ADDRESS)."""
    by_version = sorted(found, key=lambda one: ":" in one.ip)
    for wish in network:
        for one in by_version:
            if one.interface == wish or ("/" in wish and _is_in(one.ip, wish)):
                return one.ip
    here = ", ".join(f"{one.interface} {one.ip}" for one in found) or "none"
    raise Failed(NO_ADDRESS, f"network is {', '.join(network)}; this node has none of it, it has {here}")


def _is_in(ip: str, network: str) -> bool:
    return ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)


def address_towards(gcs_address: str) -> str | None:
    """Return this node's address on the way to the head; None where there is no way. Sends nothing."""
    host, _, port = gcs_address.rpartition(":")
    with contextlib.suppress(OSError, ValueError):
        for family, *_, target in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM):
            with socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect(target)
                return str(way.getsockname()[0])
    return None


# -- a place


def temp_root_of(wish: str | None, environ: Environment) -> tuple[str, list[str]]:
    """Return a folder for Ray's files, the first that is short and writable, and why not another."""
    if wish:
        return wish, []
    lines = []
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        path = environ.get(name, "").rstrip("/")
        if not path:
            continue
        if len(os.fsencode(path)) > TEMP_ROOT_BYTES:
            lines.append(
                f"{name} is not used: {path} has more than the {TEMP_ROOT_BYTES} bytes that Ray allows"
            )
        elif not os.access(path, os.W_OK | os.X_OK):
            lines.append(f"{name} is not used: {path} can't be written here")
        else:
            return path, lines
    return "/tmp", lines


# -- becoming the bootstrap


def complete(payload: Document, environ: Environment) -> tuple[Document, list[str]]:
    """Return the whole start document and what is to be said of it; raise Failed."""
    start = payload["start"]
    index, job_id = member_of(payload, environ)
    resources, lines = resources_of(
        start["resources"], environ, read_machine(), gpus_asked=bool(payload["gpus_asked"])
    )
    temp_root, passed_over = temp_root_of(payload["temp_root"], environ)
    wishes = payload["network"]
    node_ip = chosen_address(wishes, addresses()) if wishes else address_towards(start["gcs_address"])
    document = {
        **start,
        "instance_id": f"{payload['launch_id']}.{index}",
        "labels": {**(start.get("labels") or {}), **labels_of(job_id, environ)},
        "resources": resources,
        "node_ip": node_ip,
        "temp_root": temp_root,
    }
    return document, lines + passed_over


def nameless_file(text: bytes) -> int:
    """Return a descriptor of a file that no folder shows, and that is gone with whoever holds it."""
    try:
        # The slash keeps the file's «folder», Python's first place for imports, from being a real one.
        handle = os.memfd_create("heliostat/bootstrap", 0)
    except (AttributeError, OSError):
        handle, path = tempfile.mkstemp()
        os.unlink(path)
    with os.fdopen(os.dup(handle), "wb") as file:
        file.write(text)
    os.set_inheritable(handle, True)
    return handle


def listen(line: int) -> None:
    """Have a small process send this one the signals whose names come on `line`, until it ends.

    A gang's members hear their signals so. It is one of the bootstrap's processes, and ends with them.
    """
    sender = 'while read -r word; do kill -s "$word" "$1" || exit; done'
    with contextlib.suppress(OSError):
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", sender, "sh", str(os.getpid())],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, line, 0),
                (os.POSIX_SPAWN_CLOSE, line),
                # A step ends only when nobody can write to its log any more.
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        os.close(line)


def become_bootstrap(document: Document, bootstrap: bytes, environ: Environment) -> NoReturn:
    # By this process's number, not «self»: the bootstrap starts itself again as a child.
    path = f"/proc/{os.getpid()}/fd/{nameless_file(bootstrap)}"
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    text = base64.b64encode(json.dumps(document).encode()).decode()
    os.execve(sys.executable, [sys.executable, path], {**environ, "HELIOSTAT_START": text})


def main() -> NoReturn:
    # Blocked, they wait for the bootstrap, which looks for them; the script had to ignore USR1.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL)
    if os.environ.pop(LEAVE_SOON, ""):
        os.kill(os.getpid(), signal.SIGUSR1)
    try:
        payload, bootstrap = read_payload(sys.stdin.buffer)
        document, lines = complete(payload, os.environ)
    except Failed as error:
        say(f"ended with {error.code}: {error}")
        sys.exit(error.code)
    for line in lines:
        say(line)
    say(f"instance {document['instance_id']} on {document['labels'].get('heliostat.io/node', 'this node')}")
    if sys.argv[1:]:
        listen(int(sys.argv[1]))
    become_bootstrap(document, bootstrap, os.environ)


if __name__ == "__main__":
    main()
