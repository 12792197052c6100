"""Ray Train, elastic, on our cluster: it gets the workers it asks for, and hears of drains in time."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests import pytorch
from tests.integration.cluster.conftest import CLUSTER, cluster, until
from tests.integration.train.driving import driving

example: Any = pytorch.imported("examples.elastic_ray_train")
drivers: Any = pytorch.imported("tests.integration.train.ray_train_driver")

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(600)]

COME_S = 180.0
END_S = 300.0
NOTICE = "30s"
WATCHED = hasattr(example.ray.train, "get_preemption_info")


def latest(storage: Path) -> Any:
    """Return the progress in the newest checkpoint; None while there is no whole one."""
    files = sorted(storage.rglob(example.FILE), key=lambda path: path.stat().st_mtime)
    try:
        return example.Progress(**example.torch.load(files[-1], weights_only=True)["progress"])
    except (IndexError, OSError, RuntimeError, EOFError):
        return None


def on_three(storage: Path) -> bool | None:
    progress = latest(storage)
    return True if progress is not None and progress.sizes[-1] == 3 else None


def test_it_grows_is_told_of_a_drain_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    text = CLUSTER.format(name=f"train-{os.getpid()}", workers=3, idle_timeout_s=60, orphan_timeout_s=60)
    storage = tmp_path / "runs"
    with cluster(tmp_path, text, workers=1) as found:
        until(lambda: found.running() or None, "a worker", COME_S)
        found.command("pause")
        with driving(found, "ray_train_driver", str(storage), folder=tmp_path) as driver:
            until(lambda: latest(storage), "a first checkpoint, of one worker", COME_S)
            found.command("pause", "--off")
            until(lambda: on_three(storage), "three workers that train", COME_S)
            found.command("remove", found.running()[0], "--deadline", NOTICE)
            # There is room for three, so nothing comes before it has gone, and then nothing is launched:
            # the training goes on with two.
            found.command("pause")
            outcome = driver.outcome(END_S)
    told = {name: outcome[name] for name in ("starts", "announced", "accuracy")}
    print(told, outcome["sizes"][-1])
    sizes = [size for size, _ in groupby(outcome["sizes"])]
    assert sizes[:2] == [1, 3]
    assert sizes == [1, 3, 2] or not WATCHED
    # One start for the growth, one for the drain, each with what was learned before. A Ray without the
    # watcher hears of the drain by the node's end, which may come after the last step.
    assert len(outcome["starts"]) >= (3 if WATCHED else 2)
    assert outcome["starts"] == sorted(outcome["starts"])
    assert outcome["starts"][1] > 0
    assert len(outcome["losses"]) == drivers.CONFIG.steps
    if WATCHED:
        assert outcome["announced"], "no checkpoint was written because of the drain"
    assert outcome["losses"][-1] < 0.2 < 2.0 < outcome["losses"][0]
