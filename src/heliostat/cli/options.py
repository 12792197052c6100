"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from heliostat.cli.durations import parse_duration

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
    _DictType = click.ParamType[dict[str, Any]]
else:
    # Older versions of click have no parameters for it.
    _FloatType = _DictType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

CLUSTER_VARIABLE = "HELIOSTAT_CLUSTER"


class Duration(_FloatType):
    """`90s`, `30m`, `1h30m`: seconds as a float."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


class JsonObject(_DictType):
    """A JSON object given as text, like `{"CPU": 1}`."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            parsed = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f"{value!r} is no JSON object; write something like '{{\"CPU\": 1}}'", param, ctx)
        return parsed


JSON_OBJECT = JsonObject()


def cluster_argument(function: F) -> F:
    """Add the optional CLUSTER: a name or a cluster file."""
    return click.argument("cluster", required=False, envvar=CLUSTER_VARIABLE)(function)


def cluster_option(function: F) -> F:
    """Add `--cluster`, for commands whose argument is something else."""
    return click.option(
        "-c",
        "--cluster",
        envvar=CLUSTER_VARIABLE,
        help="A cluster's name or file; not needed when only one runs here.",
    )(function)


def override_options(function: F) -> F:
    """Add `--name` and `--max-workers`, which are laid over the file; `overrides` reads them."""
    limited = click.option(
        "--max-workers", type=click.IntRange(0), help="Workers at most, in place of the file's."
    )
    return limited(click.option("--name", help="The cluster's name, in place of the file's.")(function))


def overrides(*, name: str | None, max_workers: int | None) -> dict[str, Any]:
    """Return what was given of them, under the file's own keys."""
    given = {"cluster_name": name, "max_workers": max_workers}
    return {key: value for key, value in given.items() if value is not None}


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
