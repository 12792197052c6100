"""Tests that need PyTorch: without it they are skipped with the reason, except in CI, where they fail."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import torch_cpu


def why_missing() -> str | None:
    """Return None if PyTorch is here, or why set-up could not get it."""
    if importlib.util.find_spec("torch") is not None:
        return None
    reason = Path(sys.prefix) / torch_cpu.MISSING
    return reason.read_text(encoding="utf-8").strip() if reason.exists() else "PyTorch is not installed"


def imported(name: str) -> Any:
    """Import a module that needs PyTorch; without it, skip the test module that asks for it."""
    why = why_missing()
    if why is not None and os.environ.get("CI") != "true":
        pytest.skip(why, allow_module_level=True)
    return importlib.import_module(name)
