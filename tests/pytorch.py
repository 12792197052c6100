"""Tests that need PyTorch are marked `needed`: without it they are skipped with the reason, except in CI."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tools import torch_cpu


def why_missing() -> str | None:
    """Return None if PyTorch is here, or why set-up could not get it."""
    if importlib.util.find_spec("torch") is not None:
        return None
    reason = Path(sys.prefix) / torch_cpu.MISSING
    return reason.read_text(encoding="utf-8").strip() if reason.exists() else "PyTorch is not installed"


needed = pytest.mark.skipif(
    why_missing() is not None and os.environ.get("CI") != "true", reason=why_missing() or "PyTorch is here"
)
