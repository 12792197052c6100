"""What Ray runs on a node for a call: a script's keeper, or a function that the owner has published.

Carried by value: a node needs Ray and no more, so nothing of ours is imported here but what is carried along.
Each is a generator. Its first value says that the call has begun, and where; its second is how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heliostat.gateway.work.gpu_devices import Unclear, every, own
from heliostat.gateway.work.parcel import NotSendable, pack
from heliostat.gateway.work.sandbox import LOCKED, PATH_VARIABLES, Ask, Folder, Node, command, environment

TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LINKS_MAX = 16
PROBE_S = 10.0
MESSAGE_CHARS = 2000
KEEPER = "keeper.py"
READ_KEEPER = "import sys; r = sys.stdin.buffer; exec(compile(r.read(int(r.readline())), 'keeper', 'exec'))"
"""What a keeper is started with: its own text is the first that it reads."""
LOG_BYTES = 256 * 1024
FOLDERS_OF_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\":]+/)+")
"""The folders of an absolute path, but not of a web address: they are the owner's, not the caller's."""


@dataclass(frozen=True)
class ScriptTask:
    """A script to be run: `code` are the files that make up its sandbox's inside, by name; `body` is the
    parcel that the script's host takes."""

    call_id: str
    code: Mapping[str, str]
    body: bytes
    kind: str
    image: str | None
    cpus: float
    gpus: float
    memory_bytes: int
    timeout_s: float
    result_bytes: int


def run_script(task: ScriptTask) -> Iterator[dict[str, Any]]:
    """Say that it has begun, then the keeper's outcome with the bytes that the sandbox has written."""
    yield _began()
    # With the node's own files, which go when the node goes, whatever becomes of us.
    base = f"{_session_folder()}/hel-call-{secrets.token_hex(8)}"
    ask = Ask(task.kind, base, task.cpus, task.gpus, task.image)
    try:
        node = found_node(ask)
    except Unclear as error:
        yield {"end": "not_started", "why": str(error), "ran_s": 0.0}
        return
    order = {
        "base": base,
        "code": {name: text for name, text in task.code.items() if name != KEEPER},
        "argv": command(ask, node),
        "environment": environment(ask, node),
        "timeout_s": task.timeout_s,
        "memory_bytes": task.memory_bytes,
        "result_bytes": task.result_bytes,
        "input_bytes": len(task.body),
    }
    yield keep(task.code[KEEPER], order, task.body)


def keep(source: str, order: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Run a keeper to its end. When this process is killed its lifeline ends, and so does its work."""
    keeper = subprocess.Popen(
        [sys.executable, "-s", "-c", READ_KEEPER],
        env={"PATH": order["environment"]["PATH"], "LANG": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with keeper, keeper.stdin as lifeline, keeper.stdout as answers:
        try:
            text = source.encode()
            lifeline.write(b"%d\n%b%b\n" % (len(text), text, json.dumps(dict(order)).encode()))
            lifeline.write(body)
            lifeline.flush()
        except BrokenPipeError:
            # It has ended before it had read all: what it says tells why, or that it says nothing does.
            pass
        head = answers.readline()
        outcome: dict[str, Any] = json.loads(head) if head else {"end": "lost", "why": "", "ran_s": 0.0}
        return {**outcome, "result": answers.read(outcome.get("result_bytes", 0))}


def run_function(
    call_id: str, function: Callable[..., Any], arguments: Mapping[str, Any], *, result_bytes: int
) -> Iterator[dict[str, Any]]:
    """Say that it has begun, then the function's value as a parcel, or what it raised, in one line."""
    yield _began()
    began_s = time.monotonic()
    try:
        result = pack(function(**arguments))
    except NotSendable as error:
        outcome: dict[str, Any] = {"end": "unsendable", "why": f"what it returned can't be sent: {error}"}
    except Exception as error:  # noqa: BLE001 -- the owner's function may raise whatever it likes
        # The caller hears one line without paths; the owner finds the rest in the log of this Ray worker.
        sys.stderr.write(f"heliostat gateway: call {call_id} raised\n{traceback.format_exc()}")
        outcome = {"end": "raised", "why": told(error)}
    else:
        outcome = _sized(result, result_bytes)
    yield {**outcome, "ran_s": time.monotonic() - began_s}


def _sized(result: bytes, result_bytes: int) -> dict[str, Any]:
    if len(result) > result_bytes:
        return {"end": "large", "why": f"its value takes {len(result)} bytes, {result_bytes} are allowed"}
    return {"end": "returned", "result": result}


def read_log(job_id: str, offset: int) -> bytes:
    """Return up to `LOG_BYTES` of a job's log on this node from `offset` on, nothing if there is no more."""
    from ray._private import worker

    # Where Ray's own supervisor of the job writes it, by the same words.
    path = os.path.join(worker._global_node.get_logs_dir_path(), f"job-driver-{job_id}.log")
    try:
        with open(path, "rb") as log:
            log.seek(offset)
            return log.read(LOG_BYTES)
    except FileNotFoundError:
        return b""


def told(error: BaseException) -> str:
    words = " ".join(FOLDERS_OF_PATH.sub("…/", str(error)).split())
    return f"{type(error).__name__}{': ' if words else ''}{words}"[:MESSAGE_CHARS]


def _began() -> dict[str, Any]:
    import ray

    return {"node_id": ray.get_runtime_context().get_node_id()}


def _session_folder() -> str:
    from ray._private import worker

    return str(worker._global_node.get_session_dir_path())


def found_node(ask: Ask) -> Node:
    """Look at this node: where its Python is, what has to be seen for it to run, and what bwrap can do here.

    Raises Unclear where it can't be told which GPUs are the call's.
    """
    entries = [path for name in PATH_VARIABLES for path in os.environ.get(name, "").split(":") if path]
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix]
    python = [*prefixes, *map(os.path.realpath, prefixes), *_hops(sys.executable)]
    in_bwrap = ask.kind == "bwrap"
    gpus = own(os.environ) if in_bwrap and ask.gpus else every()
    return Node(
        python=sys.executable,
        folders=[_folder(path) for path in python],
        paths=[_folder(path) for path in entries],
        top={path: os.readlink(path) if os.path.islink(path) else "" for path in TOP if os.path.exists(path)},
        devices=gpus.devices,
        homes=_homes(),
        environment=dict(os.environ),
        gpu_environment=gpus.environment,
        image_cache=os.environ.get("APPTAINER_CACHEDIR") or os.path.expanduser("~/.apptainer/cache"),
        locks_namespaces=in_bwrap and _locks_namespaces(),
    )


def _locks_namespaces() -> bool:
    # Besides bwrap's age it hangs on how it is installed, and on what a container lets it write in /proc.
    probe = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", *LOCKED, "--", "true"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(probe, capture_output=True, timeout=PROBE_S, check=False).returncode == 0
    return False


def _folder(path: str) -> Folder:
    real = os.path.realpath(path)
    try:
        is_owners = os.stat(real).st_uid == os.geteuid() or os.access(real, os.W_OK)
    except OSError:
        # What is not there yet may be anybody's when it comes.
        is_owners = True
    return Folder(path, real, is_owners)


def _homes() -> list[str]:
    """Return the owner's home by all names that it has: the site's list may know another than HOME."""
    found = {os.path.expanduser("~")}
    # A container may have no such list.
    with contextlib.suppress(KeyError):
        found.add(pwd.getpwuid(os.geteuid()).pw_dir)
    named = {path for path in found if path.startswith("/")}
    return sorted(named | {os.path.realpath(path) for path in named})


def _hops(path: str) -> list[str]:
    """Return the folders of the links on the way to a program: each has to be there for it to be found."""
    found = []
    for _ in range(LINKS_MAX):
        found.append(os.path.dirname(path))
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return found
