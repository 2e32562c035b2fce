"""`/v1/chat/completions` and `/v1/completions`: an order in, its answer out, whole or as it comes."""

import time
from contextlib import suppress

from aiohttp import web

from multipick_sim.pod.flow import Flow
from multipick_sim.pod.orders import Order
from multipick_sim.pod.pod import Pod, new_id
from multipick_sim.pod.refused import Refused
from multipick_sim.pod.shapes import DONE, ChatShape, CompletionShape, Shape, Usage, error_body

SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}


def routes(pod: Pod) -> list[web.RouteDef]:
    """Both APIs have one handler."""
    generator = _Generator(pod)
    return [
        web.post("/v1/chat/completions", generator.handle),
        web.post("/v1/completions", generator.handle),
    ]


def refusal(refused: Refused) -> web.Response:
    """An error as vLLM sends it."""
    body = error_body(refused.status, refused.kind, refused.message, refused.parameter)
    return web.Response(status=refused.status, body=body, content_type="application/json")


def lower_names(http: web.Request) -> dict[str, str]:
    """A request's headers as the picker's parsers take them."""
    return {name.lower(): value for name, value in http.headers.items()}


class _Generator:
    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def handle(self, http: web.Request) -> web.StreamResponse:
        pod = self._pod
        order = await pod.orders.take(http.path, lower_names(http), await http.read())
        if isinstance(order, Refused):
            return refusal(order)
        rank = pod.rank_for(http.headers)
        if isinstance(rank, Refused):
            return refusal(rank)
        if pod.draining:
            return await self._answer_with_abort(http, order)
        flow = pod.submit(rank, order)
        try:
            shape = _shape(order, flow.request.request_id)
            if order.stream:
                return await self._stream(http, order, flow, shape)
            await flow.wait_to_end()
            text = pod.answers.text(flow.answer[: flow.tokens])
            return _json(shape.whole(text, flow.finish_reason or "abort", self._usage(flow)))
        finally:
            rank.leave(flow)

    async def _stream(self, http: web.Request, order: Order, flow: Flow, shape: Shape) -> web.StreamResponse:
        """The headers go out before the prefill, as vLLM sends them."""
        response = web.StreamResponse(headers=SSE_HEADERS)
        with suppress(ConnectionResetError):  # the client left between two chunks
            await response.prepare(http)
            await self._send(response, order, flow, shape)
        return response

    async def _send(self, response: web.StreamResponse, order: Order, flow: Flow, shape: Shape) -> None:
        json_text, interval = self._pod.answers.json_text, self._pod.settings.stream_interval
        sent, wanted, opening = 0, 1, shape.opening()
        while True:
            await flow.wait(wanted)
            text = json_text(flow.answer[sent : flow.tokens])
            sent = flow.tokens
            wanted = sent + interval
            if flow.finish_reason is not None:
                break
            await response.write(opening + shape.chunk(text))
            opening = b""
        last = opening + shape.last_chunk(text, flow.finish_reason)
        if order.include_usage:
            last += shape.usage_chunk(self._usage(flow))
        await response.write(last + DONE)

    async def _answer_with_abort(self, http: web.Request, order: Order) -> web.StreamResponse:
        """What vLLM says while it shuts down: 200, no text, finish reason "abort"."""
        shape = _shape(order, new_id())
        usage = Usage(len(order.prompt), 0, None)
        if not order.stream:
            return _json(shape.whole("", "abort", usage))
        response = web.StreamResponse(headers=SSE_HEADERS)
        await response.prepare(http)
        last = shape.opening() + shape.last_chunk(b"", "abort")
        if order.include_usage:
            last += shape.usage_chunk(usage)
        await response.write(last + DONE)
        return response

    def _usage(self, flow: Flow) -> Usage:
        prompt, size = flow.request.prompt_tokens, self._pod.settings.limits.block_size
        cached = flow.hit_tokens if self._pod.settings.prompt_tokens_details else None
        return Usage(prompt, flow.tokens, cached, created=prompt // size * size - flow.hit_tokens)


def _shape(order: Order, name: str) -> Shape:
    make = ChatShape if order.chat else CompletionShape
    return make(name, int(time.time()), order.model)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
