"""It imports in an image that has Ray and nothing else, or not even that."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import heliostat
from tests.unit.repo.test_contracts import foreign_imports

FOLDER = Path(heliostat.__file__).parent / "train"
TIMEOUT_S = 30

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or name == "heliostat" or name.startswith("heliostat.train"):
            return None
        raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Wall())
import heliostat.train
from heliostat.train import ElasticGroup, Roles

strangers = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(name for name in strangers if not name.startswith("_") and name != "heliostat"))
try:
    ElasticGroup(dict, bundle={"CPU": 1}, min_size=1, max_size=1)
except ImportError as error:
    print(error)
"""


def test_it_imports_with_everything_else_blocked() -> None:
    # -S: no site-packages, not even by way of .pth files; -E: none by the environment.
    source = str(FOLDER.parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {source!r})\n{BLOCKED}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "ray is not installed"]


def test_one_module_imports_ray_and_none_anything_else() -> None:
    found = {
        path.name: sorted(set(foreign_imports(ast.parse(path.read_text()), own="heliostat.train")))
        for path in FOLDER.glob("*.py")
    }
    assert {name.partition(".")[0] for name in found.pop("ray_cluster.py")} == {"ray"}
    assert {name: names for name, names in found.items() if names} == {}
