"""How instances ended: kept with their last words until they are terminated, also when squeue forgets them.

slurmctld lists a job for `MinJobAge` (300 s) after its end; accounting, where there is one, remembers longer.
What was seen living is asked for by its id, what an earlier controller wanted by the tag in its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heliostat.model.instance import BackendInstance, BackendState
from heliostat.ports.errors import ProviderError
from heliostat.providers.slurm.accounting import MOST_IDS, End, end_of, parse_sacct, sacct_command
from heliostat.providers.slurm.logs import LOOK_BACK_LINES, log_paths, tails, telling
from heliostat.providers.slurm.members import OVER, Member, row_of
from heliostat.providers.slurm.recalling import recall_command, recalled
from heliostat.providers.slurm.runner import Runner

ASKED_AT_MOST = 3
"""How often accounting, which may lag behind, is asked for the end of one instance."""


@dataclass(frozen=True)
class Asking:
    """How accounting is asked, and about whom. `user` None: whoever runs the commands."""

    runner: Runner
    deadline_s: float
    cluster_uid: str
    user: str | None
    now_s: float

    async def said(self, command: Sequence[str]) -> str:
        """Return what a command printed; with its errors where it failed, which says that there is none."""
        answer = await self.runner.run(command, deadline_s=self.deadline_s)
        return answer.stdout + answer.stderr if answer.code else answer.stdout


class Ends:
    """What was seen of each instance, for when it ends. `log_runner` reads logs elsewhere, None: here."""

    def __init__(self, log_dir: str, *, log_runner: Runner | None = None) -> None:
        self._log_dir = log_dir
        self._log_runner = log_runner
        self._seen: dict[str, Member] = {}
        self._words: dict[str, str] = {}
        self._vanished: dict[str, BackendInstance] = {}
        self._asked: dict[str, int] = {}
        self._wanted: dict[str, float] = {}
        self._recalls = 0

    def recall(self, wanted: Mapping[str, float]) -> None:
        """Take in what an earlier controller wanted, and when each was asked for (Unix seconds)."""
        self._wanted, self._recalls = dict(wanted), 0

    def logs_of(self, instance_id: str) -> tuple[str, ...]:
        """Return the paths of an instance's logs, the best first; none if it was never listed."""
        member = self._seen.get(instance_id)
        return log_paths(self._log_dir, member.job.tag, member.index) if member else ()

    async def rows(
        self, members: Mapping[str, Member], *, terminated: Iterable[str], asking: Asking
    ) -> list[BackendInstance]:
        """Return rows of what squeue lists no more and accounting calls over; they stay until terminated.

        What nobody tells the end of has no row: the loop knows what to do of what is missing.
        """
        away = set(terminated)
        await self._recall(members, away, asking)
        self._vanished = {
            key: row for key, row in self._vanished.items() if key not in away and key not in members
        }
        lost = {key: one for key, one in self._seen.items() if key not in members and key not in away}
        due = {key: one for key, one in lost.items() if self._asked.get(key, 0) < ASKED_AT_MOST}
        due = {key: one for key, one in due.items() if key not in self._vanished}
        ends = await _accounted(due.values(), asking) if due else {}
        self._asked = {key: self._asked.get(key, 0) + (key in due) for key in lost}
        for key, member in due.items():
            # One listing without a job is no end: what accounting does not call over may be there again.
            end = end_of(ends, member.native_id)
            if end is not None and end.state in OVER:
                self._vanished[key] = _row(member, end)
        kept = {
            key: one for key, one in lost.items() if key in self._vanished or self._asked[key] < ASKED_AT_MOST
        }
        self._seen = {**members, **kept}
        return list(self._vanished.values())

    async def _recall(self, members: Mapping[str, Member], away: Collection[str], asking: Asking) -> None:
        """Look for the ends of what was wanted and is listed nowhere; accounting may lag, so a few times."""
        known = {*members, *self._seen, *away}
        self._wanted = {key: at_s for key, at_s in self._wanted.items() if key not in known}
        if not self._wanted or self._recalls == ASKED_AT_MOST:
            return
        self._recalls += 1
        age_s = asking.now_s - min(self._wanted.values())
        try:
            text = await asking.said(recall_command(age_s, asking.user))
            found = recalled(text, asking.cluster_uid)
        except (ProviderError, ValueError):
            return
        for key in found.keys() & self._wanted.keys():
            member, end = found[key]
            self._seen[key] = member
            self._vanished[key] = _row(member, end)

    async def worded(self, rows: Sequence[BackendInstance]) -> list[BackendInstance]:
        """Return the rows, those of failures with the line of their log that says most."""
        mute = [row.instance_id for row in rows if _failed(row) and row.instance_id not in self._words]
        paths = {key: self.logs_of(key) for key in mute}
        every = tuple(path for several in paths.values() for path in several)
        found = await tails(every, LOOK_BACK_LINES, runner=self._log_runner)
        for key, several in paths.items():
            self._words[key] = telling(next((found[path] for path in several if found.get(path)), ()))
        known = {row.instance_id for row in rows}
        self._words = {key: words for key, words in self._words.items() if key in known}
        return [self._with_words(row) for row in rows]

    def _with_words(self, row: BackendInstance) -> BackendInstance:
        words = self._words.get(row.instance_id, "")
        return replace(row, detail=": ".join(filter(None, (row.detail, words)))) if words else row


def _failed(row: BackendInstance) -> bool:
    return row.state is BackendState.FAILED


def _row(member: Member, end: End) -> BackendInstance:
    row = row_of(member, stopping=False, notice_s=None)
    return replace(
        row,
        state=end.state,
        detail=end.detail,
        expected_start_s=None,
        expires_at_s=None,
        throttled=False,
    )


async def _accounted(members: Iterable[Member], asking: Asking) -> Mapping[str, End]:
    """Ask accounting for all at once; nothing is known where a site has none."""
    native = sorted({one.native_id for one in members})
    found: dict[str, End] = {}
    for start in range(0, len(native), MOST_IDS):
        try:
            found |= parse_sacct(await asking.said(sacct_command(native[start : start + MOST_IDS]))) or {}
        except (ProviderError, ValueError):
            return found
    return found
