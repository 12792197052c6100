"""Jobs whose tag the site took away: known by the id that sbatch gave, cancelled, and told as failed. Pure.

A job_submit plug-in may change a job's comment, and its name. One of the two is enough for us; of a
job that has neither only the id is known, and only to whoever called sbatch. It would be asked for
again and again, so it goes, and no more of its type are submitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from heliostat.model.instance import BackendInstance, BackendState
from heliostat.providers.slurm.jobs import Listing
from heliostat.providers.slurm.tags import Tag

FRESH_AT_MOST = 1000
"""So many jobs are remembered until a listing has them, which the next one does."""

WHY = (
    "this site changes the name and the comment of a job (by a job_submit plug-in?), by which "
    "Heliostat knows its jobs: ask for one of the two to be left as it is"
)


class Untagged:
    """`fresh` are jobs that no listing has had yet, `stray` those that have lost their tag and live."""

    def __init__(self) -> None:
        self.fresh: dict[int, Tag] = {}
        self.stray: dict[int, Tag] = {}
        self._rows: dict[str, BackendInstance] = {}
        self._types: set[str] = set()

    def took(self, jobs: Mapping[int, Tag]) -> None:
        """Take in what sbatch has just returned."""
        self.fresh |= jobs
        self.fresh = dict(list(self.fresh.items())[-FRESH_AT_MOST:])

    def saw(self, listing: Listing) -> None:
        """Take in a listing: what has lost its tag is to be cancelled (`stray`), and has failed."""
        for job_id in listing.others & self.fresh.keys():
            tag = self.stray[job_id] = self.fresh[job_id]
            self._types.add(tag.node_type)
            self._rows |= {row.instance_id: row for row in _rows(job_id, tag)}
        listed = {job.array_id for job in listing.jobs} | listing.others
        self.fresh = {job_id: tag for job_id, tag in self.fresh.items() if job_id not in listed}

    def cancelled(self, job_ids: Iterable[int]) -> None:
        self.stray = {job_id: tag for job_id, tag in self.stray.items() if job_id not in set(job_ids)}

    def rows(self, *, terminated: Collection[str]) -> list[BackendInstance]:
        """Return a row for each instance that such a job had; it stays until it is terminated."""
        self._rows = {key: row for key, row in self._rows.items() if key not in terminated}
        return list(self._rows.values())

    def why(self, node_type: str) -> str | None:
        """Return why no more jobs of a type are submitted, None if nothing speaks against it."""
        return f"{node_type}: {WHY}" if node_type in self._types else None

    def trust(self, node_type: str) -> None:
        """Let jobs of a type be submitted again: the site may have been mended."""
        self._types.discard(node_type)


def _rows(job_id: int, tag: Tag) -> Iterable[BackendInstance]:
    for member in range(tag.count):
        yield BackendInstance(
            instance_id=tag.instance_id(member),
            native_id=f"{job_id}.{member}" if tag.together else f"{job_id}_{member}",
            node_type=tag.node_type,
            state=BackendState.FAILED,
            shape_id=tag.shape_id,
            detail=f"cancelled: {WHY}",
        )
