from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.ports.errors import HeliostatError
from heliostat.raylink.supported import NEWEST, OLDEST, supported_words, version_note

LISTED = Path(__file__).parents[3] / "tools" / "ray-versions.txt"


def test_the_range_is_the_one_that_is_tested() -> None:
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    tested = [tuple(map(int, line.split(".")[:2])) for line in lines if line and not line.startswith("#")]
    assert (min(tested), max(tested)) == (OLDEST, NEWEST)
    assert supported_words() == "2.56 to 2.60"


@pytest.mark.parametrize("version", ["2.56.0", "2.56.1", "2.60.0", "2.60.3rc1"])
def test_a_supported_one_needs_no_word(version: str) -> None:
    assert version_note(version) == ""


@pytest.mark.parametrize("version", ["2.61.0", "3.0.0.dev0"])
def test_a_newer_one_is_said(version: str) -> None:
    assert version_note(version).startswith(f"Ray {version} is newer than what this version was tested with")


@pytest.mark.parametrize("version", ["2.55.9", "1.13.0", "unknown"])
def test_an_older_one_is_refused(version: str) -> None:
    with pytest.raises(
        HeliostatError, match=rf"Ray {version} is not supported: install one from 2.56 to 2.60"
    ):
        version_note(version)
