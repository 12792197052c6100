"""Of several hosts that start one cluster in the same second one gets through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli.clusters import places_of
from heliostat.cli.preparing import claimed
from heliostat.config.record import ClusterRecord, read_record
from heliostat.ports.errors import HeliostatError


def test_the_first_has_it_and_the_second_says_who(cluster: ClusterRecord, state: Path) -> None:
    places = places_of(cluster)
    places.record.unlink()
    mine, others = replace(cluster, cluster_uid="mine"), replace(cluster, owner="bob@login2")
    with claimed(places.record, others):
        places.config.write_text("bob's")
    refused = pytest.raises(HeliostatError, match="bob@login2 has just started demo: `heliostat status demo`")
    with refused, claimed(places.record, mine):
        places.config.write_text("mine")
    assert read_record(places.record) == others
    assert places.config.read_text() == "bob's"


def test_what_fails_then_leaves_no_record(cluster: ClusterRecord) -> None:
    places = places_of(cluster)
    places.record.unlink()
    with pytest.raises(KeyboardInterrupt), claimed(places.record, cluster):
        raise KeyboardInterrupt
    assert read_record(places.record) is None
