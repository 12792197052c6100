"""Draw the architecture from what is there: the import contracts and the source tree.

Rows are the layers of the import contract in pyproject.toml; a box is a package that exists, with
the first sentence of its docstring and the third-party packages that it imports itself. So the
picture can't be out of date without a test failing (tests/unit/repo/test_architecture.py).

    python tools/architecture.py          write docs/architecture.svg
    python tools/architecture.py --check  exit 1 if it differs from what would be written
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
PACKAGE = "heliostat"

WIDTH = 1120
MARGIN = 24
ROW_HEIGHT = 96
ROW_GAP = 26
SIDE_WIDTH = 210
BOX_GAP = 14
CHARACTER = 6.1
LINE = 15


@dataclass(frozen=True)
class Box:
    """A package: its name, what it is for, and the third-party packages it imports itself."""

    name: str
    purpose: str
    uses: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Layers from the top down, packages beside them, and the rules as sentences."""

    layers: tuple[tuple[Box, ...], ...]
    beside: tuple[Box, ...]
    rules: tuple[str, ...]


def read(root: Path) -> Picture:
    """Return what is to be drawn for the project at `root`."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(one for one in contracts if one["type"] == "layers")
    source = root / "src" / PACKAGE
    rows = (_boxes(source, row.split("|")) for row in layers["layers"])
    return Picture(
        layers=tuple(row for row in rows if row),
        beside=_boxes(source, layers.get("exhaustive_ignores", [])),
        rules=tuple(one["name"] for one in contracts),
    )


def _boxes(source: Path, names: Sequence[str]) -> tuple[Box, ...]:
    # Brackets mark a layer that need not exist yet.
    folders = (source / name.strip(" ()") for name in names)
    return tuple(_box(folder) for folder in folders if folder.is_dir())


def _box(folder: Path) -> Box:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    docstring = ast.get_docstring(trees[folder / "__init__.py"]) or ""
    sentence = " ".join(docstring.split("\n\n")[0].split())
    return Box(folder.name, sentence, tuple(sorted(set().union(*map(_third_party, trees.values())))))


def _third_party(tree: ast.Module) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {PACKAGE}


def draw(picture: Picture) -> str:
    """Return the picture as SVG, the same text for the same picture."""
    rows_height = len(picture.layers) * (ROW_HEIGHT + ROW_GAP)
    top = 64
    rules_top = top + rows_height + 10
    height = rules_top + LINE * (len(picture.rules) + 2)
    side = SIDE_WIDTH + BOX_GAP if picture.beside else 0
    parts = [_opening(height), _text(MARGIN, 34, "Heliostat: imports point downwards", "title")]
    parts.append(_text(MARGIN, 52, "Packages of one row are blind to each other.", "note"))
    for index, row in enumerate(picture.layers):
        y = top + index * (ROW_HEIGHT + ROW_GAP)
        parts += _row(row, y=y, width=WIDTH - 2 * MARGIN - side)
        if index:
            parts.append(_arrow(MARGIN + (WIDTH - 2 * MARGIN - side) / 2, y - ROW_GAP, y))
    for index, box in enumerate(picture.beside):
        x, start = WIDTH - MARGIN - SIDE_WIDTH, top + index * 2 * (ROW_HEIGHT + ROW_GAP)
        tall = 2 * ROW_HEIGHT + ROW_GAP
        parts += _drawn(box, x=x, y=start, size=(SIDE_WIDTH, tall), style="alone")
    parts.append(_text(MARGIN, rules_top + LINE, "Checked on every change:", "name"))
    parts += [
        _text(MARGIN, rules_top + LINE * (index + 2), f"– {rule}", "note")
        for index, rule in enumerate(picture.rules)
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _opening(height: float) -> str:
    font = "font-family: system-ui, sans-serif"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">
<title>The layers of Heliostat</title>
<!-- Drawn by tools/architecture.py from pyproject.toml and src/. Do not edit: run `make picture`. -->
<style>
text {{ {font}; font-size: 12px; fill: #22313f }}
.title {{ font-size: 18px; font-weight: 600 }} .name {{ font-size: 14px; font-weight: 600 }}
.note {{ fill: #4f6272 }} .uses {{ fill: #8a5a00 }}
.box {{ fill: #eef5fb; stroke: #5b8db8 }} .alone {{ fill: #fff6e3; stroke: #c9923a; stroke-dasharray: 5 3 }}
.arrow {{ stroke: #5b8db8; stroke-width: 1.5; fill: #5b8db8 }}
</style>
<rect width="100%" height="100%" fill="#ffffff"/>"""


def _row(row: Sequence[Box], *, y: float, width: float) -> list[str]:
    each = (width - BOX_GAP * (len(row) - 1)) / len(row)
    drawn = (
        _drawn(box, x=MARGIN + index * (each + BOX_GAP), y=y, size=(each, ROW_HEIGHT), style="box")
        for index, box in enumerate(row)
    )
    return [part for parts in drawn for part in parts]


def _drawn(box: Box, *, x: float, y: float, size: tuple[float, float], style: str) -> list[str]:
    width, height = size
    fits = int((width - 20) / CHARACTER)
    lines = int((height - 46) / LINE)
    purpose = textwrap.wrap(box.purpose, fits, max_lines=max(lines, 1), placeholder=" …")
    uses = textwrap.shorten(f"imports {', '.join(box.uses)}", fits, placeholder=" …") if box.uses else ""
    corner = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6"'
    return [
        f'<rect class="{style}" {corner}/>',
        _text(x + 10, y + 20, box.name, "name"),
        *(_text(x + 10, y + 38 + LINE * index, line, "note") for index, line in enumerate(purpose)),
        *([_text(x + 10, y + height - 9, uses, "uses")] if uses else []),
    ]


def _arrow(x: float, top: float, bottom: float) -> str:
    tip = f"{x - 4:.0f},{bottom - 8:.0f} {x + 4:.0f},{bottom - 8:.0f} {x:.0f},{bottom - 1:.0f}"
    line = f'<line x1="{x:.0f}" y1="{top:.0f}" x2="{x:.0f}" y2="{bottom - 6:.0f}"/>'
    return f'<g class="arrow">{line}<polygon points="{tip}"/></g>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def main(arguments: Sequence[str]) -> int:
    """Write the picture, or check it; return the exit code."""
    text = draw(read(ROOT))
    if list(arguments) == ["--check"]:
        same = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == text
        print("the picture is true" if same else f"{PICTURE.name} is out of date: run `make picture`")
        return 0 if same else 1
    PICTURE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
