"""An HTTP request's body -> an `Order`: token ids, answer and how to send it, or `Refused` with vLLM's error.

What a simulated engine can't answer (several choices, log probabilities, images) is refused, never answered wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from multipick_epp.requests import parse
from multipick_epp.requests.errors import api_of
from multipick_epp.requests.prompt import Api, Prompt, Unread
from multipick_epp.tokens import Tokenizer, Untokenised

from multipick_sim.pod.adapters import Adapter, Adapters
from multipick_sim.pod.answers import Answers
from multipick_sim.pod.refused import Refused, bad_request
from multipick_sim.pod.settings import Settings

COMPLETION_TOKENS = 16  # of a completion that sets no limit, as in OpenAI's and vLLM's API


@dataclass(frozen=True, slots=True)
class Order:
    """What the engine is to do and how the answer is sent."""

    model: str  # as the client named it
    lora: Adapter | None
    salt: str | None
    prompt: Sequence[int]
    answer: Sequence[int]
    ends: bool  # the answer closes the turn by itself
    chat: bool
    stream: bool
    include_usage: bool
    report_hits: bool


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Options(msgspec.Struct):
    """The fields that decide the answer's length and form."""

    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream_options: _StreamOptions | None = None
    echo: bool | None = None
    logprobs: bool | int | None = None
    prompt_logprobs: int | None = None
    vllm_xargs: dict[str, str | int | float | list[str | int | float]] | None = None

    @property
    def length(self) -> int | None:
        """Tokens of the answer at most, where the client says."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


_OPTIONS = msgspec.json.Decoder(_Options, strict=False)  # engines take "7" and "true", too


class Orders:
    """Takes requests for one pod."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer, answers: Answers, adapters: Adapters) -> None:
        self._settings = settings
        self._adapters = adapters
        self._tokenizer = tokenizer
        self._answers = answers
        self._max_tokens = settings.limits.max_model_len

    async def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Order | Refused:
        """Read a request to one of the two completion APIs; header names are lower case."""
        prompt = parse(path, headers, body)
        if isinstance(prompt, Unread):
            return bad_request(f"This request can't be read: {prompt.reason}.")
        try:
            options = _OPTIONS.decode(body)
        except msgspec.ValidationError as error:
            return bad_request(str(error))
        model = self._settings.models[0] if prompt.model is None else prompt.model
        lora = self._adapters.find(model)
        refused = self.unknown_model(model) or _unsupported(prompt, options)
        if refused is not None:
            return refused
        ids = await self._tokenizer.encode(prompt.source)
        if isinstance(ids, Untokenised):
            return bad_request(f"This prompt has no tokens: {ids.reason}.")
        return self._too_long(options, len(ids)) or self._order(path, model, lora, prompt, options, ids)

    def unknown_model(self, model: str | None) -> Refused | None:
        """vLLM's answer for a model that is not served; no name stands for the pod's own."""
        names = self._settings.models
        if model is None or model in names or self._adapters.find(model):
            return None
        message = f"The model `{model}` does not exist. Valid aliases: {', '.join(names)}."
        return Refused(404, "NotFoundError", message, "model")

    def _too_long(self, options: _Options, tokens: int) -> Refused | None:
        most = self._max_tokens
        if options.length is not None and not 1 <= options.length <= most:
            message = f"max_tokens must be from 1 to the model's length of {most}, got {options.length}."
            return bad_request(message, "max_tokens")
        if tokens < 1:
            return bad_request("The prompt is empty.", "prompt")
        if tokens < most:
            return None
        message = (
            f"This model's maximum context length is {most} tokens. However, your prompt contains {tokens} input "
            "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
            "prompt."
        )
        return bad_request(message, "input_tokens")

    def _order(
        self, path: str, model: str, lora: Adapter | None, prompt: Prompt, options: _Options, ids: Sequence[int]
    ) -> Order | Refused:
        chat = api_of(path) is Api.CHAT
        length, room = options.length, self._max_tokens - len(ids)
        ends = length is None and chat and not options.ignore_eos
        if ends:
            length = max(options.min_tokens, self._answers.unasked_length(ids))
        elif length is None:
            length = room if chat else COMPLETION_TOKENS
        ends = ends and length <= room
        length = min(length, room)
        try:
            answer = self._answers.write(ids, length, chat=chat, ends=ends)
        except (OverflowError, TypeError):
            return bad_request("Token ids must be whole numbers from 0 to 2**32 - 1.", "prompt")
        report = (options.vllm_xargs or {}).get("kv_cache_report_mode")
        return Order(
            model=model,
            lora=lora,
            salt=prompt.cache_salt,
            prompt=ids,
            answer=answer,
            ends=ends,
            chat=chat,
            stream=options.stream is True,
            include_usage=bool(options.stream_options and options.stream_options.include_usage),
            report_hits=report == "full",
        )


def _unsupported(prompt: Prompt, options: _Options) -> Refused | None:
    if options.n not in (None, 1):
        return bad_request(f"A simulated engine makes one choice a request: n must be 1, got {options.n}.", "n")
    if prompt.batch:
        return bad_request("A simulated engine takes one prompt a request.", "prompt")
    if prompt.guessed_tokens:
        return bad_request("A simulated engine reads text only.", "messages")
    for name in ("echo", "logprobs", "prompt_logprobs"):
        if getattr(options, name):
            return bad_request(f"A simulated engine has no {name}.", name)
    return None
