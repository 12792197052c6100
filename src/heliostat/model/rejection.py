"""What a backend says of launches that it was asked for and did not accept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class About(Enum):
    """What a rejection speaks of: the node type alone, a limit that others may share, the backend itself."""

    TYPE = "type"
    LIMIT = "limit"
    BACKEND = "backend"


@dataclass(frozen=True)
class Rejection:
    """Why a launch was not accepted, in the backend's own words.

    `permanent`: it will never be accepted as it is. `retry_after_s`: the backend wants to be left
    alone for so long; None: it does not say.
    """

    text: str
    about: About = About.TYPE
    permanent: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came of one call in which a backend was asked for launches.

    `accepted` are node types of which all that was asked for was accepted, `rejections` maps the others to
    why some of it was not. `some`: anything at all was accepted. `seed` is a launch id of the call.
    """

    seed: str
    accepted: frozenset[str] = frozenset()
    rejections: Mapping[str, Rejection] = field(default_factory=dict)
    some: bool = False
