"""What engines answer when they are told of adapters is input: whatever it is, it costs that engine alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from aiohttp import web
from multipick_operator.adapters import Adapters
from multipick_operator.cluster.pools import Key
from multipick_operator.status.adapters import Engine, Held, Order

Serve = Callable[..., Awaitable[Engine]]
VLLM = Order("/v1", {"a": "org/a"}, ["old"])
SGLANG = Order("", {"a": "org/a"}, ["old"])
NOTHING = b'{"data": [{"id": "m"}]}'
OLD = b'{"data": [{"id": "m"}, {"id": "old", "parent": "m"}]}'


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an engine that lists `models`, and answers a change with `status` and `words`; it notes what it is told."""
    runners: list[web.AppRunner] = []

    async def start(
        models: bytes, status: int = 200, words: bytes = b"", told: list[tuple[str, object]] | None = None
    ) -> Engine:
        async def listed(_: web.Request) -> web.Response:
            return web.Response(body=models)

        async def changed(request: web.Request) -> web.Response:
            if told is not None:
                told.append((request.path, await request.json()))
            return web.Response(status=status, body=words)

        app = web.Application()
        app.router.add_get("/v1/models", listed)
        app.router.add_post("/{path:.*}", changed)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        port = runners[-1].addresses[0][1]
        return Engine(f"pod-{port}", f"127.0.0.1:{port}", "1")

    yield start
    for runner in runners:
        await runner.cleanup()


async def held(order: Order, *engines: Engine) -> Mapping[Engine, Held]:
    """What is known of them when all were told."""
    done = asyncio.Event()

    def changed(_: Key) -> None:
        done.set()

    adapters = Adapters(changed, fresh_s=60.0)
    try:
        adapters.look(("ns", "p"), order, engines)
        await asyncio.wait_for(done.wait(), 30)
        return adapters.look(("ns", "p"), order, engines)
    finally:
        await adapters.close()


@pytest.mark.parametrize("order", [VLLM, SGLANG], ids=["vllm", "sglang"])
async def test_each_engine_is_told_by_its_own_paths(serve: Serve, order: Order) -> None:
    told: list[tuple[str, object]] = []
    engine = await serve(OLD, 200, b'{"success": true, "loaded_adapters": {"a": "org/a"}}', told)
    assert (await held(order, engine))[engine] == Held(frozenset({"a"}), {})
    prefix = "/v1" if order is VLLM else ""
    assert told == [
        (f"{prefix}/load_lora_adapter", {"lora_name": "a", "lora_path": "org/a"}),
        (f"{prefix}/unload_lora_adapter", {"lora_name": "old"}),
    ]


@pytest.mark.parametrize(
    "models",
    [b"", b"[]", b"<html>", b'{"data": null}', b'{"data": [{"id": 7}]}', b'{"x": ' + b"[" * 100_000, b"\xff" * 9],
)
async def test_a_list_that_is_none_is_the_trouble_of_its_engine_alone(serve: Serve, models: bytes) -> None:
    ill, well = await serve(models), await serve(NOTHING)
    found = await held(VLLM, ill, well)
    assert found[well] == Held(frozenset({"a"}), {})
    assert found[ill].names == frozenset()
    assert found[ill].troubles["a"].startswith("/v1/models: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (b'{"error": {"message": "No adapter found for org/a", "code": 404}}', "No adapter found for org/a"),
        (b'{"message": "no"}', "no"),
        (b'{"success": false, "error_message": "rank 64 is above 16"}', "rank 64 is above 16"),
        (b"out of memory", "out of memory"),
        (b"[1]", "[1]"),
        (b"[" * 5000, "[" * 1000),
        (b'{"message": "\\ud800 half"}', "? half"),
        (b"\xff", "\ufffd"),
    ],
)
async def test_a_refusal_is_told_in_words_that_can_be_written(serve: Serve, words: bytes, expected: str) -> None:
    engine = await serve(NOTHING, 400, words)
    assert (await held(VLLM, engine))[engine].troubles == {"a": f"status 400: {expected}"}
