"""Each point on which the plug-in relies, held against the installed Ray."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from heliostat.launcher import rays_launcher
from heliostat.launcher.asked import Refused
from heliostat.launcher.rays_launcher import (
    HEAD_IS_UP,
    STOP_WORDS,
    asked,
    check_interface,
    drop_cached,
    head_tags,
    is_updaters_own,
    skeleton,
)
from heliostat.raylink.supported import NEWEST, OLDEST
from tests.unit.launcher.conftest import FILE

NEWER = "a newer one was not tested"
COMMANDS = Path(inspect.getfile(rays_launcher.RaysProvider)).parent / "_private" / "commands.py"


def test_the_installed_ray_has_the_interface() -> None:
    check_interface()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2.40.0", f"Refused Ray 2.40.0 is installed, and {OLDEST} to {NEWEST} are supported"),
        ("2.99.1", f"Ray 2.99.1 is installed, and {OLDEST} to {NEWEST} are supported: {NEWER}"),
    ],
)
def test_a_version_that_is_not_ours_is_told(version: str, said: str) -> None:
    code = (
        "import sys, ray\nray.__version__ = sys.argv[1]\n"
        "try:\n    from heliostat.launcher import rays_launcher\n    print(rays_launcher.NOTE)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, version], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == said


def test_a_launcher_that_calls_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {
        **rays_launcher._METHODS,
        "NodeProvider": (rays_launcher.RaysProvider, ("no_such", "is_running")),
    }
    monkeypatch.setattr(rays_launcher, "_METHODS", methods)
    monkeypatch.setattr(rays_launcher, "_RUN_PARAMETERS", ("cmd", "no_such"))
    both = r"without NodeProvider.no_such, CommandRunnerInterface.run\(no_such\)\): install 2\.\d+\.\d+ to"
    with pytest.raises(Refused, match=both):
        check_interface()


def test_rays_validator_takes_the_skeleton_and_wants_no_other_head() -> None:
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.util import hash_launch_conf, prepare_config, validate_config

    config = skeleton(prepare_config(yaml.safe_load(FILE)))
    validate_config(config)
    assert skeleton(config) == config
    head_type = config["head_node_type"]
    launch = hash_launch_conf(config["available_node_types"][head_type]["node_config"], config["auth"])

    class Head:
        def node_tags(self, node_id: str) -> dict[str, str]:
            return head_tags("demo")

    assert not commands._should_create_new_head("head", launch, head_type, Head())


def test_ray_is_content_with_the_command_that_starts_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    from ray.autoscaler._private.commands import warn_about_bad_start_command

    warn_about_bad_start_command([HEAD_IS_UP])
    assert capsys.readouterr().out == ""


def test_the_words_that_ray_appends_to_stop_are_known() -> None:
    text = COMMANDS.read_text()
    parts = re.search(r'cmd = "; "\.join\(\s*\[\s*cmd,(.+?)\]', text, re.DOTALL)
    assert parts is not None
    assert "".join(f"; {one}" for one in re.findall(r'"([^"]+)"', parts[1])) == STOP_WORDS


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("uptime", True),
        ("mkdir -p ~", True),
        (f"export RAY_NODE_TYPE_NAME=head; {HEAD_IS_UP}", True),
        ("pip install x", False),
        ("ray start --head", False),
        (None, False),
    ],
)
def test_what_the_updater_runs_by_itself(command: str | None, own: bool) -> None:
    assert is_updaters_own(command) is own


def test_a_cached_config_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    for name in ("ray-config-abc", "mine.yaml"):
        (tmp_path / name).touch()
        drop_cached({"_config_cache_path": str(tmp_path / name)})
        drop_cached({"_config_cache_path": str(tmp_path / name)})
    drop_cached({})
    assert [one.name for one in tmp_path.iterdir()] == ["mine.yaml"]


def test_only_rays_command_line_is_answered() -> None:
    with pytest.raises(Refused, match="in a program of your own run `heliostat up FILE --detach`"):
        asked()
    with click.Context(click.Command("status"), info_name="status"), pytest.raises(Refused):
        asked()


@pytest.mark.parametrize(
    ("name", "file", "command", "found"),
    [
        ("up", "a/b.yaml", "up", "a/b.yaml"),
        ("create_or_update", "b.yaml", "up", "b.yaml"),
        ("teardown", "b.yaml", "down", "b.yaml"),
        ("rsync_up", "b.yaml", "rsync-up", "b.yaml"),
        ("up", "https://example.org/x/b.yaml", "up", "b.yaml"),
    ],
)
def test_what_was_asked(name: str, file: str, command: str, found: str) -> None:
    context = click.Context(click.Command(name))
    context.params = {"cluster_config_file": file, "stop": True}
    with context:
        told = asked()
    assert (told.command, told.file, dict(told.options)) == (command, found, {"stop": True})


def test_ray_is_loaded_only_when_the_provider_is() -> None:
    code = (
        "import sys, heliostat.launcher\nprint('ray' in sys.modules, hasattr(heliostat.launcher, 'other'))\n"
        "print(heliostat.launcher.NodeProvider.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "False False\nNodeProvider\n"
