"""Keep one sandbox on a node: start it, hold it to its limits, end all of it, clear up behind it.

Standard library only: it is carried to the node as text and run there, in a session of its own. It outlives
the Ray worker that started it by moments only: standard input is its lifeline, and when that ends (the call
was cancelled, its worker was killed) so does everything in here.

Standard input: one line of JSON (`Order`), then `input_bytes` bytes, which become the sandbox's standard
input. Standard output: one line of JSON (`Outcome`), then the `result_bytes` bytes that the sandbox has
written.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_S = 0.1
"""How often memory is looked at: what a script takes within it is beyond its limit."""
THOROUGH_S = 1.0
THOROUGH_SHARE = 20
"""How often it is looked for what takes longer to see: so often, or so much more rarely than that takes."""
KILL_ROUNDS = 50
KILL_ROUND_S = 0.02
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STDERR_CHARS = 2000
FOLDERS = ("code", "scratch", "tmp", "shm")
OWN_FOLDERS = FOLDERS[1:]
SHM = "/dev/shm"
FILES_OF_MEMORY = ("/memfd:", "/SYSV", "/secretmem")
"""Files that are nothing but memory, as /proc names them. Their pages are no process's own."""
SECRET = "/secretmem"
"""The kernel does not tell how much of such a file there is."""
MEMORY_SYSTEMS = {"tmpfs", "ramfs"}
SEGMENTS = "/proc/sysvipc/shm"
IPC_RMID = 0
BLOCK_BYTES = 512
KB = 1024
PIPE_BYTES = 65536


def main() -> None:
    source = sys.stdin.buffer
    order = json.loads(source.readline())
    body = source.read(order["input_bytes"])
    # Ray ends the children of a worker that ends. As nobody's child we have the time to clear up.
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    base = Path(order["base"])
    # Nobody else makes it, so that whoever dies before this leaves nothing behind.
    base.mkdir(mode=0o700)
    try:
        _report(*_kept(order, body, base))
    except BrokenPipeError:
        # Nobody waits for it any more.
        pass
    finally:
        _end_all()
        shutil.rmtree(base, ignore_errors=True)


def _report(outcome: dict[str, Any], result: bytes) -> None:
    head = json.dumps({**outcome, "result_bytes": len(result)}).encode() + b"\n"
    with os.fdopen(1, "wb") as out:
        out.write(head)
        out.write(result)


def _kept(order: dict[str, Any], body: bytes, base: Path) -> tuple[dict[str, Any], bytes]:
    """Run the sandbox and return its outcome, with what it wrote if it ended by itself."""
    for name in FOLDERS:
        (base / name).mkdir()
    for name, text in order["code"].items():
        (base / "code" / name).write_text(text, encoding="utf-8")
    with contextlib.ExitStack() as files:
        takes, gives, errors = (
            files.enter_context(open(base / name, "w+b")) for name in ("in", "out", "err")
        )
        takes.write(body)
        takes.seek(0)
        began_s = time.monotonic()
        segments = _Segments()
        try:
            child = _started(order, base, (takes, gives, errors))
        except OSError as error:
            return {"end": "not_started", "why": f"{order['argv'][0]}: {error.strerror}", "ran_s": 0.0}, b""
        end = _watched(child, order, began_s, segments)
        segments.remove({child.pid, *_end_all()})
        code = child.wait()
        outcome = {"end": end, "code": code, "ran_s": time.monotonic() - began_s, "why": _last_words(errors)}
        return outcome, _written(gives, order["result_bytes"]) if end == "ended" else b""


def _started(order: dict[str, Any], base: Path, streams: tuple[Any, Any, Any]) -> subprocess.Popen[bytes]:
    takes, gives, errors = streams
    parent = os.getpid()

    def dies_with_us() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        order["argv"],
        env=order["environment"],
        cwd=base / "scratch",
        stdin=takes,
        stdout=gives,
        stderr=errors,
        start_new_session=True,
        preexec_fn=dies_with_us,  # noqa: PLW1509 -- we have one thread
    )


def _watched(
    child: subprocess.Popen[bytes], order: dict[str, Any], began_s: float, segments: _Segments
) -> str:
    """Return how it came to its end: `ended`, `timeout`, `memory`, or `left` when nobody waits for it."""
    end_s = began_s + order["timeout_s"]
    memory = _Memory(order["memory_bytes"], order["base"], segments)
    deaths = _deaths()
    lifeline = select.poll()
    lifeline.register(0, select.POLLIN | select.POLLHUP)
    lifeline.register(deaths, select.POLLIN)
    # It may have ended before its death would have been heard of.
    while child.poll() is None:
        left_s = end_s - time.monotonic()
        ready = {number for number, _ in lifeline.poll(max(0.0, min(LOOK_S, left_s)) * 1000)}
        if 0 in ready:
            return "left"
        if deaths in ready:
            if signal.SIGTERM in os.read(deaths, PIPE_BYTES):
                return "left"
        elif left_s <= 0:
            return "timeout"
        elif memory.is_too_large():
            return "memory"
    return "ended"


def _heard(_number: int, _frame: object) -> None:
    """A handler, because an ignored signal wakes nobody."""


def _deaths() -> int:
    """Return a descriptor that gives a byte for each child that has died, and for a TERM to us."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, _heard)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    return reads


class _Memory:
    """What all processes of a sandbox hold: pages of their own, and files that lie in memory.

    The latter are known by device and number, so that each counts once whoever has it.
    """

    def __init__(self, limit_bytes: int, base: str, segments: _Segments) -> None:
        self._limit_bytes = limit_bytes
        self._segments = segments
        self._devices = _memory_devices()
        own = [os.path.join(base, name) for name in OWN_FOLDERS]
        self._folders = [path for path in own if os.stat(path).st_dev in self._devices]
        self._hidden: dict[tuple[int, int], int] = {}
        self._again_s = 0.0

    def is_too_large(self) -> bool:
        pids = self._segments.look()
        if time.monotonic() >= self._again_s:
            self._look_thoroughly(pids)
        # The quick figures count pages that several processes share, or that belong to a file, more than
        # once: only if they are too large, the exact ones are worth their time.
        held = sum(self._files(pids).values())
        if held + sum(_quick_bytes(pid) for pid in pids) <= self._limit_bytes:
            return False
        self._look_thoroughly(pids)
        files = self._files(pids)
        own = sum(_exact_bytes(pid) - _counted_bytes(pid, files) for pid in pids)
        return sum(files.values()) + own > self._limit_bytes

    def _files(self, pids: list[int]) -> dict[tuple[int, int], int]:
        opened = _open_files([f"/proc/{pid}" for pid in pids], self._devices)
        return {**self._hidden, **opened, **self._segments.sizes()}

    def _look_thoroughly(self, pids: list[int]) -> None:
        """See files that are mapped and not open, that a thread alone has open, and those in its folders."""
        began_s = time.monotonic()
        # A thread may have taken leave of the files of its process.
        tasks = [f"/proc/{pid}/task/{task}" for pid in pids for task in _names(f"/proc/{pid}/task")]
        self._hidden = {
            **_mapped_files(pids, self._devices),
            **_open_files(tasks, self._devices),
            **_files_below(self._folders),
        }
        now_s = time.monotonic()
        self._again_s = now_s + max(THOROUGH_S, THOROUGH_SHARE * (now_s - began_s))


class _Segments:
    """System V shared memory that processes of the sandbox have made. No process need have it to keep it.

    It is known by its creator, so one that lived for less than a look's time may have made what is not
    seen. The list is that of our own IPC namespace: a sandbox that has another takes its segments along when
    it ends, and how large they are can't be seen from here.
    """

    def __init__(self) -> None:
        # Of the same file system as these, under a number that is its id.
        one = os.memfd_create("one")
        self._device = os.fstat(one).st_dev
        os.close(one)
        self._known = set(_listed_segments())
        self._sizes: dict[int, int] = {}
        self._pids: set[int] = set()

    def look(self) -> list[int]:
        """See which segments there are by now; return the processes that live."""
        # In this order: whoever made one of these and lives is among them.
        listed = _listed_segments()
        pids = _descendants()
        self._claim(listed, self._pids.union(pids))
        # Only those of this look and the one before count: a number may become another's.
        self._pids = set(pids)
        return pids

    def sizes(self) -> dict[tuple[int, int], int]:
        """Return the bytes that each takes, by device and number as for other files."""
        return {(self._device, number): size for number, size in self._sizes.items()}

    def remove(self, ended: set[int]) -> None:
        """Remove what is left of them; `ended` are the last processes, which have made no more since."""
        self._claim(_listed_segments(), self._pids | ended)
        for number in self._sizes:
            ctypes.CDLL(None).shmctl(number, IPC_RMID, None)

    def _claim(self, listed: dict[int, tuple[int, int]], pids: set[int]) -> None:
        self._sizes = {
            number: size
            for number, (creator, size) in listed.items()
            if number in self._sizes or (number not in self._known and creator in pids)
        }
        self._known = set(listed)


def _listed_segments() -> dict[int, tuple[int, int]]:
    """Return creator and bytes of each segment in this IPC namespace, swapped out or not, by its id."""
    found = {}
    with contextlib.suppress(OSError), open(SEGMENTS, encoding="ascii") as lines:
        names = next(lines, "").split()
        for line in lines:
            words = dict(zip(names, map(int, line.split()), strict=False))
            found[words["shmid"]] = words["cpid"], words["rss"] + words["swap"]
    return found


def _memory_devices() -> set[int]:
    """Return the devices of file systems that lie in memory."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
        words = line.split()
        if words[words.index("-") + 1] in MEMORY_SYSTEMS:
            found.add(_device(words[2], base=10))
    return found


def _device(text: str, *, base: int) -> int:
    major, _, minor = text.partition(":")
    return os.makedev(int(major, base), int(minor, base))


def _open_files(processes: list[str], devices: set[int]) -> dict[tuple[int, int], int]:
    """Return the bytes of what is open, lies in memory, and has no name in a folder of the sandbox."""
    found = {}
    for path in (f"{process}/fd/{number}" for process in processes for number in _names(f"{process}/fd")):
        # It may be closed by now.
        with contextlib.suppress(OSError):
            name = os.readlink(path)
            of_memory = name.startswith(FILES_OF_MEMORY)
            if of_memory or name.endswith(" (deleted)") or name.startswith(f"{SHM}/"):
                facts = os.stat(path)
                if (of_memory or facts.st_dev in devices) and not name.startswith(SECRET):
                    found[facts.st_dev, facts.st_ino] = facts.st_blocks * BLOCK_BYTES
    return found


def _mapped_files(pids: list[int], devices: set[int]) -> dict[tuple[int, int], int]:
    """Return how far into each file that lies in memory and has no name the mappings go.

    One that is mapped and not open can't be asked how large it is.
    """
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines,
        ):
            for words in (line.split(None, 5) for line in lines if " /" in line):
                name, key = words[5].rstrip("\n"), _key(words)
                if name.startswith(FILES_OF_MEMORY) or (name.endswith(" (deleted)") and key[0] in devices):
                    start, _, end = words[0].partition("-")
                    reach = int(words[2], 16) + int(end, 16) - int(start, 16)
                    found[key] = max(found.get(key, 0), reach)
    return found


def _key(words: list[str]) -> tuple[int, int]:
    """Return device and number of a mapping's file: the fourth and the fifth word of its line."""
    return _device(words[3], base=16), int(words[4])


def _files_below(folders: list[str]) -> dict[tuple[int, int], int]:
    found = {}
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    facts = os.lstat(os.path.join(path, name))
                    found[facts.st_dev, facts.st_ino] = facts.st_blocks * BLOCK_BYTES
    return found


def _names(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _counted_bytes(pid: int, files: dict[tuple[int, int], int]) -> int:
    """Return what the exact figure of a process has of these files: they are counted themselves."""
    if not files:
        return 0
    found, is_one = 0, False
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            words = line.split(None, 5)
            if not words[0].endswith(":"):
                is_one = len(words) > 4 and _key(words) in files
            elif is_one and words[0] == "Pss:":
                found += int(words[1]) * KB
            elif is_one and words[0] == "Anonymous:":
                # Copies that the process has made for itself are not the file's.
                found -= int(words[1]) * KB
    return max(0, found)


def _quick_bytes(pid: int) -> int:
    return _kilobytes(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:")) * KB


def _exact_bytes(pid: int) -> int:
    found = _kilobytes(f"/proc/{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
    return found * KB or _quick_bytes(pid)


def _kilobytes(path: str, names: tuple[str, ...]) -> int:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(names))
    return 0


def _descendants() -> list[int]:
    """Return all processes below this one that live, parents first.

    Those whose own parent has died are our children: this process is the one that gets them.
    """
    listed = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
    children = _listed_children if listed else _searched_children()
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        mine = [pid for pid in children(todo.pop(0)) if _state_and_parent(pid)[0] not in "ZX"]
        found += mine
        todo += mine
    return found


def _listed_children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as text,
            ):
                found += [int(one) for one in text.read().split()]
    return found


def _searched_children() -> Callable[[int], list[int]]:
    """Return the same for kernels that do not list them, from one look at all processes."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_state_and_parent(int(name))[1], []).append(int(name))
    return lambda pid: children.get(pid, [])


def _state_and_parent(pid: int) -> tuple[str, int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return words[0], int(words[1])
    return "X", 0


def _end_all() -> set[int]:
    """Kill everything below this process, and what it starts meanwhile; return what that was."""
    killed: set[int] = set()
    for _ in range(KILL_ROUNDS):
        pids = _descendants()
        if not pids:
            break
        killed.update(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(KILL_ROUND_S)
    return killed


def _written(gives: Any, limit_bytes: int) -> bytes:
    """Return what the sandbox wrote, cut off where it is longer than any result may be."""
    gives.seek(0)
    found: bytes = gives.read(limit_bytes)
    return found


def _last_words(errors: Any) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - STDERR_CHARS))
    text: str = errors.read().decode(errors="replace")
    return text.strip()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main()
