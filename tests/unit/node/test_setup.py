"""The steps before Ray: files, commands, what they leave, and how a start ends on their account."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.node import bootstrap
from heliostat.node.bootstrap import Failed
from tests.unit.node.test_bootstrap import NewGcs, child_with, until

RSYNC = """#!/bin/sh
echo "rsync $*" >> "$RSYNC_SAYS"
[ -z "$RSYNC_HANGS" ] || exec sleep 600
[ "${RSYNC_EXIT:-0}" = 0 ] || [ "$RSYNC_EXIT" = 24 ] || echo "no luck" >&2
exit "${RSYNC_EXIT:-0}"
"""


def nothing() -> None:
    """No reason to end a step."""


def done(tmp_path: Path, setup: dict[str, Any], look: Callable[[], None] = nothing) -> list[str]:
    told: list[str] = []
    bootstrap.do_setup(setup, str(tmp_path / "output"), tell=told.append, look=look)
    return told


def refusal(tmp_path: Path, setup: dict[str, Any]) -> str:
    with pytest.raises(Failed) as caught:
        done(tmp_path, setup)
    assert caught.value.code == bootstrap.SETUP_FAILED
    return str(caught.value)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for rsync; return the file of what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text(RSYNC)
    (tmp_path / "bin" / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("RSYNC_SAYS", str(tmp_path / "asked"))
    return tmp_path / "asked"


def test_commands_run_in_order_each_in_a_shell_of_its_own(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    setup = {
        "initialization": [["initialization_commands.0", "echo one > first; cd /; export A=1"]],
        "commands": [["setup_commands.0", 'cat first; echo "$PWD ${A-none}"; printf \'%s\' "it\'s"']],
    }
    assert done(tmp_path, setup) == [
        "setup, step 1 of 2: initialization_commands.0",
        "setup, step 2 of 2: setup_commands.0",
    ]
    assert capfd.readouterr().out == f"one\n{home} none\nit's"


def test_one_that_fails_is_told_with_its_last_words_and_is_the_last(tmp_path: Path, home: Path) -> None:
    text = "echo zero; echo; echo one; echo '  two  words'; echo three >&2; exit 3"
    found = refusal(tmp_path, {"commands": [["setup_commands.0", text], ["setup_commands.1", "touch x"]]})
    assert found == "setup_commands.0 failed with exit code 3: one / two words / three"
    assert not (home / "x").exists()
    assert refusal(tmp_path, {"commands": [["a", "kill -9 $$"]]}) == (
        "a failed with signal 9, and said nothing"
    )


def test_what_it_leaves_in_the_background_keeps_nobody(tmp_path: Path) -> None:
    done(tmp_path, {"commands": [["a", f"sleep 30 & echo $! > {tmp_path}/pid"]]})
    pid = int((tmp_path / "pid").read_text())
    assert bootstrap.process(pid) is not None
    os.kill(pid, signal.SIGKILL)


def test_a_step_is_ended_by_who_looks(tmp_path: Path) -> None:
    def ends() -> None:
        raise Failed(bootstrap.ENDED, "no controller")

    with pytest.raises(Failed, match="no controller"):
        done(tmp_path, {"commands": [["a", f"echo $$ > {tmp_path}/pid; exec sleep 30"]]}, look=ends)
    bootstrap.kill_all()


# -- files


def test_a_copy_onto_itself_is_nothing(tmp_path: Path, home: Path) -> None:
    (home / "data").mkdir()
    (home / "link").symlink_to(home / "data")
    mounts = [["~/data", str(home / "data")], ["~/link/", str(home / "data")]]
    assert done(tmp_path, {"mounts": mounts, "rsync": []}) == []


def test_a_folder_is_not_copied_into_itself(tmp_path: Path, home: Path, rsync: Path) -> None:
    # The cluster file's own check sees the head's host, where the link may lead elsewhere.
    (home / "data" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home / "data" / "inner")
    found = refusal(tmp_path, {"mounts": [[f"{tmp_path}/link/copy", str(home / "data")]]})
    assert found.startswith("file_mounts.")
    assert found.endswith("lies in " + str(home / "data") + ", and a folder can't be copied into itself")
    assert not rsync.exists()
    done(tmp_path, {"mounts": [[f"{home}/data-2", str(home / "data")]]})


def test_all_else_is_copied_by_rsync(tmp_path: Path, home: Path, rsync: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").touch()
    mounts = [["~/a b/data", f"{tmp_path}/data"], [f"{home}/deep/file", f"{tmp_path}/file"]]
    told = done(tmp_path, {"mounts": mounts, "rsync": ["--exclude=*.tmp"]})
    assert told[0] == "setup, step 1 of 2: file_mounts.~/a b/data"
    assert rsync.read_text().splitlines() == [
        f"rsync -a --exclude=*.tmp -- {tmp_path}/data/ {home}/a b/data/",
        f"rsync -a --exclude=*.tmp -- {tmp_path}/file {home}/deep/file",
    ]
    assert (home / "a b").is_dir()


def test_files_that_vanish_meanwhile_do_no_harm(
    tmp_path: Path, rsync: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    setup = {"mounts": [["~/x", f"{tmp_path}/data"]]}
    monkeypatch.setenv("RSYNC_EXIT", "24")
    done(tmp_path, setup)
    monkeypatch.setenv("RSYNC_EXIT", "12")
    assert refusal(tmp_path, setup) == "file_mounts.~/x failed with exit code 12: no luck"


def test_what_this_host_has_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(tmp_path, {"mounts": [["~/x", "/no/such"]]})
    assert found.startswith("file_mounts.~/x: /no/such is not on ")
    assert "a file system that the head and its workers share" in found
    assert refusal(tmp_path, {"synced": ["~/gone"]}).startswith("cluster_synced_files: ~/gone is not on ")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    mounts = {"mounts": [["~/x", f"{tmp_path}/data"]]}
    assert refusal(tmp_path, mounts).startswith("file_mounts.~/x: there is no rsync on ")
    assert refusal(tmp_path, {"commands": [["a", "b"]]}).startswith("a: bash can't be run")


def test_a_target_that_can_not_be_made(tmp_path: Path, rsync: Path) -> None:
    (tmp_path / "data").mkdir()
    found = refusal(tmp_path, {"mounts": [[f"{rsync.parent}/bin/rsync/x/y", f"{tmp_path}/data"]]})
    assert "bin/rsync/x can't be made: Not a directory" in found


# -- of a worker


def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bootstrap.Child:
    child = child_with(NewGcs(lambda: None))
    child.document = {"orphan_timeout_s": 10, "temp_dir": str(tmp_path)}
    monkeypatch.setattr(child, "get", lambda *_: "7")
    monkeypatch.setattr(child, "tell", lambda **_: None)
    return child


LONG = {"commands": [["a", "sleep 600"]]}


def test_a_lease_that_ends_ends_the_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = waits(monkeypatch, tmp_path)
    child.asked.set()
    with pytest.raises(Failed, match="the machine's lease ends, and its setup is not done yet"):
        child.set_up(LONG)
    bootstrap.kill_all()


def test_so_does_a_controller_that_nobody_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = waits(monkeypatch, tmp_path)
    child.document["orphan_timeout_s"] = 0.2
    monkeypatch.setattr(bootstrap, "HEARTBEAT_LOOK_S", 0.05)
    with pytest.raises(Failed, match=r"no controller was heard for 0\.2 s") as caught:
        child.set_up(LONG)
    assert caught.value.code == bootstrap.ENDED
    bootstrap.kill_all()


def test_a_disk_that_takes_nothing_is_a_failure_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = waits(monkeypatch, tmp_path)
    child.document["temp_dir"] = str(tmp_path / "gone")
    with pytest.raises(Failed, match=r"the setup can't be done: .*No such file or directory") as caught:
        child.set_up({"commands": [["a", "true"]]})
    assert caught.value.code == bootstrap.SETUP_FAILED


def test_a_setup_that_changes_ray_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = waits(monkeypatch, tmp_path)
    versions = iter(["2.60.0", "2.61.0"])
    monkeypatch.setattr(bootstrap, "installed_ray", lambda: next(versions))
    with pytest.raises(Failed, match=r"its setup has put Ray 2\.61\.0 in the place of 2\.60\.0") as caught:
        child.set_up({"commands": [["a", "true"]]})
    assert caught.value.code == bootstrap.VERSIONS


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({b"cluster_uid": "theirs"}, "is now another cluster: this worker does not join it"),
        ({b"cluster_uid": "u1", b"session_name": "s2"}, "was restarted: session s2, not s1"),
        ({b"cluster_uid": "u1", b"session_name": "s1"}, None),
    ],
)
def test_after_it_the_cluster_must_still_be_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[bytes, str], said: str | None
) -> None:
    child = waits(monkeypatch, tmp_path)
    child.document |= {"gcs_address": "h:1", "cluster_uid": "u1", "session_name": "s1"}
    reached: list[str] = []
    monkeypatch.setattr(bootstrap, "reach", lambda address, _: reached.append(address))
    monkeypatch.setattr(child, "get", lambda key, _: held.get(key, ""))
    refused = pytest.raises(Failed, match=said) if said else contextlib.nullcontext()
    with refused as caught:
        child.set_up({"commands": [["a", f"touch {tmp_path}/did"]]})
    assert (tmp_path / "did").exists()
    assert reached == ["h:1"]
    assert caught is None or caught.value.code == bootstrap.STRANGER


Rounds = Callable[[Sequence[Callable[[], object]]], list[float]]


@pytest.fixture
def rounds(tmp_path: Path, rsync: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """Let a worker copy again, once after each of some changes of its world; return its pauses."""
    child = waits(monkeypatch, tmp_path)
    (tmp_path / "data").mkdir()
    child.document["setup"] = {"mounts": [["~/x", f"{tmp_path}/data"]], "again_s": 30}

    def run(changes: Sequence[Callable[[], object]]) -> list[float]:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            if len(pauses) == len(changes):
                raise KeyboardInterrupt
            changes[len(pauses)]()
            pauses.append(seconds)

        monkeypatch.setattr(bootstrap, "time", SimpleNamespace(sleep=pause))
        with pytest.raises(KeyboardInterrupt):
            child.keep_synced()
        return pauses

    return run


def test_what_is_copied_again_is_what_was_copied(rounds: Rounds, rsync: Path) -> None:
    assert rounds([nothing, nothing]) == [30, 30]
    assert len(rsync.read_text().splitlines()) == 2


def test_what_goes_wrong_then_is_said_when_it_changes(
    tmp_path: Path, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def exits(code: int) -> Callable[[], None]:
        return lambda: monkeypatch.setenv("RSYNC_EXIT", str(code))

    rounds([nothing, exits(23), nothing, exits(24), exits(12), (tmp_path / "data").rmdir, nothing])
    output = capfd.readouterr()
    said = [line.removeprefix("bootstrap: ") for line in output.out.splitlines()]
    assert said[:3] == [
        "file_mounts.~/x is not copied again: exit code 23: no luck",
        "file_mounts are copied again",
        "file_mounts.~/x is not copied again: exit code 12: no luck",
    ]
    assert len(said) == 4
    assert said[3].startswith(f"file_mounts.~/x: {tmp_path}/data is not on ")
    assert output.err == ""


def test_a_copy_that_hangs_is_ended(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "COPY_S", 0.2)
    monkeypatch.setenv("RSYNC_HANGS", "1")
    rounds([nothing, nothing])
    said = "bootstrap: file_mounts.~/x is not copied again: rsync took more than 0.2 s\n"
    assert capfd.readouterr().out == said


# -- of a head


def head(tmp_path: Path, setup: dict[str, Any]) -> subprocess.Popen[str]:
    path = tmp_path / "launch.json"
    path.write_text(json.dumps({"head_setup": setup}))
    argv = [sys.executable, bootstrap.__file__, "--setup", str(path)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_a_heads_steps_are_done_and_said(tmp_path: Path, home: Path) -> None:
    one = head(tmp_path, {"commands": [["head_setup_commands.0", "touch there; echo done"]]})
    output, _ = one.communicate(timeout=20)
    assert one.returncode == 0
    assert output == "bootstrap: setup, step 1 of 1: head_setup_commands.0\ndone\n"
    assert (home / "there").exists()


def test_one_that_fails_has_its_code_and_reason(tmp_path: Path) -> None:
    one = head(tmp_path, {"commands": [["head_setup_commands.0", "echo so; exit 3"]]})
    output, _ = one.communicate(timeout=20)
    assert one.returncode == bootstrap.SETUP_FAILED
    assert output.endswith("bootstrap: ended with 19: head_setup_commands.0 failed with exit code 3: so\n")


def test_term_ends_a_step_with_all_its_processes(tmp_path: Path) -> None:
    inner = f"setsid sleep 600 & echo $! > {tmp_path}/pids; sleep 600 & echo $! >> {tmp_path}/pids; wait"
    one = head(tmp_path, {"commands": [["a", inner]]})
    pids = tmp_path / "pids"
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    began_s = time.monotonic()
    one.terminate()
    output, _ = one.communicate(timeout=20)
    assert time.monotonic() - began_s < 5
    assert one.returncode == 128 + signal.SIGTERM
    assert "asked to stop (SIGTERM)" in output
    assert [bootstrap.process(int(pid)) for pid in pids.read_text().split()] == [None, None]


def test_a_heads_setup_that_changes_ray_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    versions = iter(["2.60.0", "2.61.0"])
    monkeypatch.setattr(bootstrap, "installed_ray", lambda: next(versions))
    assert in_this_process(tmp_path, monkeypatch) == bootstrap.VERSIONS
    assert "ended with 12: its setup has put Ray 2.61.0 in the place of 2.60.0" in capfd.readouterr().out


def test_a_host_that_has_no_place_for_it_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    killed: list[bool] = []
    monkeypatch.setattr(bootstrap, "do_step", full)
    assert in_this_process(tmp_path, monkeypatch, killed=killed) == bootstrap.SETUP_FAILED
    said = capfd.readouterr().out.splitlines()[-1]
    assert said.startswith("bootstrap: ended with 19: the setup of the head's host can't be done: ")
    assert said.endswith("No space left on device")
    assert killed == [True]


def in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: list[bool] | None = None
) -> int:
    """Return how a head's setup ends; this process keeps its signals and its children."""
    monkeypatch.setattr(bootstrap, "adopt_orphans", nothing)
    monkeypatch.setattr(bootstrap.signal, "signal", lambda *_: None)
    monkeypatch.setattr(bootstrap, "kill_all", lambda: None if killed is None else killed.append(True))
    path = tmp_path / "launch.json"
    path.write_text(json.dumps({"head_setup": {"commands": [["a", "true"]]}}))
    return bootstrap.set_up_head(str(path))
