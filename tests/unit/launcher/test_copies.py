from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heliostat.launcher import copies
from heliostat.launcher.asked import Refused
from heliostat.launcher.copies import Copy, copy_in_place


@pytest.fixture(params=[True, False], ids=["rsync", "without rsync"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param and shutil.which("rsync") is None:
        pytest.skip("no rsync here")
    if not request.param:
        monkeypatch.setattr(copies.shutil, "which", lambda _: None)
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "sub" / "a").write_text("a")
    (tmp_path / "to").mkdir()
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        ("src", "to", ["src/sub/a"]),
        ("src", "to/", ["src/sub/a"]),
        ("src/", "to", ["sub/a"]),
        ("src", "to/new", ["new/sub/a"]),
        ("src/", "to/new/", ["new/sub/a"]),
        ("src/sub/a", "to", ["a"]),
        ("src/sub/a", "to/b", ["b"]),
    ],
)
def test_names_are_as_with_rsync(folder: Path, source: str, target: str, found: list[str]) -> None:
    said = copy_in_place(Copy(f"{folder}/{source}", f"{folder}/{target}"))
    assert "is copied to" in said
    assert files(folder / "to") == found
    # Again over what is there: the same.
    copy_in_place(Copy(f"{folder}/{source}", f"{folder}/{target}"))


@pytest.mark.parametrize(
    ("source", "target"),
    [("src", "src"), ("src", ""), ("src/", "src/"), ("src/sub/a", "src/sub"), ("src/sub/a", "src/sub/a")],
)
def test_onto_itself_is_nothing(folder: Path, source: str, target: str) -> None:
    said = copy_in_place(Copy(f"{folder}/{source}", f"{folder}/{target}"))
    assert said.endswith("is there already: nothing to copy")
    assert files(folder / "src") == ["sub/a"]


@pytest.mark.parametrize("target", ["src/sub", "src/new", "link/new"])
def test_no_folder_goes_into_itself(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(folder / "src" / "sub")
    with pytest.raises(Refused, match="can't be copied into itself"):
        copy_in_place(Copy(f"{folder}/src", f"{folder}/{target}"))
    assert files(folder / "src") == ["sub/a"]


def test_a_home_folder_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "to"))
    copy_in_place(Copy(f"{folder}/src/sub/a", "~/b"))
    assert files(folder / "to") == ["b"]


def test_what_is_not_there_or_has_no_place(folder: Path) -> None:
    with pytest.raises(Refused, match="no such file or folder"):
        copy_in_place(Copy(f"{folder}/none", f"{folder}/to"))
    with pytest.raises(Refused, match=r"can't be copied to .*No such file"):
        copy_in_place(Copy(f"{folder}/src/sub/a", f"{folder}/none/b"))


def test_a_copy_that_takes_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = folder / "rsync"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(copies.shutil, "which", lambda _: str(slow))
    monkeypatch.setattr(copies, "COPY_TIMEOUT_S", 0.1)
    with pytest.raises(Refused, match=r"can't be copied to .*: not done within 0 s; a part of it may be"):
        copy_in_place(Copy(f"{folder}/src", f"{folder}/to"))


def test_what_is_left_out_needs_rsync(folder: Path) -> None:
    copy = Copy(f"{folder}/src", f"{folder}/to", excludes=("a",))
    if copies.shutil.which("rsync"):
        copy_in_place(copy)
        assert files(folder / "to") == []
    else:
        with pytest.raises(Refused, match="need rsync"):
            copy_in_place(copy)
