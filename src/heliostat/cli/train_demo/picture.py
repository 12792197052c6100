"""The picture of one training: world size, throughput and loss over time. What it shows is pure; it is drawn
with matplotlib's Agg, which needs no display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.cli.train_demo.figures import Record

INCHES = (9.0, 7.0)
DPI = 110
SMOOTH_STEPS = 5
"""Throughput is drawn as the mean of so many steps: a single one of 0.1 s says little."""
COLOURS = {
    "size": "#4269d0",
    "samples_per_s": "#3ca951",
    "loss": "#ff725c",
    "join": "#3ca951",
    "leave": "#d62728",
}


@dataclass(frozen=True)
class Panel:
    """One curve: a point for each step, at its end."""

    key: str
    title: str
    times_s: tuple[float, ...]
    values: tuple[float, ...]
    steps: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line through all panels: a member that joined or left."""

    at_s: float
    kind: str
    text: str


def panels(record: Record) -> tuple[Panel, ...]:
    """Return what the picture shows, from top to bottom; times are seconds since the first step's end."""
    times_s = tuple(one.at_s - record.steps[0].at_s for one in record.steps)
    speeds = smooth([one.samples_per_s for one in record.steps], SMOOTH_STEPS)
    return (
        Panel("size", "members", times_s, tuple(float(one.size) for one in record.steps), steps=True),
        Panel("samples_per_s", "samples a second", times_s, speeds),
        Panel("loss", "loss", times_s, tuple(one.loss for one in record.steps)),
    )


def marks(record: Record) -> tuple[Mark, ...]:
    """Return the joins and leaves that fall into the training, the reason with each leave."""
    first_s = record.steps[0].at_s if record.steps else 0.0
    last_s = record.steps[-1].at_s if record.steps else 0.0
    return tuple(
        Mark(
            one.at_s - first_s,
            "join" if one.joined else "leave",
            "joined" if one.joined else f"left: {one.reason}",
        )
        for one in record.changes
        if first_s < one.at_s <= last_s
    )


def smooth(values: Sequence[float], width: int) -> tuple[float, ...]:
    """Return the mean of each value and up to `width - 1` before it."""
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return tuple(sum(one) / len(one) for one in windows)


def draw(record: Record, path: Path) -> None:
    """Write the picture as PNG; one that is there is replaced. Raises OSError if it can't be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    shown = panels(record)
    axes = figure.subplots(len(shown), 1, sharex=True)
    for axis, panel in zip(axes, shown, strict=True):
        _draw_panel(axis, panel)
        for mark in marks(record):
            axis.axvline(mark.at_s, color=COLOURS[mark.kind], linestyle=":", linewidth=1.2)
    for mark in marks(record):
        axes[0].annotate(
            mark.text,
            (mark.at_s, 0.15),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=90,
            fontsize=7,
            color=COLOURS[mark.kind],
            va="bottom",
        )
    axes[-1].set_xlabel("seconds")
    figure.suptitle("heliostat train-demo: one training while workers come and go")
    figure.savefig(path, format="png")


def _draw_panel(axis: Any, panel: Panel) -> None:
    style = "steps-pre" if panel.steps else "default"
    axis.plot(panel.times_s, panel.values, color=COLOURS[panel.key], drawstyle=style, linewidth=1.6)
    axis.set_ylabel(panel.title)
    axis.set_ylim(bottom=0)
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if panel.steps:
        axis.yaxis.get_major_locator().set_params(integer=True)
