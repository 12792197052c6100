"""One thing that is ours and astray, or may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`kind` is a word (`process`, `job`, `folder`, `record`, …), `what` names the thing, `why` says why it
    is taken to be astray.

    `fix` cleans it up, or raises HeliostatError or OSError; None where it is not for certain ours, or not
    for certain astray: then it is only told, and `hint` says what a person may do. `items` names each part
    where `what` sums them up.
    """

    kind: str
    cluster: str
    what: str
    why: str
    fix: Callable[[], None] | None = None
    hint: str = ""
    items: tuple[str, ...] = ()
