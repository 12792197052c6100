"""Every key has words: what is allowed in an error, and its place in the docs and the full example."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from heliostat.config.errors import KeyPath, did_you_mean, found
from heliostat.config.gateway_schema import MODELS as GATEWAY
from heliostat.config.schema import (
    ALLOWED,
    AuthModel,
    ClusterModel,
    GcsStorageModel,
    NodeConfig,
    NodeTypeModel,
    ProviderModel,
    pattern,
)

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "cluster-file.md"

MODELS: dict[KeyPath, type[BaseModel]] = {
    (): ClusterModel,
    ("provider",): ProviderModel,
    ("provider", "gcs_storage"): GcsStorageModel,
    **GATEWAY,
    ("auth",): AuthModel,
    ("available_node_types", "*"): NodeTypeModel,
    ("available_node_types", "*", "node_config"): NodeConfig,
}


def _keys() -> Iterator[KeyPath]:
    for root, model in MODELS.items():
        yield from ((*root, name) for name in model.model_fields)


@pytest.mark.parametrize("key", list(_keys()), ids=lambda key: ".".join(map(str, key)))
def test_every_key_has_words_and_is_documented(key: KeyPath) -> None:
    assert key in ALLOWED
    assert f"`{key[-1]}`" in DOCS.read_text(encoding="utf-8")


def test_the_full_example_shows_every_key() -> None:
    text = (ROOT / "examples" / "full.yaml").read_text(encoding="utf-8")
    missing = [key for key in _keys() if f"{key[-1]}:" not in text and key[0] != "no_restart"]
    assert missing == []


def test_patterns_replace_names_that_users_choose() -> None:
    assert pattern(("available_node_types", "gpu", "resources", "CPU")) == (
        "available_node_types",
        "*",
        "resources",
        "*",
    )
    assert pattern(("provider", "backends", "local")) == ("provider", "backends", "*")
    assert pattern(("provider", "max_surge")) == ("provider", "max_surge")
    assert pattern(("file_mounts", "/data")) == ("file_mounts", "*")
    allow = ("provider", "gateway", "allow")
    assert pattern((*allow, 2, "people", 0)) == (*allow, "*", "people", "*")
    assert pattern(()) == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing (null)"),
        (True, "true"),
        (1.5, "1.5"),
        ("é", '"é"'),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
        ([], "an empty list"),
        ([1], "a list"),
        ("x" * 100, '"' + "x" * 58 + "…"),
    ],
)
def test_values_in_words(value: object, expected: str) -> None:
    assert found(value) == expected


def test_near_names() -> None:
    assert did_you_mean("Max_Worker", ["max_workers", "metadata"]) == " (did you mean max_workers?)"
    assert did_you_mean("colour", ["max_workers"]) == ""


def test_the_training_example_learns_the_same_whatever_the_number_of_workers() -> None:
    spec = importlib.util.spec_from_file_location("train_gpus", ROOT / "examples" / "train_gpus.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["train_gpus"] = train
    try:
        spec.loader.exec_module(train)
        whole = train.gradient((0.0, 0.0), 0, world=1)
        parts = [train.gradient((0.0, 0.0), rank, world=3) for rank in range(3)]
    finally:
        del sys.modules["train_gpus"]
    assert sum(part.points for part in parts) == whole.points == train.POINTS
    for name in ("slope", "offset", "error"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name))
