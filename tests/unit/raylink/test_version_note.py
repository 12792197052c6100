from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.ports.errors import HeliostatError
from heliostat.raylink.supported import NEWEST, OLDEST
from heliostat.raylink.version_note import version_note

LISTED = Path(__file__).parents[3] / "tools" / "ray-versions.txt"


def test_the_range_is_the_one_that_is_tested() -> None:
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    tested = [line for line in lines if line and not line.startswith("#")]
    assert (tested[0], tested[-1]) == (OLDEST, NEWEST)


@pytest.mark.parametrize("version", [OLDEST, "2.58.0", NEWEST, f"{NEWEST}1"])
def test_a_supported_one_needs_no_word(version: str) -> None:
    assert version_note(version) == ""


@pytest.mark.parametrize("version", ["2.99.0", "3.0.0.dev0"])
def test_a_newer_one_is_said(version: str) -> None:
    said = f"Ray {version} is installed, and {OLDEST} to {NEWEST} are supported: a newer one was not tested"
    assert version_note(version) == said


@pytest.mark.parametrize("version", ["2.55.9", "1.13.0", "unknown"])
def test_an_older_one_is_refused(version: str) -> None:
    with pytest.raises(HeliostatError, match=rf"^Ray {version} is .*supported$"):
        version_note(version)
