"""What engines answer when they are told of adapters is input: whatever it is, or none, it costs that engine alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from aiohttp import web
from multipick_operator import adapters as module
from multipick_operator.adapters import AT_ONCE, RETRY_S, Adapters
from multipick_operator.cluster.pools import Key
from multipick_operator.status.adapters import Engine, Held, Order

Serve = Callable[..., Awaitable[Engine]]
VLLM = Order("/v1", {"a": "org/a"}, ["old"])
SGLANG = Order("", {"a": "org/a"}, ["old"])
NOTHING = b'{"data": [{"id": "m"}]}'
OLD = b'{"data": [{"id": "m"}, {"id": "old", "parent": "m"}]}'
KEY, OTHER = ("ns", "p"), ("ns", "q")
THREE = Order("/v1", {name: f"org/{name}" for name in "abc"}, [])
HAS_A = Held(frozenset({"a"}), {})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an engine that lists `models`, and answers a change with `status` and `words`; it notes what it is told.

    Of the adapters `silent` it says nothing until `go`; `dropped` has those whose caller did not wait for that.
    """
    runners: list[web.AppRunner] = []

    async def start(
        models: bytes,
        status: int = 200,
        words: bytes = b"",
        told: list[tuple[str, object]] | None = None,
        silent: str = "",
        go: asyncio.Event | None = None,
        dropped: list[str] | None = None,
    ) -> Engine:
        async def listed(_: web.Request) -> web.Response:
            return web.Response(body=models)

        async def changed(request: web.Request) -> web.Response:
            body = await request.json()
            if told is not None:
                told.append((request.path, body))
            if body["lora_name"] in silent:
                try:
                    await (go or asyncio.Event()).wait()
                except asyncio.CancelledError:
                    if dropped is not None:
                        dropped.append(body["lora_name"])
                    raise
            return web.Response(status=status, body=words)

        app = web.Application()
        app.router.add_get("/v1/models", listed)
        app.router.add_post("/{path:.*}", changed)
        runners.append(web.AppRunner(app, handler_cancellation=True))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        port = runners[-1].addresses[0][1]
        return Engine(f"pod-{port}", f"127.0.0.1:{port}", "1")

    yield start
    for runner in runners:
        await runner.cleanup()


class Looking:
    """Adapters of engines that are looked at, whose clock stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.changes: list[Key] = []
        self.adapters = Adapters(self.changes.append, 60.0, lambda: self.now)

    async def until(self, good: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not good():
                await asyncio.sleep(0.001)


@pytest.fixture
async def looking() -> AsyncIterator[Looking]:
    made = Looking()
    yield made
    await made.adapters.close()


def names(told: list[tuple[str, object]]) -> list[object]:
    """The adapters, in the order in which an engine was told of them."""
    return [body["lora_name"] for _, body in told if isinstance(body, dict)]


def many(engine: Engine, count: int) -> list[Engine]:
    """So many engines that do as this one does."""
    return [Engine(f"pod-{number}", engine.address, str(number)) for number in range(count)]


async def held(order: Order, *engines: Engine) -> Mapping[Engine, Held]:
    """What is known of them when all were told."""
    done = asyncio.Event()

    def changed(key: Key) -> None:
        if len(adapters.look(key, order, engines)) == len(engines):
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


async def test_one_that_does_not_answer_keeps_no_other_of_its_pool_from_its_adapters(
    serve: Serve, looking: Looking
) -> None:
    told: list[tuple[str, object]] = []
    ill, well = await serve(NOTHING, told=told, silent="a"), await serve(NOTHING)
    look = looking.adapters.look
    look(KEY, VLLM, [ill])
    await looking.until(lambda: bool(told))
    look(KEY, VLLM, [ill, well])
    await looking.until(lambda: bool(looking.changes))
    assert look(KEY, VLLM, [ill, well]) == {well: HAS_A}


async def test_those_that_do_not_answer_keep_no_other_pool_from_its_adapters(serve: Serve, looking: Looking) -> None:
    told: list[tuple[str, object]] = []
    ill, well = await serve(NOTHING, told=told, silent="a"), await serve(NOTHING)
    look = looking.adapters.look
    for number in range(7):  # more than the connections that one session has by itself
        look(("ill", str(number)), VLLM, many(ill, AT_ONCE))
    await looking.until(lambda: len(told) == 7 * AT_ONCE)
    look(OTHER, VLLM, [well])
    await looking.until(lambda: looking.changes == [OTHER])
    assert look(OTHER, VLLM, [well]) == {well: HAS_A}


async def test_those_that_did_not_answer_wait_for_their_turns_among_themselves(
    serve: Serve, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    ill, well = await serve(NOTHING, told=told, silent="a"), await serve(NOTHING)
    look, all_ill = looking.adapters.look, many(ill, 2 * AT_ONCE)
    monkeypatch.setattr(module, "LOAD_S", 0.05)
    look(KEY, VLLM, all_ill)
    await looking.until(lambda: len(look(KEY, VLLM, all_ill)) == len(all_ill))
    monkeypatch.undo()
    told.clear()
    looking.now += RETRY_S
    look(KEY, VLLM, all_ill)
    await looking.until(lambda: len(told) == AT_ONCE)
    look(KEY, VLLM, [*all_ill, well])
    await looking.until(lambda: look(KEY, VLLM, [*all_ill, well]).get(well) == HAS_A)
    assert len(told) == AT_ONCE


async def test_one_that_does_not_answer_is_told_of_nothing_else_meanwhile(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    ill = await serve(NOTHING, told=told, silent="abc")
    monkeypatch.setattr(module, "LOAD_S", 0.05)
    assert (await held(THREE, ill))[ill] == Held(frozenset(), dict.fromkeys("abc", "no answer yet"))
    assert names(told) == ["a"]


async def test_an_adapter_that_takes_for_ever_keeps_an_engine_from_no_other(
    serve: Serve, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []
    engine = await serve(NOTHING, told=told, silent="ac")
    look = looking.adapters.look
    monkeypatch.setattr(module, "LOAD_S", 0.05)
    for turn, expected in enumerate([["a"], ["b", "c"], ["a"]]):
        told.clear()
        looking.now += RETRY_S
        look(KEY, THREE, [engine])
        await looking.until(lambda turn=turn: len(looking.changes) == turn + 1)  # type: ignore[misc]
        assert names(told) == expected


async def test_one_that_is_gone_is_let_go_of(serve: Serve, looking: Looking) -> None:
    told: list[tuple[str, object]] = []
    dropped: list[str] = []
    ill, well = await serve(NOTHING, told=told, silent="a", dropped=dropped), await serve(NOTHING)
    looking.adapters.look(KEY, VLLM, [ill])
    await looking.until(lambda: bool(told))
    looking.adapters.look(KEY, VLLM, [well])
    await looking.until(lambda: dropped == ["a"])


async def test_one_that_waits_for_its_turn_is_told_what_is_wanted_by_then(
    serve: Serve, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    first: list[tuple[str, object]] = []
    second: list[tuple[str, object]] = []
    go = asyncio.Event()
    engines = await serve(NOTHING, told=first, silent="a", go=go), await serve(NOTHING, told=second)
    looking.adapters.look(KEY, VLLM, engines)
    await looking.until(lambda: bool(first))
    looking.adapters.look(KEY, Order("/v1", {"b": "org/b"}, ["a"]), engines)
    go.set()
    await looking.until(lambda: bool(second))
    assert names(second) == ["b"]


async def test_of_all_pools_only_so_many_are_asked_at_once(
    serve: Serve, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start, all are due."""
    under_way = most = asked = 0
    plain = Adapters._names

    async def names(self: Adapters, engine: Engine) -> set[str]:
        nonlocal under_way, most, asked
        asked, under_way = asked + 1, under_way + 1
        most = max(most, under_way)
        found = await plain(self, engine)
        under_way -= 1
        return found

    monkeypatch.setattr(Adapters, "_names", names)
    monkeypatch.setattr(looking.adapters, "_asking", asyncio.Semaphore(3))
    one = await serve(NOTHING)
    for pool in range(5):
        looking.adapters.look(("ns", f"p{pool}"), THREE, many(one, 4))
    await looking.until(lambda: asked == 20 and not under_way)
    assert most == 3
