"""Every registered provider can be made, and runs the conformance kit, also those of tests."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from heliostat.ports import provider as ports
from tests.unit.repo import tree

REGISTERED: dict[str, str] = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["entry-points"]["heliostat.providers"]
KIT = "ProviderConformance"
FAKES = {
    "fake": "heliostat.testing.fake:FakeProvider",
    "simulated batch system": "heliostat.sim.world.batch_provider:BatchProvider",
    "simulated cloud": "heliostat.sim.world.cloud_provider:CloudProvider",
}
"""What tests of the loop and the simulator trust instead of a backend keeps the same contract."""


def under_the_kit(module: ast.Module) -> Iterator[ast.ClassDef]:
    """Yield the classes that pytest collects (`Test…`) and that have the kit as a base, if through others."""
    kits = {KIT}
    for one in module.body:
        if isinstance(one, ast.ClassDef) and not kits.isdisjoint(
            ast.unparse(base).rpartition(".")[2] for base in one.bases
        ):
            kits.add(one.name)
            if one.name.startswith("Test"):
                yield one


def modules_under_the_kit(text: str) -> set[str]:
    """Return the modules that a test file imports, if it holds a conformance class; else nothing."""
    module = ast.parse(text)
    if not any(under_the_kit(module)):
        return set()
    froms = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and node.module]
    plain = [node for node in ast.walk(module) if isinstance(node, ast.Import)]
    names = {node.module or "" for node in froms}
    names |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    return names | {alias.name for node in plain for alias in node.names}


def covered(entry: str, files: list[Path]) -> bool:
    target = entry.partition(":")[0]
    imported = set().union(*(modules_under_the_kit(path.read_text(encoding="utf-8")) for path in files))
    return any(name == target or name.startswith(f"{target}.") for name in imported)


@pytest.mark.parametrize("name", sorted(REGISTERED | FAKES))
def test_every_provider_runs_the_conformance_kit(name: str) -> None:
    assert covered((REGISTERED | FAKES)[name], list(tree.files(tree.ROOT / "tests", suffix=".py")))


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_registered_provider_can_be_loaded(name: str) -> None:
    installed = entry_points(group="heliostat.providers", name=name)
    assert [entry.value for entry in installed] == [REGISTERED[name]]
    assert all(callable(entry.load()) for entry in installed)


def test_a_provider_without_the_kit_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("from heliostat.providers.new import create\nclass TestNew: ...\n")
    assert not covered("heliostat.providers.new:create", [file])
    file.write_text(f"from heliostat.providers.new import create\nclass TestNew(kit.{KIT}): ...\n")
    assert covered("heliostat.providers.new:create", [file])
    assert not covered("heliostat.providers.newer:create", [file])
    file.write_text(f"from heliostat.providers.new import create\nclass New({KIT}): ...\n")
    assert not covered("heliostat.providers.new:create", [file]), "pytest does not collect it"
    file.write_text(
        f"from heliostat.providers.new import create\nclass New({KIT}): ...\nclass TestNew(New): ...\n"
    )
    assert covered("heliostat.providers.new:create", [file])


def test_each_optional_protocol_is_in_the_guides() -> None:
    optional = {
        name
        for name, one in vars(ports).items()
        if isinstance(one, type) and (one.__doc__ or "").startswith("Optional:")
    }
    assert optional >= {"Diagnose", "Probe"}
    for guide in ("docs/adding-a-provider.md", "CONTRIBUTING.md"):
        text = (tree.ROOT / guide).read_text(encoding="utf-8")
        assert {name for name in optional if f"`{name}`" not in text} == set(), guide
