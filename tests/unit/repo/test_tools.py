"""The small programs that build and check: finding a Python, finding and ending processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.repo import tree
from tools import processes

TIMEOUT_S = 20
SLEEPER = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


def pick(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(tree.ROOT / "tools" / "pick-python"), *arguments]
    return subprocess.run(
        command, check=False, env={"PATH": str(path)}, capture_output=True, text=True, timeout=TIMEOUT_S
    )


def fake_python(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def test_the_newest_python_that_runs_is_picked(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.14", "echo not installed >&2; exit 127")
    fake_python(tmp_path, "python3.13", "echo /opt/py313")
    fake_python(tmp_path, "python3.12", "echo /opt/py312")
    assert pick(path=tmp_path).stdout == "/opt/py313\n"


def test_the_python_asked_for_is_taken(tmp_path: Path) -> None:
    assert Path(pick(sys.executable, path=tmp_path).stdout.strip()).samefile(sys.executable)


@pytest.mark.parametrize("arguments", [(), ("python3.9",)])
def test_no_python_is_said_clearly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = pick(*arguments, path=tmp_path)
    assert done.returncode == 1
    assert "3.11" in done.stderr


def test_ci_script_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", str(tree.ROOT / ".ci" / "run")], check=True, timeout=TIMEOUT_S)


def called_by_make() -> list[tuple[str, str]]:
    """Return how the Makefile calls our own Python programs: the flag, if there is one, and the name."""
    makefile = (tree.ROOT / "Makefile").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"python\)?\"? (-m )?(tools[./]\S+)", makefile)))


@pytest.mark.parametrize(("flag", "name"), called_by_make())
def test_what_make_calls_finds_all_that_it_imports(flag: str, name: str) -> None:
    # Python puts the working folder first for a module, and the program's own for a file.
    place, call = ("", f"run_module({name!r}") if flag else ("tools", f"run_path({name!r}")
    code = f"import runpy, sys; sys.path[0] = {place!r}; runpy.{call}, run_name='imported')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tree.ROOT, timeout=TIMEOUT_S)


def test_the_programs_that_make_calls_are_found() -> None:
    assert {name for _, name in called_by_make()} >= {"tools.nightly", "tools/environment.py"}


def test_a_tagged_process_is_found_and_ended() -> None:
    mark = f"HELIOSTAT_INSTANCE_ID=l{os.urandom(4).hex()}.0"
    name, _, value = mark.partition("=")

    def ours(environ: bytes) -> bool:
        return mark.encode() in environ.split(b"\0") and processes.of_a_cluster(environ)

    sleeper = subprocess.Popen(
        SLEEPER, env={**os.environ, name: value}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        found = processes.find(ours)
        assert [one.pid for one in found] == [sleeper.pid]
        assert processes.wait_until_gone(ours, known={found[0].key}, timeout_s=5) == []
        assert processes.wait_until_gone(ours, timeout_s=0) == found
        processes.end(found)
        assert processes.find(ours) == []
    finally:
        sleeper.kill()
        sleeper.communicate(timeout=TIMEOUT_S)


def test_a_pid_that_means_another_process_is_left_alone() -> None:
    sleeper = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        processes.end([processes.Process(sleeper.pid, 1, "an earlier one")])
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.communicate(timeout=TIMEOUT_S)


def test_an_environment_without_our_tags_is_not_ours() -> None:
    assert not processes.of_a_cluster(b"PATH=/bin\0X_HELIOSTAT_INSTANCE_ID=l.0\0")
