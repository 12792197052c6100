"""The import contracts of pyproject.toml break when they are broken.

A contract that a typing error made empty would hold for ever. So a small copy of the package, with
one forbidden import in each file, is checked with the same contracts.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.unit.repo import tree

CONTRACTS = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
]
CHECK_TIMEOUT_S = 50

# Contract, the package that breaks it, and the module that it may not import.
VIOLATIONS = [
    ("layers", "model", "heliostat.ports"),
    ("layers", "ports", "heliostat.planner"),
    ("layers", "planner", "heliostat.config"),
    ("layers", "planner", "heliostat.control"),
    ("layers", "journal", "heliostat.raylink"),
    ("layers", "providers", "heliostat.config"),
    ("layers", "raylink", "heliostat.journal"),
    ("layers", "control", "heliostat.api"),
    ("layers", "api", "heliostat.cli"),
    ("layers", "testing", "heliostat.cli"),
    ("layers", "sim", "heliostat.cli"),
    ("layers", "launcher", "heliostat.cli"),
    ("layers", "control", "heliostat.sim"),
    *[("pure", "model", name) for name in ("ray", "asyncio", "time", "random", "os", "logging")],
    *[("pure", "ports", name) for name in ("ray", "asyncio", "time", "random", "os", "logging")],
    *[
        ("pure", "planner", name)
        for name in ("ray", "asyncio", "time", "random", "os", "logging", "pydantic")
    ],
    *[
        ("ray", package, name)
        for package in ("control", "providers", "journal", "config", "api", "testing", "sim")
        for name in ("ray", "grpc")
    ],
    *[("gateway-hypha", package, "hypha_rpc") for package in ("control", "gateway", "cli")],
    ("testing", "testing", "heliostat.raylink"),
    *[("sim", "sim", name) for name in ("heliostat.raylink", "time", "socket", "subprocess", "threading")],
    ("edges", "control", "rich"),
    ("edges", "sim", "click"),
    ("edges", "providers", "starlette"),
    ("values", "control", "pydantic"),
    *[("gateway-rules", "gateway.rules", name) for name in ("ray", "hypha_rpc", "heliostat.api")],
    ("node", "node", "heliostat.model"),
    ("node", "node", "heliostat.cli"),
    ("node", "node", "structlog"),
    ("node", "node", "grpc"),
    ("node-unseen", "raylink", "heliostat.node"),
    *[("train", "train", name) for name in ("heliostat.model", "heliostat.cli", "numpy", "torch", "click")],
    ("train-ray", "train", "ray"),
    ("train-unseen", "control", "heliostat.train"),
    ("providers", "providers.one", "heliostat.providers.two"),
    *[("gateway-carried", "gateway.work.keeper", name) for name in ("heliostat.model", "ray", "pydantic")],
    *[("gateway-ray", "gateway", name) for name in ("ray", "heliostat.raylink")],
    ("gateway-process", "gateway.work.workplace", "heliostat.gateway.work.driver"),
]


def checked(folder: Path) -> str:
    """Return what lint-imports says of the package in `folder`, with the project's own contracts."""
    env = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    config = ["--config", str(tree.ROOT / "pyproject.toml"), "--no-logo", "--no-cache"]
    command = [str(Path(sys.executable).parent / "lint-imports"), *config]
    done = subprocess.run(
        command, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def named() -> set[str]:
    """Return the folders of single modules that contracts name, and of those above them."""
    keys = ("source_modules", "forbidden_modules")
    names = {name for contract in CONTRACTS for key in keys for name in contract.get(key, ())}
    ours = [Path(*name.split(".")[1:]) for name in names if name.startswith("heliostat.")]
    return {str(one) for path in ours for one in (path, *path.parents)}


def skeleton(folder: Path) -> Path:
    """Make a package with the same folders and nothing in them, two providers, and what contracts name."""
    packages = [path.name for path in tree.SOURCE.iterdir() if (path / "__init__.py").exists()]
    for name in ("", *packages, "providers/one", "providers/two", *named()):
        (folder / "heliostat" / name).mkdir(parents=True, exist_ok=True)
        (folder / "heliostat" / name / "__init__.py").touch()
    return folder


def sections(report: str) -> dict[str, str]:
    """Return each broken contract's part of the report, by the contract's name."""
    broken = report.partition("Broken contracts")[2]
    parts = re.split(r"^(.+)\n-{3,}\n", broken, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = skeleton(tmp_path_factory.mktemp("broken"))
    for index, (_, package, name) in enumerate(VIOLATIONS):
        file = folder / "heliostat" / package.replace(".", "/") / f"breach_{index}.py"
        file.write_text(f"def late() -> None:\n    import {name}\n")
    return sections(checked(folder))


@pytest.mark.parametrize(("index", "violation"), list(enumerate(VIOLATIONS)), ids=str)
def test_contract_breaks(broken: dict[str, str], index: int, violation: tuple[str, str, str]) -> None:
    contract, package, name = violation
    title = next(one["name"] for one in CONTRACTS if one["id"] == contract)
    assert f"heliostat.{package}.breach_{index} -> {name} " in broken[title]


def test_every_contract_is_tried() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == {one["id"] for one in CONTRACTS}


def test_nothing_is_broken_without_a_breach(tmp_path: Path) -> None:
    assert "0 broken" in checked(skeleton(tmp_path))


def test_a_package_without_a_place_is_seen(tmp_path: Path) -> None:
    shutil.copytree(skeleton(tmp_path) / "heliostat" / "api", tmp_path / "heliostat" / "newcomer")
    report = checked(tmp_path)
    assert "heliostat.newcomer" in report
    assert "0 broken" not in report


def foreign_imports(module: ast.Module, *, own: str) -> list[str]:
    """Return what is imported beyond the standard library; Ray may be, inside functions only."""
    late = {
        inner
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        allowed = sys.stdlib_module_names | ({"ray"} if node in late else set())
        found += [
            name for name in names if name.partition(".")[0] not in allowed and not name.startswith(own)
        ]
    return found


def test_the_bootstrap_needs_the_standard_library_only() -> None:
    modules = tree.modules(tree.SOURCE / "node")
    assert {
        name: found for name, module in modules if (found := foreign_imports(module, own="heliostat.node"))
    } == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os, json.decoder", []),
        ("def start():\n    from ray._private import worker", []),
        ("import ray", ["ray"]),
        ("from ray import util", ["ray"]),
        ("def start():\n    import yaml", ["yaml"]),
        ("from heliostat.model import plan", ["heliostat.model"]),
    ],
)
def test_foreign_imports_are_seen(text: str, found: list[str]) -> None:
    assert foreign_imports(ast.parse(text), own="heliostat.node") == found
