"""A successor that waits becomes the cluster when there is no other: nobody starts a second head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli.clusters import pick, root
from heliostat.cli.successor import SuccessorPlaces, present_record
from heliostat.config.places import StatePlaces, state_places
from heliostat.config.record import ClusterRecord, HeadJob, write_record

PRESENT = ClusterRecord(
    cluster_name="demo",
    cluster_uid="uid-1",
    owner="ada",
    created_at_s=0.0,
    source="/home/ada/cluster.yaml",
    host="node1",
    runtime_dir="/run/ada",
    token_path="/home/ada/token",
    ray_version="2.60.0",
    python_version="3.11",
    job=HeadJob("17", "/home/ada/head.log"),
)
NEXT = replace(PRESENT, cluster_uid="uid-2", host="", job=HeadJob("18", "/home/ada/head.log"))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatePlaces:
    monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(tmp_path))
    found = state_places(root(), "demo")
    found.folder.mkdir(parents=True)
    write_record(SuccessorPlaces(found.folder).record, NEXT)
    SuccessorPlaces(found.folder).config.write_text("cluster_name: demo\nmax_workers: 2\n")
    return found


def test_as_long_as_the_present_one_is_there_it_is_the_cluster(places: StatePlaces) -> None:
    write_record(places.record, PRESENT)
    assert present_record(places) == PRESENT
    assert SuccessorPlaces(places.folder).record.exists()


def test_without_one_the_successor_is_the_cluster_with_its_own_file(places: StatePlaces) -> None:
    places.config.write_text("cluster_name: demo\nmax_workers: 1\n")
    assert present_record(places) == NEXT
    assert "max_workers: 2" in places.config.read_text()
    assert not SuccessorPlaces(places.folder).record.exists()
    assert present_record(places) == NEXT


def test_it_can_be_named_where_the_last_one_has_gone(places: StatePlaces) -> None:
    assert pick("demo") == NEXT


def test_what_was_cut_off_half_way_is_finished(places: StatePlaces) -> None:
    after = SuccessorPlaces(places.folder)
    after.config.replace(places.config)
    assert present_record(places) == NEXT
    assert "max_workers: 2" in places.config.read_text()


def test_neither_is_none(places: StatePlaces) -> None:
    SuccessorPlaces(places.folder).remove()
    assert present_record(places) is None
