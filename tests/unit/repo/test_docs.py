"""The documents: links lead somewhere, and the commands are the ones that exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from heliostat.cli.main import cli
from tests.unit.repo import tree

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CONTEXT = click.Context(cli, info_name="heliostat")
COMMANDS = cli.list_commands(CONTEXT)
DOCUMENTS = list(tree.files(suffix=".md"))


def anchors(text: str) -> set[str]:
    """Return the anchors that headings get: lower case, dashes for blanks, other signs dropped."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    dead = []
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name) if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=tree.name_of)
def test_links_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One `two`\n[a](#one-two) [b](b.md) [c](a.md#three)\n```\n[d](d.md)\n```\n")
    assert dead_links(document) == ["b.md", "a.md#three"]


def test_every_document_is_in_the_index() -> None:
    index = (tree.ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(index)}
    there = {
        str(path.relative_to(tree.ROOT / "docs")) for path in tree.files(tree.ROOT / "docs", suffix=".md")
    }
    assert there - linked == {"README.md"}


def test_changelog_is_open_for_the_next_change() -> None:
    headings = re.findall(
        r"^## (.+)$", (tree.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == "Unreleased"


def test_documented_commands_are_those_that_exist() -> None:
    text = (tree.ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    documented = re.findall(r"^#+ .*?`?heliostat ([a-z-]+)", text, re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_command_and_each_has_help(name: str) -> None:
    assert re.search(rf"^  {name}\b", cli.get_help(CONTEXT), re.MULTILINE)
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    assert command.get_short_help_str()
