"""How instances ended: kept with their last words until they are terminated, also when squeue forgets them.

slurmctld lists a job for `MinJobAge` (300 s) after its end; accounting, where there is one, remembers longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from heliostat.model.instance import BackendInstance, BackendState
from heliostat.ports.errors import ProviderError
from heliostat.providers.slurm.accounting import MOST_IDS, End, end_of, parse_sacct, sacct_command
from heliostat.providers.slurm.logs import LOOK_BACK_LINES, log_path, tails, telling
from heliostat.providers.slurm.members import OVER, Member, row_of
from heliostat.providers.slurm.runner import Runner

UNKNOWN_END = "squeue lists it no more, and Slurm's accounting does not tell how it ended"


class Ends:
    """What was seen of each instance, for when it ends. `log_runner` reads logs elsewhere, None: here."""

    def __init__(self, log_dir: str, *, log_runner: Runner | None = None) -> None:
        self._log_dir = log_dir
        self._log_runner = log_runner
        self._seen: dict[str, Member] = {}
        self._words: dict[str, str] = {}
        self._vanished: dict[str, BackendInstance] = {}

    def log_of(self, instance_id: str) -> str | None:
        """Return the path of an instance's log, if the instance was ever listed."""
        member = self._seen.get(instance_id)
        return log_path(self._log_dir, member.job.tag, member.index) if member else None

    async def rows(
        self,
        members: Mapping[str, Member],
        *,
        terminated: Iterable[str],
        runner: Runner,
        deadline_s: float,
    ) -> list[BackendInstance]:
        """Return rows of what has vanished from squeue and was not `terminated`; they stay until it is."""
        away = set(terminated)
        lost = {key: one for key, one in self._seen.items() if key not in members and key not in away}
        self._seen = {**members, **{key: self._seen[key] for key in lost if key in self._vanished}}
        news = {key: one for key, one in lost.items() if key not in self._vanished}
        if news:
            ends = await _accounted(news.values(), runner=runner, deadline_s=deadline_s)
            for key, member in news.items():
                self._seen[key] = member
                self._vanished[key] = _row(member, end_of(ends, member.native_id))
        self._vanished = {key: row for key, row in self._vanished.items() if key not in away}
        return list(self._vanished.values())

    async def worded(self, rows: Sequence[BackendInstance]) -> list[BackendInstance]:
        """Return the rows, those of failures with the line of their log that says most."""
        mute = [row.instance_id for row in rows if _failed(row) and row.instance_id not in self._words]
        paths = {key: path for key in mute if (path := self.log_of(key)) is not None}
        found = await tails(tuple(paths.values()), LOOK_BACK_LINES, runner=self._log_runner)
        for key, path in paths.items():
            self._words[key] = telling(found.get(path, ()))
        known = {row.instance_id for row in rows}
        self._words = {key: words for key, words in self._words.items() if key in known}
        return [self._with_words(row) for row in rows]

    def _with_words(self, row: BackendInstance) -> BackendInstance:
        words = self._words.get(row.instance_id, "")
        return replace(row, detail=": ".join(filter(None, (row.detail, words)))) if words else row


def _failed(row: BackendInstance) -> bool:
    return row.state is BackendState.FAILED


def _row(member: Member, end: End | None) -> BackendInstance:
    state, detail = (end.state, end.detail) if end is not None else (BackendState.ENDED, UNKNOWN_END)
    if state not in OVER:
        # Accounting may lag behind, or take a job for running that a dead slurmctld has lost.
        state, detail = BackendState.ENDED, f"squeue lists it no more; {detail}"
    row = row_of(member, stopping=False, notice_s=None)
    return replace(row, state=state, detail=detail, expected_start_s=None, expires_at_s=None, throttled=False)


async def _accounted(members: Iterable[Member], *, runner: Runner, deadline_s: float) -> Mapping[str, End]:
    """Ask accounting for all at once; nothing is known where a site has none."""
    native = sorted({one.native_id for one in members})
    found: dict[str, End] = {}
    for start in range(0, len(native), MOST_IDS):
        command = sacct_command(native[start : start + MOST_IDS])
        try:
            answer = await runner.run(command, deadline_s=deadline_s)
            found |= parse_sacct(answer.stdout + answer.stderr if answer.code else answer.stdout) or {}
        except (ProviderError, ValueError):
            return found
    return found
