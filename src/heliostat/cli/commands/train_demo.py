"""`heliostat train-demo`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from heliostat.cli.options import json_option
from heliostat.cli.output import tell

STEPS, STEPS_AUTO = 400, 160
NEEDED = {"torch": "torch", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
"""What is imported, and what it is called where packages come from: the extra `train`."""
BAD_INPUT_CODE = 2


@click.command("train-demo", short_help="Training here that grows and shrinks with its cluster.")
@click.option("--auto", is_flag=True, help="Do the second terminal's part, too: add two workers, drain one.")
@click.option(
    "--steps",
    type=click.IntRange(8, 100_000),
    help=f"Steps to train, at least.  [default: {STEPS}; with --auto {STEPS_AUTO}]",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("train-demo.png"),
    show_default=True,
    help="Where the picture goes.",
)
@json_option
def command(*, auto: bool, steps: int | None, picture: Path, as_json: bool) -> None:
    """Train a small PyTorch network on a real Ray cluster here while workers come and go.

    It starts with one worker. `heliostat add gpu --cluster train-demo` in a second terminal makes
    it grow during training, and `heliostat remove w1 --deadline 30s` lets one go; --auto does both
    by itself. Each step is shown with its members, throughput and loss. At the end there is a
    picture of them over time, and the same training once more with one member, to compare.

    GPUs are declared, so none is needed: where this machine has three or more, those are used.
    A part of a step takes at least 50 ms, as one of a network that keeps a GPU busy would.
    It needs the extra `train`. The exit code is 0 only if no step was lost and nothing was left running.

    \b
    Examples:
      heliostat train-demo
      heliostat train-demo --auto --picture training.png
    """
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        tell(f"heliostat: train-demo needs {', '.join(missing)}: pip install 'heliostat[train]'")
        sys.exit(BAD_INPUT_CODE)
    if not picture.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {picture.absolute().parent}", param_hint="--picture")
    from heliostat.cli.train_demo import Wishes, run

    wanted = steps or (STEPS_AUTO if auto else STEPS)
    sys.exit(run(Wishes(auto=auto, steps=wanted, picture=picture, as_json=as_json)))
