"""The texts of scripts on a real file system: kept once, for the owner alone, and bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from heliostat.gateway.rules.lines import digest
from heliostat.gateway.rules.scripts import FILE_MIN_BYTES, Scripts


def texts(folder: Path) -> set[str]:
    return {one.read_text() for one in folder.iterdir()}


async def test_a_script_is_kept_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    scripts = Scripts(tmp_path / "s")
    for _ in range(3):
        await scripts.keep("result = 'ä'")
    (kept,) = (tmp_path / "s").iterdir()
    assert kept.name == digest("result = 'ä'")
    assert kept.read_text(encoding="utf-8") == "result = 'ä'"
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE((tmp_path / "s").stat().st_mode)) == (
        0o600,
        0o700,
    )


async def test_those_that_ran_longest_ago_go_first(tmp_path: Path) -> None:
    room = 3 * FILE_MIN_BYTES
    scripts = Scripts(tmp_path, all_max_bytes=room)
    for text in "abcad":
        await scripts.keep(text)
    assert texts(tmp_path) == {"c", "a", "d"}
    for seconds, text in enumerate("dac"):
        os.utime(tmp_path / digest(text), (seconds, seconds))
    again = Scripts(tmp_path, all_max_bytes=room)
    await again.keep("e")
    assert texts(tmp_path) == {"a", "c", "e"}


async def test_a_large_one_takes_the_place_of_many_and_is_kept_itself(tmp_path: Path) -> None:
    scripts = Scripts(tmp_path, all_max_bytes=10 * FILE_MIN_BYTES)
    large = "x" * (20 * FILE_MIN_BYTES)
    for text in ("a", "b", large):
        await scripts.keep(text)
    assert texts(tmp_path) == {large}
    await scripts.keep("c")
    assert texts(tmp_path) == {"c"}
