"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, which vLLM has with VLLM_ALLOW_RUNTIME_LORA_UPDATING alone."""

from typing import TypeVar

import msgspec
from aiohttp import web

from multipick_sim.pod.generate import refusal
from multipick_sim.pod.pod import Pod
from multipick_sim.pod.refused import Refused, bad_request

T = TypeVar("T")


class _Load(msgspec.Struct):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _Unload(msgspec.Struct):
    lora_name: str


def routes(pod: Pod) -> list[web.RouteDef]:
    """None where adapters are those of the command line."""
    if not pod.settings.runtime_loras:
        return []

    async def load(http: web.Request) -> web.Response:
        wanted = _read(await http.read(), _Load)
        if isinstance(wanted, Refused):
            return refusal(wanted)
        return _answer(pod.adapters.load(wanted.lora_name, wanted.lora_path, wanted.load_inplace), wanted, "added")

    async def unload(http: web.Request) -> web.Response:
        unwanted = _read(await http.read(), _Unload)
        if isinstance(unwanted, Refused):
            return refusal(unwanted)
        return _answer(pod.adapters.unload(unwanted.lora_name), unwanted, "removed")

    return [web.post("/v1/load_lora_adapter", load), web.post("/v1/unload_lora_adapter", unload)]


def _read(body: bytes, kind: type[T]) -> T | Refused:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        return bad_request(str(error))


def _answer(refused: Refused | None, asked: _Load | _Unload, done: str) -> web.Response:
    if refused:
        return refusal(refused)
    return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' {done} successfully.")
