from __future__ import annotations
import os, signal, time
import pytest
from tests.integration.train.conftest import Driver, Grounds
from tests.integration.raylink.conftest import until
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

async def test_all(grounds: Grounds, driver: Driver, link) -> None:
    await grounds.node(link, "t0")
    grounds.worker("t1", slots=2)
    print("classes", driver.tell("""
class Broken:
    def __init__(self):
        raise ValueError('no such data set')
    def f(self): pass
def trial():
    try:
        with ElasticGroup(Broken, bundle={'slot': 1}, min_size=1, max_size=2, max_restarts=2): pass
    except train_errors as error:
        return repr(error)
from heliostat.train import GroupError as train_errors
trial()
"""))
    print("left", driver.tell("living()"))
    driver.tell("""
group = ElasticGroup(Trainer, bundle={'slot': 1, 'CPU': 1}, min_size=1, max_size=8, args=('/dev/null',)).__enter__()
sync_until(group, 4)
""")
    print("waiting", driver.tell("group.waiting"), "median ms with 4 members, 4 waiting", [round(driver.tell("median_sync_ms(group)"), 3) for _ in range(3)])
    print("profile", driver.tell("""
import cProfile, pstats, io
p = cProfile.Profile(); p.enable()
for _ in range(200): group.sync()
p.disable(); s = io.StringIO(); pstats.Stats(p, stream=s).sort_stats('tottime').print_stats(12); s.getvalue()
"""))
    print("map/s", driver.tell("""
import time
b=time.perf_counter(); group.map('pid2', range(400)) if False else group.map('work', [(n,0) for n in range(400)]); 400/(time.perf_counter()-b)
"""))
    node = await grounds.node(link, "t1")
    # raylet of t1 killed
    pid = grounds.head.run("pgrep", "-f", f"raylet.*--node_id={node.node_id}").split()
    os.kill(int(pid[0]), 9)
    b = time.monotonic()
    out = driver.tell("""
r = group.map('work', [(n, 0.3) for n in range(40)])
(r == [10*n for n in range(40)], sync_until(group, 2, timeout_s=60), group.engine.roster.restarts)
""")
    print("raylet killed:", out, time.monotonic() - b)
    print(driver.tell("""
import asyncio
async def go():
    async with ElasticGroup(Trainer, bundle={'CPU': 1}, min_size=2, max_size=3, args=('/dev/null',), name='async') as g:
        await g.async_sync()
        ticks = 0
        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)
        t = asyncio.ensure_future(tick())
        b = time.perf_counter()
        r = await g.async_map('work', [(n, 0.2) for n in range(6)])
        e = time.perf_counter() - b
        t.cancel()
        return r, ticks, e
asyncio.run(go())
"""))
    driver.tell("group.__exit__(None, None, None)")
    print("left", await until(lambda: living(driver), lambda f: f == {"actors": 0, "groups": 0}))
    with grounds.driver() as doomed:
        doomed.start("""
with ElasticGroup(Trainer, bundle={'CPU': 1}, min_size=1, max_size=6, args=('/dev/null',), name='ctrl') as g:
    while True:
        g.sync()
        g.map('work', [(n, 0.1) for n in range(6)])
""")
        await until(lambda: living(driver), lambda f: f["actors"] >= 4, timeout_s=30)
        os.kill(doomed.process.pid, signal.SIGINT)
        with pytest.raises(AssertionError, match="KeyboardInterrupt"):
            doomed.answer()
        print("after ctrl-c, driver alive:", doomed.process.poll(), driver.tell("living()"))
    print(driver.tell("""
a = ElasticGroup(Trainer, bundle={'CPU': 1}, min_size=1, max_size=8, args=('/dev/null',), name='a', weight=3)
b = ElasticGroup(Trainer, bundle={'CPU': 1}, min_size=1, max_size=8, args=('/dev/null',), name='b')
out = []
import time
with Roles(a=a, b=b) as roles:
    for n in range(60):
        t=time.perf_counter(); roles.sync(); t=time.perf_counter()-t
        row = [len(a), len(b), a.waiting, b.waiting]
        if not out or out[-1][1] != row: out.append([n, row, round(t*1000, 1)])
        time.sleep(0.3)
    ts=[]
    for n in range(100):
        t=time.perf_counter(); roles.sync(); ts.append(time.perf_counter()-t)
(out, sorted(ts)[50]*1000)
""", timeout_s=120))

async def living(driver): return driver.tell("living()")
