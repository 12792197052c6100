"""Which actors take a call while they work at another, as Ray makes them."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from heliostat.train.cluster import Recipe
from heliostat.train.ray_cluster import RayCluster


class Plain:
    def work(self) -> None: ...


class Async:
    async def work(self) -> None: ...


@pytest.mark.parametrize(
    ("actor_class", "options", "beside"),
    [
        (Plain, {}, False),
        (Plain, {"max_concurrency": 2}, True),
        (Async, {}, True),
        (Async, {"max_concurrency": 1}, False),
        (ray.remote(Plain), {}, False),
        (ray.remote(max_concurrency=2)(Plain), {}, True),
        (ray.remote(max_concurrency=2)(Plain), {"max_concurrency": 1}, False),
        (ray.remote(Async), {}, True),
    ],
)
def test_who_takes_calls_while_it_works(actor_class: Any, options: dict[str, Any], beside: bool) -> None:
    assert RayCluster().works_beside(Recipe(actor_class, {"CPU": 1}, actor_options=options)) is beside
