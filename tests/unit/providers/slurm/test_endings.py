"""What Slurm refuses of one ending keeps no other from happening."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from heliostat.ports.errors import AuthenticationFailed, ProviderError, Unavailable
from heliostat.providers.slurm.endings import Endings
from heliostat.providers.slurm.members import members_of
from heliostat.providers.slurm.stopping import Order
from tests.unit.providers.slurm.jobs_for_tests import task

OTHERS = Order(("scancel", "99"), ())


def ended(folder: Path, error: ProviderError) -> tuple[list[str], ProviderError]:
    """Return what is asked of Slurm where it answers to job 99 with `error`, and what comes of that."""
    said: list[str] = []

    async def command(words: Sequence[str]) -> str:
        said.append(" ".join(words))
        if words == OTHERS.command:
            raise error
        return ""

    endings = Endings(folder, command, lambda: 100.0)
    endings.ask(["l1.1"])
    with pytest.raises(ProviderError) as raised:
        asyncio.run(endings.carry_out(members_of([task(1)]), also=[OTHERS]))
    return said, raised.value


def test_a_refusal_keeps_no_other_from_ending(tmp_path: Path) -> None:
    refused = AuthenticationFailed("scancel: Access/permission denied")
    assert ended(tmp_path, refused) == (["scancel 99", "scancel --signal=TERM --batch 46_1"], refused)


def test_a_slurm_that_does_not_answer_is_not_asked_for_more(tmp_path: Path) -> None:
    silent = Unavailable("slurmctld is down")
    assert ended(tmp_path, silent) == (["scancel 99"], silent)
