"""How well an endpoint is known is for its owner to say."""

from collections.abc import Awaitable, Callable

from multipick_epp.state.redis import RedisState
from multipick_epp.types import Endpoint, Mode
from multipick_sim.local.valkey import Valkey

PODS = [Endpoint(f"pod-{number}:8000") for number in range(8)]


async def test_the_word_of_one_who_only_took_itself_for_the_owner_does_not_last(
    server: Valkey, replica: Callable[..., Awaitable[RedisState]], eventually: Callable[..., Awaitable[None]]
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    await eventually(lambda: 0 < len(one.owned(PODS)) < len(PODS) and len({*one.owned(PODS), *two.owned(PODS)}) == 8)
    for state in (one, two):
        for pod in state.owned(PODS):
            await state.set_mode(pod, Mode.EXACT)
    for pod in two.owned(PODS):
        await one.set_mode(pod, Mode.APPROX)
    await eventually(lambda: any(two.mode(pod) is Mode.APPROX for pod in PODS))
    await eventually(lambda: all(state.mode(pod) is Mode.EXACT for pod in PODS for state in (one, two)))
    await server.kill()
    await server.start()
    await eventually(lambda: one.degraded is two.degraded is None)
    late = await replica(server.url)
    await eventually(lambda: all(late.mode(pod) is Mode.EXACT for pod in PODS))
