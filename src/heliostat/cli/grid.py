"""What a command shows, as data: lines and tables, drawn in plain text or with rich.

Both drawings hold the same words. Text from outside (log lines, a backend's words) loses
its control characters here, so that it can't play with a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

GAP = "  "


@dataclass(frozen=True)
class Cell:
    """One field of a table. `style` is rich's word for a colour, for terminals only."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Grid:
    """A table with a heading; `right` are the columns with numbers."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lines:
    """A heading and lines below it; without a heading the lines stand alone."""

    heading: str
    lines: tuple[Cell, ...] = field(default_factory=tuple)


Block = Grid | Lines


def clean(text: str) -> str:
    """Return `text` on one line without control characters; blanks in front stay, as indentation."""
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


def cells(*texts: str | Cell) -> tuple[Cell, ...]:
    """Return a row; plain strings become cells without a colour."""
    return tuple(Cell(one.text if isinstance(one, Cell) else one, _style(one)) for one in texts)


def _style(one: str | Cell) -> str:
    return one.style if isinstance(one, Cell) else ""


def plain(blocks: Sequence[Block]) -> str:
    """Draw the blocks as plain text, columns aligned, an empty line between blocks."""
    return "\n\n".join("\n".join(_plain_block(one)) for one in blocks)


def _plain_block(block: Block) -> list[str]:
    if isinstance(block, Grid):
        return _plain_grid(block)
    if not block.heading:
        return [clean(one.text) for one in block.lines]
    return [block.heading, *(GAP + clean(one.text) for one in block.lines)]


def _plain_grid(grid: Grid) -> list[str]:
    rows = [grid.columns, *(tuple(clean(cell.text) for cell in row) for row in grid.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(grid.columns))]
    drawn = [
        GAP.join(
            text.rjust(width) if name in grid.right else text.ljust(width)
            for text, width, name in zip(row, widths, grid.columns, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [grid.heading, *(GAP + line for line in drawn)] if grid.heading else drawn


def rich(blocks: Sequence[Block]) -> RenderableType:
    """Draw the blocks for a terminal. Texts are taken as they are, never as markup."""
    from rich.console import Group
    from rich.text import Text

    drawn: list[RenderableType] = []
    for index, block in enumerate(blocks):
        if index:
            drawn.append(Text(""))
        if block.heading:
            drawn.append(Text(block.heading, style="bold"))
        drawn.append(_rich_grid(block) if isinstance(block, Grid) else _rich_lines(block))
    return Group(*drawn)


def _rich_grid(grid: Grid) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in grid.columns:
        justify = "right" if name in grid.right else "left"
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in grid.rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def _rich_lines(lines: Lines) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding

    group = Group(*(_text(one) for one in lines.lines))
    return Padding(group, (0, 0, 0, 2)) if lines.heading else group


def _text(cell: Cell) -> Text:
    from rich.text import Text

    return Text(clean(cell.text), style=cell.style)
