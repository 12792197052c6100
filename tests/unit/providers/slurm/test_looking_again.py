"""The site is looked at again before something is refused because of it, and ever more rarely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heliostat.model.instance import OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm.provider import SITE_S, SlurmProvider
from heliostat.providers.slurm.runner import Output

CAPTURED = Path(__file__).parent / "captured"
FILES = {
    ("scontrol", "config"): "config",
    ("scontrol", "partition"): "partitions",
    ("sinfo", "--all"): "nodes",
}


class Site:
    """Answers what the site is asked; `debug` may be renamed, as administrators do."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.debug = "debug"

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        text = (CAPTURED / f"{FILES[argv[0], argv[2]]}.txt").read_text()
        return Output(0, text.replace("debug", self.debug), "")

    async def aclose(self) -> None: ...


def asking(site: Site, clock: list[float]) -> SlurmProvider:
    context = ProviderContext(ClusterIdentity("demo", "uid", "ada"), {}, "/none/run", "/none/logs", "/none")
    return SlurmProvider(context, runner=site, environment={}, monotonic_s=lambda: clock[0])


def kind(partition: str) -> NodeType:
    one = Resources.of({"CPU": 1})
    return NodeType("cpu", "slurm", one, shape_id="s1", max_workers=4, options={"partition": partition})


async def offered(provider: SlurmProvider, partition: str) -> int | None:
    (offer,) = await provider.offers([OfferQuery(kind(partition), 4)])
    return offer.count


async def test_a_type_that_stays_wrong_is_no_reason_to_ask_all_the_time() -> None:
    site, clock = Site(), [0.0]
    provider = asking(site, clock)
    for _ in range(120):
        assert await offered(provider, "nope") == 0
        clock[0] += 30.0
    # An hour of offers, twice a minute: at first soon, then no more than what all sites are asked.
    assert site.counts["sinfo"] <= 3600 / SITE_S + 6


async def test_what_the_site_cures_is_seen_soon_and_counts_as_new_when_it_is_back() -> None:
    site, clock = Site(), [0.0]
    provider = asking(site, clock)
    assert await offered(provider, "quick") == 0
    site.debug, clock[0] = "quick", 31.0
    assert await offered(provider, "quick") == 4


async def test_it_is_looked_at_again_at_once_when_the_file_is_applied() -> None:
    site, clock = Site(), [0.0]
    provider = asking(site, clock)
    assert await offered(provider, "quick") == 0
    site.debug = "quick"
    assert await offered(provider, "quick") == 0
    provider.complete(kind("quick"))
    assert await offered(provider, "quick") == 4
