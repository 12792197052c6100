"""What could be had of a type, and when: by what waits already, by what was seen, else by a trial ask."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from heliostat.model.instance import LaunchRequest, Offer, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.ports.errors import ProviderError
from heliostat.providers.slurm.forecast import parse_test_only, test_only_command
from heliostat.providers.slurm.options import SlurmOptions, job_options
from heliostat.providers.slurm.outlook import Outlook
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import submission
from heliostat.providers.slurm.slurm_time import SlurmTime
from heliostat.providers.slurm.submitting import Surroundings, asks, part


class Offering:
    """Makes offers of types against which nothing speaks; `outlook` is to see every listing."""

    def __init__(
        self,
        options: SlurmOptions,
        runner: Runner,
        surroundings: Callable[[NodeType], Awaitable[Surroundings]],
        *,
        slurm_time: SlurmTime,
    ) -> None:
        self.outlook = Outlook()
        self._options = options
        self._runner = runner
        self._surroundings = surroundings
        self._slurm_time = slurm_time

    async def offer(self, query: OfferQuery, *, now_s: float) -> Offer:
        node_type, outlook = query.node_type, self.outlook
        # Only where waiting is weighed against money is it worth a trial.
        if node_type.patience_s and query.count and outlook.wants_trial(node_type.name, now_s=now_s):
            outlook.tried(node_type.name, await self._trial(query, now_s), now_s=now_s)
        limit_s = job_options(self._options, node_type.options).time_limit_s
        return Offer(
            node_type.name,
            query.count,
            ready_at_s=outlook.ready_at_s(node_type.name, now_s=now_s),
            price_usd_per_h=node_type.price_usd_per_h or None,
            lease_s=limit_s if limit_s is not None and math.isfinite(limit_s) else None,
        )

    async def _trial(self, query: OfferQuery, now_s: float) -> float | None:
        """Ask Slurm when a job of the type would start; None where it does not say."""
        request = LaunchRequest("trial", query.node_type, 1, {})
        try:
            options = job_options(self._options, query.node_type.options)
            (ask,) = asks(request, await self._surroundings(query.node_type), now_s=now_s)
            made = submission(options, part(ask, 0, 1))
            command, deadline_s = test_only_command(made.argv), self._options.command_deadline_s
            answer = await self._runner.run(command, stdin=made.script, deadline_s=deadline_s)
        except ProviderError:
            return None
        start_s = parse_test_only(answer.stderr) if answer.code == 0 else None
        return None if start_s is None else start_s - self._slurm_time.ahead_s
