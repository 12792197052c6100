"""The lock file: complete, and bound to no registry."""

from __future__ import annotations

import tomllib

import pytest

from tests.unit.repo import tree
from tools import environment, neutral_lock, nightly

LOCK = (tree.ROOT / "uv.lock").read_text(encoding="utf-8")


def test_lock_names_no_registry() -> None:
    assert neutral_lock.strangers(LOCK) == []


def test_lock_still_has_its_hashes() -> None:
    packages = [one for one in tomllib.loads(LOCK)["package"] if "registry" in one["source"]]
    files = [file for one in packages for file in [*one.get("wheels", ()), *filter(None, [one.get("sdist")])]]
    assert len(packages) > 50
    assert all(file["hash"].startswith("sha256:") for file in files)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            'source = { registry = "https://index.example/simple" }',
            'source = { registry = "https://package-index.invalid/simple" }',
        ),
        (
            '{ url = "http://files.example:8080/ab/x-1.whl", hash = "sha256:12" }',
            '{ url = "https://package-index.invalid/ab/x-1.whl", hash = "sha256:12" }',
        ),
        ('name = "registry"', 'name = "registry"'),
    ],
)
def test_addresses_are_replaced_and_nothing_else(given: str, wanted: str) -> None:
    assert neutral_lock.neutral(given) == wanted
    assert neutral_lock.neutral(wanted) == wanted
    assert neutral_lock.strangers(wanted) == []


def test_a_strange_address_is_seen() -> None:
    text = 'a = "https://index.example/simple"\nb = "https://package-index.invalid/x"\n'
    assert neutral_lock.strangers(text) == ["https://index.example"]


def test_what_installs_the_rest_is_locked_too() -> None:
    text = environment.locked_requirement("uv")
    assert text.startswith("uv==")
    assert text.count("--hash=sha256:") > 5
    names = {one["name"] for one in tomllib.loads(LOCK)["package"]}
    assert {"hatchling", "editables"} <= names


def test_ray_versions_agree_with_the_lock_and_the_lower_bound() -> None:
    versions = nightly.ray_versions()
    locked = next(one["version"] for one in tomllib.loads(LOCK)["package"] if one["name"] == "ray")
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bound = next(one for one in project["dependencies"] if one.startswith("ray[")).partition(">=")[2]
    assert versions == sorted(versions, key=lambda one: tuple(map(int, one.split("."))))
    assert versions[-1] == locked
    assert versions[0].startswith(f"{bound}.")


def test_another_ray_takes_the_place_of_the_locked_one() -> None:
    locked = "raylike==1.0\nray==2.60.0 ; python_version < '4'\nrich==15.0.0\n"
    assert nightly.with_ray(locked, "2.56.1").splitlines()[1].startswith("ray[default]==2.56.1")
    assert "raylike==1.0\n" in nightly.with_ray(locked, "2.56.1")
