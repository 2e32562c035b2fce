"""The endpoints that tell about a pod: models, health, version, load, metrics, tokenizer, sources of KV events."""

import json
from typing import Any

import msgspec
from aiohttp import web
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Unread
from multipick_epp.tokens import Untokenised

from multipick_sim.pod.generate import lower_names, refusal
from multipick_sim.pod.pod import Pod
from multipick_sim.pod.publisher import BUFFER_STEPS, HIGH_WATER_MARK
from multipick_sim.pod.refused import bad_request
from multipick_sim.pod.settings import ENGINE_VERSION

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(pod: Pod) -> list[web.RouteDef]:
    """What vLLM serves outside its dev mode, besides answers."""
    info = _Info(pod)
    return [
        web.get("/health", info.health),
        web.get("/ping", info.health),
        web.post("/ping", info.health),
        web.get("/version", info.version),
        web.get("/v1/models", info.models),
        web.get("/load", info.load),
        web.get("/metrics", info.metrics),
        web.get("/kv_event_sources", info.kv_event_sources),
        web.post("/tokenize", info.tokenize),
    ]


class _Info:
    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def health(self, _: web.Request) -> web.Response:
        """200 as long as the process serves: while draining, paused and asleep too."""
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": ENGINE_VERSION})

    async def models(self, _: web.Request) -> web.Response:
        settings = self._pod.settings
        base = settings.models[0]
        cards = [self._card(name, base, None, settings.limits.max_model_len) for name in settings.models]
        cards += [self._card(one.name, one.path, base, None) for one in self._pod.adapters]
        return web.json_response({"object": "list", "data": cards})

    async def load(self, _: web.Request) -> web.Response:
        """Requests in flight, as vLLM counts them under --enable-server-load-tracking."""
        return web.json_response({"server_load": sum(len(rank.flows) for rank in self._pod.ranks)})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._pod.metrics.text(), headers={"content-type": METRICS_TYPE})

    async def kv_event_sources(self, _: web.Request) -> web.Response:
        sources = {
            str(rank.number): {
                "enable_kv_cache_events": True,
                "publisher": "zmq",
                "endpoint": rank.publisher.endpoint,
                "replay_endpoint": rank.publisher.replay_endpoint,
                "buffer_steps": BUFFER_STEPS,
                "hwm": HIGH_WATER_MARK,
                "max_queue_size": HIGH_WATER_MARK,
                "topic": self._pod.settings.topic,
            }
            for rank in self._pod.ranks
            if rank.publisher is not None
        }
        return web.json_response(sources)

    async def tokenize(self, http: web.Request) -> web.Response:
        """Token ids of a chat (`messages`) or a text (`prompt`), without `token_strs`."""
        body = await http.read()
        try:
            is_chat = "messages" in json.loads(body)
        except (ValueError, TypeError, RecursionError):
            return refusal(bad_request("The body must be a JSON object."))
        prompt = parse("/v1/chat/completions" if is_chat else "/v1/completions", lower_names(http), body)
        if isinstance(prompt, Unread):
            return refusal(bad_request(f"This request can't be read: {prompt.reason}."))
        if refused := self._pod.orders.unknown_model(prompt.model):
            return refusal(refused)
        ids = await self._pod.tokenizer.encode(prompt.source)
        if isinstance(ids, Untokenised):
            return refusal(bad_request(f"This prompt has no tokens: {ids.reason}."))
        most = self._pod.settings.limits.max_model_len
        answer = {"count": len(ids), "max_model_len": most, "tokens": list(ids), "token_strs": None}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def _card(self, name: str, root: str, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
        """One model or adapter."""
        return {
            "id": name,
            "object": "model",
            "created": self._pod.started_unix,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": max_model_len,
            "permission": [],
        }
