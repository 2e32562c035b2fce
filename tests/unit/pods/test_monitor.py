import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.monitor import Monitor
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint, Load

PAGE = "vllm:num_requests_running 3.0\nvllm:num_requests_waiting 1.0\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def engine(pages: Callable[[], web.Response]) -> AsyncIterator[Endpoint]:
    async def metrics(_: web.Request) -> web.Response:
        return pages()

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield Endpoint(f"127.0.0.1:{port}")
    finally:
        await runner.cleanup()


async def test_an_engine_is_ready_while_its_metrics_can_be_read() -> None:
    registry = Registry()
    monitor = Monitor(registry, Supervisor(), lambda _: Load(), lambda: 100.0, interval_s=0.01)
    async with engine(lambda: web.Response(text=PAGE)) as endpoint:
        monitor.start()
        registry.set([PodEndpoint(endpoint)])
        await until(lambda: registry.ready().endpoints == [endpoint])
        await until(lambda: (s := registry.state(endpoint)) is not None and s.unexplained.in_flight == 4)
        state = registry.state(endpoint)
        assert state is not None
        assert state.gauges is not None
        assert state.unexplained.queued_tokens == 100
    await until(lambda: not registry.ready().endpoints)
    await monitor.close()


async def test_a_sleeping_engine_is_not_ready() -> None:
    page = ['vllm:engine_sleep_state{sleep_state="awake"} 1.0\n']
    registry = Registry()
    monitor = Monitor(registry, Supervisor(), lambda _: Load(), lambda: 100.0, interval_s=0.01)
    async with engine(lambda: web.Response(text=page[0])) as endpoint:
        registry.set([PodEndpoint(endpoint)])
        monitor.start()
        await until(lambda: registry.ready().endpoints == [endpoint])
        page[0] = 'vllm:engine_sleep_state{sleep_state="awake"} 0.0\n'
        await until(lambda: not registry.ready().endpoints)
        await monitor.close()


async def test_where_kubernetes_decides_pages_change_gauges_only() -> None:
    registry = Registry()
    monitor = Monitor(registry, Supervisor(), lambda _: Load(), lambda: 100.0, interval_s=0.01, readiness=False)
    async with engine(lambda: web.Response(text=PAGE)) as endpoint:
        registry.set([PodEndpoint(endpoint)])
        monitor.start()
        await until(lambda: (s := registry.state(endpoint)) is not None and s.gauges is not None)
        assert not registry.ready().endpoints
        await monitor.close()


async def test_load_of_others_and_gauges_count_only_while_they_can_be_looked_at() -> None:
    status = [200]
    registry = Registry()
    monitor = Monitor(registry, Supervisor(), lambda _: Load(), lambda: 100.0, interval_s=0.01, readiness=False)
    async with engine(lambda: web.Response(text=PAGE, status=status[0])) as endpoint:
        registry.set([PodEndpoint(endpoint)])
        registry.mark(endpoint, True)
        monitor.start()
        await until(lambda: registry.ready().unexplained_in_flight == [4])
        status[0] = 500
        await until(lambda: registry.ready().unexplained_in_flight == [0])
        assert registry.ready().unscraped == {endpoint}
        status[0] = 200
        await until(lambda: registry.ready().unexplained_in_flight == [4])
        assert not registry.ready().unscraped
        await monitor.close()


async def test_it_tells_when_every_endpoint_was_looked_at_whatever_came_of_it() -> None:
    registry = Registry()
    monitor = Monitor(registry, Supervisor(), lambda _: Load(), lambda: 100.0, interval_s=60)
    async with engine(lambda: web.Response(text=PAGE)) as endpoint:
        registry.set([PodEndpoint(endpoint), PodEndpoint(Endpoint("127.0.0.1:1"))])
        monitor.start()
        async with asyncio.timeout(60):
            await monitor.looked()
        assert registry.ready().endpoints == [endpoint]
        registry.set([])
        async with asyncio.timeout(60):
            await monitor.looked()
        await monitor.close()
