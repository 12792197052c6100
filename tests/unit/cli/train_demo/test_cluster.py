"""The demo's cluster: what is declared, what is real, and which worker is drained."""

from __future__ import annotations

import pytest

from heliostat.cli.preparing import load_spec
from heliostat.cli.train_demo import story
from tests.unit.api.fakes import instance, report


@pytest.mark.parametrize(
    ("has_gpus", "gpus", "cpus"), [(False, 4, 8), (True, "auto", "auto")], ids=["declared", "real"]
)
def test_gpus_are_declared_unless_there_are_enough(has_gpus: bool, gpus: object, cpus: object) -> None:
    spec = load_spec(story.FILE, story.overrides(has_gpus=has_gpus))
    assert spec.name == story.NAME
    assert [one.name for one in spec.policy.node_types] == [story.NODE_TYPE]
    assert spec.policy.node_types[0].max_workers == story.MEMBERS_MAX
    assert dict(spec.backends["local"]) == {"gpus": gpus, "cpus": cpus}


def test_the_newest_worker_that_runs_is_drained() -> None:
    workers = [
        instance("w1", since_s=40.0),
        instance("w2", since_s=30.0),
        instance("w3", since_s=10.0, state="draining"),
    ]
    assert story.newest(report(instances=workers)) == "w2"
