"""The files of the repository, as the tests of its rules see them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "heliostat"
# What git ignores or owns; everything else is part of the repository.
_NOT_OURS = {".git", ".venv", ".tools", ".gl", "dist", "build", "htmlcov", "__pycache__"}
_CACHES = ("_cache", ".egg-info")
_NOT_TEXT = {".png", ".gif", ".ico", ".gz", ".db", ".pyc"}


def files(folder: Path = ROOT, *, suffix: str = "") -> Iterator[Path]:
    """Yield the repository's files, in order; those that end in `suffix`, if given."""
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_OURS or path.name.endswith(_CACHES) or path.name.startswith((".cov", ".hypo")):
            continue
        if path.is_dir():
            yield from files(path, suffix=suffix)
        elif path.name.endswith(suffix):
            yield path


def texts() -> Iterator[tuple[str, str]]:
    """Yield (path from the root, text) of every text file."""
    for path in files():
        if path.suffix not in _NOT_TEXT:
            yield name_of(path), path.read_text(encoding="utf-8")


def modules(folder: Path = SOURCE) -> Iterator[tuple[str, ast.Module]]:
    """Yield (path from the root, syntax tree) of every Python file."""
    for path in files(folder, suffix=".py"):
        yield name_of(path), ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))
