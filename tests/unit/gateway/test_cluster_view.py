"""One look at the controller for all who ask, however many and however long it takes."""

from __future__ import annotations

import asyncio

import pytest

from heliostat.gateway import cluster_view
from heliostat.gateway.cluster_view import ClusterView, SharedLook
from heliostat.gateway.errors import CallError, Code
from heliostat.model.report import StatusReport


class Controller:
    """It answers once it is let."""

    def __init__(self) -> None:
        self.looks = 0
        self.answer = asyncio.Event()

    async def __call__(self) -> StatusReport | None:
        self.looks += 1
        await self.answer.wait()
        return None


async def unavailable(view: ClusterView) -> bool:
    with pytest.raises(CallError) as refused:
        await view.status()
    return refused.value.code is Code.UNAVAILABLE


async def test_many_who_ask_at_once_share_a_look() -> None:
    controller = Controller()
    view = ClusterView(SharedLook(controller), has_gpu_type=False)
    asking = [asyncio.create_task(unavailable(view)) for _ in range(200)]
    await asyncio.sleep(0)
    # Who goes away takes nobody else's look along.
    asking.pop(0).cancel()
    await asyncio.sleep(0)
    controller.answer.set()
    assert all(await asyncio.gather(*asking))
    assert controller.looks == 1
    assert await unavailable(view)
    assert controller.looks == 2


async def test_a_look_that_hangs_is_waited_for_so_long_and_not_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_view, "LOOK_MAX_S", 0.01)
    controller = Controller()
    view = ClusterView(SharedLook(controller), has_gpu_type=False)
    for _ in range(3):
        assert await unavailable(view)
    assert controller.looks == 1
    controller.answer.set()
