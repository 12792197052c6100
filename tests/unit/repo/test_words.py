"""Words that must not be in the repository: registries' hosts, paths of one machine, loose ends."""

from __future__ import annotations

import re

import pytest

from tests.unit.repo import tree

# Each is written in two pieces, so that this file does not hold what it looks for.
HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "yarnpkg" + ".com",
    "crates" + ".io",
    "proxy.golang" + ".org",
    "repo.maven" + ".apache.org",
    "deb.debian" + ".org",
    "rubygems" + ".org",
    "conda.anaconda" + ".org",
]
MACHINE = [
    r"(?<![\w.$}])/ro" + r"ot/",
    r"(?<![\w.$}])/wo" + r"rk/",
    r"/home/(?!user|you|me\b|ada)\w\w",
    r"\.pye" + "nv",
]
LOOSE = [r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b"]


def found(patterns: list[str], text: str) -> list[str]:
    return [match.group() for pattern in patterns for match in re.finditer(pattern, text)]


@pytest.mark.parametrize("patterns", [[re.escape(host) for host in HOSTS], MACHINE, LOOSE])
def test_none_of_these_words_is_in_the_tree(patterns: list[str]) -> None:
    assert {name: words for name, text in tree.texts() if (words := found(patterns, text))} == {}


@pytest.mark.parametrize("text", ["see /ro" + "ot/x", "# TO" + "DO: later", "cd /home/" + "jane/src"])
def test_such_words_are_seen(text: str) -> None:
    assert found(MACHINE + LOOSE, text)
