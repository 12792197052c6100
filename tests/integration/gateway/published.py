"""A module as an owner writes it: its functions are published by the tests."""

from __future__ import annotations

import os
import time

import numpy as np

__all__ = ["fails", "long", "mean"]
NEEDS = {"mean": {"cpus": 1, "timeout_s": 60}}


def mean(image: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """Return the mean along an axis."""
    return image.mean(axis=axis)


def fails(path: str) -> None:
    """Raise what an owner's own code may raise."""
    raise FileNotFoundError(f"no model in {os.path.join('/home/ada/models', path)}")


def long(seconds: float) -> str:
    """Take so long."""
    time.sleep(seconds)
    return "done"
