"""Where tests live, and what a test that starts real Ray must carry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.unit.repo import tree

TESTS = tree.ROOT / "tests"
PLACE = re.compile(r"tests/(unit|integration)/[a-z_]+/([a-z_0-9]+/)*test_[a-z0-9_]+\.py")


def test_every_test_has_its_place() -> None:
    files = [tree.name_of(path) for path in tree.files(TESTS, suffix=".py") if path.name.startswith("test_")]
    assert [name for name in files if not PLACE.fullmatch(name)] == []


def test_integration_tests_are_marked_and_bounded() -> None:
    lacking = {}
    for path in tree.files(TESTS / "integration", suffix=".py"):
        if path.name.startswith("test_"):
            text = path.read_text(encoding="utf-8")
            marks = [mark for mark in ("integration", "timeout") if f"pytest.mark.{mark}" not in text]
            lacking |= {tree.name_of(path): marks} if marks else {}
    assert lacking == {}


def sleeps(module: ast.Module) -> list[str]:
    """Return the tests that sleep, apart from those that look again and again in a loop."""
    return [
        node.name
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if any(_is_sleep(inner) for inner in _outside_of_loops(node))
    ]


def _outside_of_loops(node: ast.AST) -> Iterator[ast.AST]:
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.While):
            yield inner
            yield from _outside_of_loops(inner)


def _is_sleep(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"


def test_no_test_sleeps_to_win_a_race() -> None:
    found = {name: tests for name, module in tree.modules(TESTS / "unit") if (tests := sleeps(module))}
    assert found == {}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("time.sleep(1)", ["test_it"]),
        ("while not done():\n        time.sleep(0.1)", []),
        ("if slow:\n        time.sleep(1)", ["test_it"]),
    ],
)
def test_a_sleep_is_seen(body: str, found: list[str]) -> None:
    assert sleeps(ast.parse(f"def test_it():\n    {body}\n")) == found


def test_no_test_is_skipped_for_good() -> None:
    bare = re.compile(r"@pytest\.mark\.(skip|xfail)\b")
    texts = (
        (name, text) for name, text in tree.texts() if name.startswith("tests/") and name.endswith(".py")
    )
    assert [
        name for name, text in texts if bare.search(text) and not name.endswith("test_test_layout.py")
    ] == []
