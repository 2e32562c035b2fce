"""Plan -> request bodies: one conversation as it grows, already encoded.

A turn's prompt is all before it, so each message is encoded once and the body of a turn is joined from pieces; long
prompts that share fixed texts (a trace's blocks, an application's system prompt) share the encoded pieces as well.
"""

import json
from collections.abc import Callable
from functools import lru_cache

from multipick_sim.texts import fixed_text
from multipick_sim.traffic.plan import MESSAGE_OVERHEAD_TOKENS, Message, Turn
from multipick_sim.traffic.records import Segment

CACHED_MESSAGES = 16_384  # of 3 KB each where the trace's 512-token blocks fill it

Encode = Callable[[Message], bytes]


def encoder() -> Encode:
    """A function that encodes messages and remembers the last `CACHED_MESSAGES`."""
    return lru_cache(CACHED_MESSAGES)(_encode)


class Conversation:
    """What one session has said so far."""

    def __init__(self, name: str, model: str, encode: Encode) -> None:
        self._name = name
        self._model = json.dumps(model).encode()
        self._encode = encode
        self._messages: list[bytes] = []
        self._segments: list[Segment] = []
        self._turns = 0

    def ask(self, turn: Turn) -> tuple[str, tuple[Segment, ...], bytes]:
        """Append the turn's messages; the request's name, what its prompt is made of, and its body."""
        for message in turn.messages:
            self._messages.append(self._encode(message))
            self._segments.append(Segment(message.seed, message.tokens))
        self._turns += 1
        return f"{self._name}-{self._turns}", tuple(self._segments), self._body(turn.output_tokens)

    def answer(self, text_json: bytes, output_tokens: int) -> Segment:
        """Append the answer to the last `ask`: its text as a JSON string. What it is in the next prompt."""
        segment = Segment(f"{self._name}-{self._turns}", output_tokens + MESSAGE_OVERHEAD_TOKENS)
        self._messages.append(b'{"role":"assistant","content":' + text_json + b"}")
        self._segments.append(segment)
        return segment

    def _body(self, output_tokens: int) -> bytes:
        return (
            b'{"model":%b,"messages":[%b],"max_tokens":%d,"ignore_eos":true,"temperature":0,'
            b'"stream":true,"stream_options":{"include_usage":true}}'
        ) % (self._model, b",".join(self._messages), output_tokens)


def _encode(message: Message) -> bytes:
    text = fixed_text(message.seed, message.text_tokens)
    return json.dumps({"role": message.role, "content": text}, separators=(",", ":")).encode()
