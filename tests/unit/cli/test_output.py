from __future__ import annotations

import io
import sys

import pytest

from heliostat.cli import output
from heliostat.cli.grid import Grid, Lines, cells


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


BLOCKS = [Grid("heading", ("name",), (cells("w1"),)), Lines("", cells(output.grid.Cell("bad", "red")))]
RED = "\x1b[31m"


@pytest.mark.usefixtures("plain_environment")
def test_colour_is_for_terminals_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for no_color in ("", "1"):
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("NO_COLOR", no_color)
        output.show(BLOCKS)
        seen[no_color] = stream.getvalue()
    assert RED in seen[""]
    assert RED not in seen["1"]
    assert "bad" in seen["1"]


@pytest.mark.usefixtures("plain_environment")
def test_a_pipe_and_a_dumb_terminal_get_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output.show(BLOCKS)
    assert capsys.readouterr().out == "heading\n  name\n  w1\n\nbad\n"
    monkeypatch.setenv("TERM", "dumb")
    assert not output.is_terminal(Terminal())


def test_progress_in_a_pipe_is_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress() as say:
        for text in ("a", "a", "b\x1b[2J"):
            say(text)
    assert capsys.readouterr().err == "a\nb [2J\n"


@pytest.mark.usefixtures("plain_environment")
@pytest.mark.parametrize(("keep", "lines"), [(True, 1), (False, 0)])
def test_a_terminal_keeps_lines_that_may_matter_later(
    monkeypatch: pytest.MonkeyPatch, keep: bool, lines: int
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with output.progress(keep=keep) as say:
        say("port 6379 is taken")
        say("port 6379 is taken")
    assert stream.getvalue().count("\x1b[2mport 6379 is taken") == lines
