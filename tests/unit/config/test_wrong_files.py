"""docs/wrong-files.md, word for word: what is said of each wrong file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.cli.backends import backend_keys
from heliostat.config.cluster_file import load_cluster_file
from heliostat.ports.errors import ConfigError

PAGE = Path(__file__).parents[3] / "docs" / "wrong-files.md"
LEAST = 20
ENTRY = re.compile(
    r"^## (?P<title>[^\n]*)\n\n```diff\n(?P<change>.*?)\n```\n\n(?P<said>(    [^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)


def changed(text: str, change: str) -> str:
    """Return the file with lines of `-` replaced by the lines of `+` after them; alone these come last."""
    for out, into in re.findall(r"((?:^-.*\n?)*)((?:^\+.*\n?)*)", change + "\n", flags=re.MULTILINE):
        old, new = ("".join(f"{line[1:]}\n" for line in part.splitlines()) for part in (out, into))
        assert text.count(old) >= 1, f"not in the file: {old}"
        text = text.replace(old, new, 1) if old else text + new
    return text


def said(text: str) -> list[str]:
    """Return the problems of a file of that text in the current folder; [] where it is right."""
    path = Path("cluster.yaml")
    path.write_text(text, encoding="utf-8")
    try:
        load_cluster_file(path, backends=backend_keys(), on_disk=True)
    except ConfigError as error:
        return error.problems
    return []


def base() -> str:
    found = re.search(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def entries() -> Iterator[tuple[str, str, list[str]]]:
    for one in ENTRY.finditer(PAGE.read_text(encoding="utf-8")):
        yield one["title"], one["change"], [line[4:] for line in one["said"].splitlines()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_has_enough_of_them_and_all_are_seen() -> None:
    titles = re.findall(r"^## ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(list(entries())) == len(titles) >= LEAST


def test_the_file_itself_is_right() -> None:
    assert said(base()) == []


@pytest.mark.parametrize(
    ("change", "expected"), [one[1:] for one in entries()], ids=[one[0] for one in entries()]
)
def test_each_is_told_as_the_page_says(change: str, expected: list[str]) -> None:
    assert said(changed(base(), change)) == expected
