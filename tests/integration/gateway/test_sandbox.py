"""Scripts in sandboxes of every kind that this machine has: what they get, what they can't, how they end.

On every change what holds in all kinds is shown in bwrap, and without a sandbox only what nothing but the
keeper does there: ending what a script has left, and all of it when the worker goes.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import on_node
from heliostat.gateway.work.port import Done
from tests.integration.gateway.sandboxing import order_of, run, skip_without, source_of, why_not

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

IMAGE_VARIABLE = "HELIOSTAT_TEST_IMAGE"

Run = Callable[..., Done]


@pytest.fixture(params=["usual", pytest.param("none", marks=pytest.mark.nightly)])
def script(request: pytest.FixtureRequest) -> Run:
    kind = request.param
    if kind == "usual":
        kind = "none" if why_not("bwrap") else "bwrap"
    return functools.partial(run, kind=kind)


@pytest.fixture
def boxed() -> Run:
    skip_without("bwrap")
    return functools.partial(run, kind="bwrap")


def refused(script: Run, text: str, **given: Any) -> CallError:
    with pytest.raises(CallError) as error:
        script(text, **given)
    return error.value


def test_values_go_in_and_come_out(script: Run) -> None:
    text = "import numpy\nresult = {'twice': image * 2, 'raw': raw[::-1], 'sum': image.sum()}"
    found = script(text, inputs={"image": np.arange(4.0), "raw": b"abc"}).value
    np.testing.assert_array_equal(found["twice"], [0.0, 2.0, 4.0, 6.0])
    assert (found["raw"], found["sum"]) == (b"cba", 6.0)


def test_a_script_is_a_main_program_in_an_empty_folder(script: Run) -> None:
    text = """
import os
from concurrent.futures import ProcessPoolExecutor

def square(x):
    return x * x

open("note", "w").write("mine")
print("nobody reads this")
if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        result = [os.listdir(), list(pool.map(square, range(3))), dict(os.environ)]
"""
    files, squares, environment = script(text, variables={"COLOUR": "blue"}).value
    assert (files, squares) == (["note"], [0, 1, 4])
    assert environment["COLOUR"] == "blue"
    assert not [name for name in environment if name.startswith(("RAY_", "HELIOSTAT_", "VIRTUAL_"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nx = {}\nx['a']", "KeyError: 'a' (line 3)"),
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero (line 2)"),
        ("x = (", "SyntaxError: '(' was never closed (line 1)"),
        ("import sys; sys.exit(4)", "the script ended itself with exit code 4"),
        ("import os; os.kill(os.getpid(), 11)", "the script's process was ended by SIGSEGV"),
        ("import os; os._exit(5)", "the script's process ended with exit code 5 and without a result"),
        ("result = {1, 2}", "`result` can't be sent: it is of type set"),
        (
            "open('/home/ada/secret/plans.txt')",
            "FileNotFoundError: [Errno 2] No such file or directory: '…/plans.txt'",
        ),
    ],
)
def test_failures_are_told_in_one_line(script: Run, text: str, message: str) -> None:
    error = refused(script, text)
    assert error.code is Code.FAILED
    assert error.message.startswith(message)
    assert error.ran_s > 0


def test_an_early_end_keeps_its_result(script: Run) -> None:
    assert script("result = 5\nraise SystemExit").value == 5


def test_time_has_a_limit(script: Run) -> None:
    error = refused(script, "while True: pass", timeout_s=0.5)
    assert (error.code, error.message) == (Code.TIMEOUT, "it did not end within 0.5 s")
    assert 0.5 <= error.ran_s < 10


def test_memory_has_a_limit(script: Run) -> None:
    text = "blocks = []\nwhile True: blocks.append(b'x' * 2**20)"
    error = refused(script, text, memory_bytes=128 * 2**20)
    assert (error.code, error.message) == (Code.OUT_OF_MEMORY, "it took more than its 128 MiB of memory")


def test_memory_of_all_its_processes_counts(script: Run) -> None:
    text = """
import os, time
for _ in range(4):
    if not os.fork():
        block = b"x" * (50 * 2**20)
        time.sleep(60)
time.sleep(60)
"""
    assert refused(script, text, memory_bytes=128 * 2**20).code is Code.OUT_OF_MEMORY


BEYOND = """
import ctypes, mmap, os, threading, time
def held(megabytes):
    one = os.memfd_create("held")
    for _ in range(megabytes):
        os.write(one, b"x" * 2**20)
    return one
"""


@pytest.mark.parametrize(
    "text",
    [
        "one = held(100)\nkept = mmap.mmap(one, 0)\nos.close(one)",
        "def alone():\n    assert not ctypes.CDLL(None).unshare(0x400)\n    held(100)\n    time.sleep(60)\n"
        "threading.Thread(target=alone).start()",
        "both = [held(40), bytearray(b'x' * 40 * 2**20)]",
    ],
    ids=["mapped", "of a thread", "open, beside its own"],
)
def test_memory_that_is_a_file_counts(boxed: Run, text: str) -> None:
    error = refused(boxed, f"{BEYOND}{text}\ntime.sleep(60)", memory_bytes=64 * 2**20, timeout_s=15.0)
    assert error.code is Code.OUT_OF_MEMORY


def test_its_folders_count_where_they_are_memory(boxed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm here")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    text = "import time\nwith open('large', 'wb') as one:\n    one.write(bytes(100 * 2**20))\ntime.sleep(60)"
    error = refused(boxed, text, memory_bytes=64 * 2**20, timeout_s=15.0)
    assert error.code is Code.OUT_OF_MEMORY


def test_such_memory_counts_once(boxed: Run) -> None:
    text = f"""{BEYOND}
one = held(80)
kept = mmap.mmap(one, 0)
if not os.fork():
    sum(kept[at] for at in range(0, len(kept), 4096))
    time.sleep(60)
result = sum(kept[at] for at in range(0, len(kept), 4096))
time.sleep(0.5)
"""
    assert boxed(text, memory_bytes=128 * 2**20).value == ord("x") * 80 * 256


SEGMENT = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.shmat.restype, libc.shmat.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmget.argtypes, libc.shmdt.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int], [ctypes.c_void_p]
def left(megabytes, times=1):
    made = libc.shmget(0, megabytes * 2**20, 0o1600)
    assert made >= 0
    for _ in range(times):
        at = libc.shmat(made, None, 0)
        ctypes.memset(at, 1, megabytes * 2**20)
    if times == 1:
        libc.shmdt(at)
    return made
"""
"""Shared memory that no process has any more, or that one has several times."""


def segments() -> set[int]:
    return {int(line.split()[1]) for line in Path("/proc/sysvipc/shm").read_text("ascii").splitlines()[1:]}


def test_memory_that_no_process_has_counts_and_goes() -> None:
    before = segments()
    error = refused(
        functools.partial(run, kind="none"),
        f"{SEGMENT}left(40)\nkept = bytearray(b'x' * 40 * 2**20)\ntime.sleep(60)",
        memory_bytes=72 * 2**20,
        timeout_s=15.0,
    )
    assert error.code is Code.OUT_OF_MEMORY
    assert segments() <= before


def test_shared_memory_counts_once() -> None:
    text = f"{SEGMENT}left(40, times=3)\nif not os.fork():\n    time.sleep(60)\ntime.sleep(0.5)\nresult = 1"
    assert run(text, kind="none", memory_bytes=96 * 2**20).value == 1


@pytest.mark.parametrize("kind", ["none", "bwrap"])
def test_no_shared_memory_outlives_a_script_but_that_of_others(kind: str) -> None:
    skip_without(kind)
    before, names = segments(), dict[str, Any]()
    exec(SEGMENT, names)  # noqa: S102 -- what a script does, done by another process of the account
    others = {names["left"](1)}
    text = f"""{SEGMENT}
left(1)
if not os.fork():
    left(2)
    time.sleep(0.5)
    os._exit(0)
os.wait()
result = left(1)
"""
    try:
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(run, text, kind)
            while kind == "none" and segments() <= others | before:
                time.sleep(0.01)
            others.add(names["left"](1))
            assert running.result().value >= 0
        assert others <= segments()
        assert segments() <= others | before
    finally:
        for one in others:
            names["libc"].shmctl(one, 0, None)


def test_too_much_at_once_is_a_memory_error(script: Run) -> None:
    text = "try:\n    bytearray(2**31)\nexcept MemoryError:\n    result = 'refused'"
    assert script(text, data_bytes=2**30).value == "refused"
    assert refused(script, "bytearray(2**31)", data_bytes=2**30).code is Code.OUT_OF_MEMORY


def test_a_result_has_a_limit(script: Run) -> None:
    error = refused(script, "result = b'x' * 2000", result_bytes=1000)
    assert error.code is Code.TOO_LARGE
    assert "1000 are allowed" in error.message


@pytest.mark.parametrize("kind", ["none", pytest.param("bwrap", marks=pytest.mark.nightly)])
def test_what_it_leaves_running_is_ended(kind: str, tmp_path: Path) -> None:
    skip_without(kind)
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    text = f"""
import os, subprocess, sys
if not os.fork():
    os.setsid()
    if not os.fork():
        subprocess.run([sys.executable, "-c", "import time; time.sleep(300)", {mark!r}])
    os._exit(0)
os.wait()
result = "left"
"""
    assert run(text, kind=kind).value == "left"
    assert not pids_of(mark)


def test_bwrap_hides_the_owners_files(boxed: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    tree = Path(__file__).resolve()
    text = f"""
import os
result = [os.path.exists(path) for path in ({str(secret)!r}, {str(tree)!r}, "/etc/passwd", "/var", "/home")]
"""
    assert boxed(text).value == [False] * 5


def test_bwrap_hides_the_owners_projects(boxed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    text = (
        f"import os, sys\nresult = [os.path.exists({str(tmp_path)!r}), {str(tmp_path)!r} in str(os.environ)]"
    )
    assert boxed(text).value == [False, False]


def test_bwrap_lets_nothing_else_be_written(boxed: Run) -> None:
    paths = ["/new", "/usr/new", "/dev/new", "/heliostat/new", f"{sys.prefix}/new"]
    text = f"""
result = []
for path in {paths!r}:
    try:
        open(path, "w")
    except OSError as error:
        result.append(error.strerror)
"""
    assert boxed(text).value == ["Read-only file system"] * len(paths)


def test_bwrap_has_no_network(boxed: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)"
        assert "ConnectionRefusedError" in refused(boxed, text).message


def test_bwrap_lets_no_namespace_be_made(boxed: Run) -> None:
    if not on_node._locks_namespaces():
        pytest.skip("bwrap is older than 0.8 here, or can't lock namespaces")
    text = "import ctypes\nresult = ctypes.CDLL(None).unshare(0x10000000)"
    assert boxed(text).value == -1


def test_bwrap_hides_other_processes(boxed: Run) -> None:
    text = "import os\nresult = sorted(int(one) for one in os.listdir('/proc') if one.isdigit())"
    assert len(boxed(text).value) <= 3


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("none", signal.SIGKILL),
        ("bwrap", signal.SIGTERM),
        pytest.param("none", signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param("bwrap", signal.SIGKILL, marks=pytest.mark.nightly),
    ],
)
def test_nothing_outlives_the_worker(kind: str, number: int) -> None:
    """A cancelled call ends Ray's worker: the keeper has to see that, and to clear up alone."""
    skip_without(kind)
    order, body = order_of("open('begun', 'w').close()\nwhile True: pass", kind)
    base = Path(order["base"])
    given = ", ".join(repr(one) for one in (source_of("keeper.py"), order, body))
    code = f"from heliostat.gateway.work import on_node\non_node.keep({given})"
    worker = subprocess.Popen([sys.executable, "-c", code])
    wait_for((base / "scratch" / "begun").exists)
    worker.send_signal(number)
    worker.wait(10)
    wait_for(lambda: not base.exists() and not pids_of(str(base)))


def pids_of(mark: str) -> list[str]:
    """Return the processes with `mark` on their command line, but for our own."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if mark.encode() in line and int(entry.name) != os.getpid():
            found.append(entry.name)
    return found


def wait_for(there: Callable[[], bool], seconds: float = 20.0) -> None:
    end_s = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end_s, "it did not come to that in time"
        time.sleep(0.02)


def test_apptainer_runs_a_script() -> None:
    skip_without("apptainer")
    image = os.environ.get(IMAGE_VARIABLE)
    if not image:
        pytest.skip(f"{IMAGE_VARIABLE} names no image with Python and numpy")
    text = "import os, numpy\nresult = [numpy.zeros(2), os.getcwd(), os.path.exists('/home')]"
    found = run(text, kind="apptainer", image=image).value
    np.testing.assert_array_equal(found[0], [0.0, 0.0])
    assert found[1] == "/scratch"
