"""Loaders for pieces of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heliostat.config.cluster_file import load_cluster_file
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import ConfigError
from tests.unit.config.files import INSTALLED, Load, Problems


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def from_text(text: str, **options: Any) -> ClusterSpec:
        path = tmp_path / "cluster.yaml"
        path.write_text(text, encoding="utf-8")
        return load_cluster_file(path, **{"backends": INSTALLED, **options})

    return from_text


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    def of(text: str, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **options)
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]

    return of
