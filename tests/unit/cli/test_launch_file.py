"""The launch file outlives the version that wrote it: a controller that is started again reads it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from heliostat.cli.launch_file import NAME, LaunchFile
from heliostat.ports.errors import HeliostatError

PREVIOUS = Path(__file__).parent / "previous" / "launch-1.json"


def test_one_of_the_previous_version_is_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(PREVIOUS.read_text())
    found = LaunchFile.read(tmp_path)
    assert (found.address, found.head_temp_dir) == ("127.0.0.1:6380", "/tmp/hel-6a06737e")
    assert found.head_argv[3:5] == ["start", "--head"]


def test_it_is_for_its_users_eyes_only(tmp_path: Path) -> None:
    left = tmp_path / f"{NAME}.new"
    left.touch(mode=0o644)
    written = LaunchFile(["ray"], {}, "", "", "u1", "", "", head_setup={"commands": [["a", "export KEY=1"]]})
    before = os.umask(0)
    try:
        written.write(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert not left.exists()
    assert LaunchFile.read(tmp_path) == written


def test_keys_of_another_version_are_passed_over(tmp_path: Path) -> None:
    content = {**json.loads(PREVIOUS.read_text()), "colour": "blue"}
    (tmp_path / NAME).write_text(json.dumps(content))
    assert LaunchFile.read(tmp_path).cluster_uid == content["cluster_uid"]


@pytest.mark.parametrize("content", ["{", "[]", '{"address": "x"}'])
def test_a_damaged_one_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(HeliostatError, match="take the cluster down"):
        LaunchFile.read(tmp_path)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeliostatError, match=r"launch\.json can't be read"):
        LaunchFile.read(tmp_path)
