"""Replays a recording through the picker's own rooms, and compares predicted with reported cached tokens.

Before each request the index is brought to where the engine's messages had brought it. Two things that a picker learns
otherwise than by messages are taken from the steps: that the engine was restarted (a picker sees the connection break),
and that a call dropped the cache. vLLM does so at once, but says so only in the batch of its next step.

Each data-parallel rank publishes by itself; a batch names its rank, a request that was sent to one has a header.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multipick_epp.blocks import root_key
from multipick_epp.decision.prompts import Blind, Encoder, Known, PromptReader
from multipick_epp.decision.sizes import HashedSizes
from multipick_epp.events.decode import Batch, Cleared
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.feed import Feed
from multipick_epp.events.sequence import Ask, BatchSequence, Begin, Effect
from multipick_epp.events.upload import upload
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.recording.folder import RecordedMessage, Recording
from multipick_epp.requests.prompt import TokenIds, TokenSource
from multipick_epp.requests.rank_header import RANK_HEADER, heeds_rank
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.tokens import Untokenised
from multipick_epp.types import Endpoint, Mode, rank_at

_ENGINE = Endpoint("recorded:0")
_SECRET = b""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of the recording."""

    step: str
    prompt_tokens: int
    reported: int  # cached tokens, by the engine's usage
    predicted: int | None  # by the index; None: the prompt could not be read
    exempt: str = ""  # why the two may differ; "": they may not

    @property
    def verdict(self) -> str:
        """equal, DIFFERENT or exempt."""
        if self.exempt:
            return "exempt"
        return "equal" if self.predicted == self.reported else "DIFFERENT"


async def check(recording: Recording, encoder: Encoder, models: tuple[str, ...] = ()) -> list[Row]:
    """A row for each request whose answer reports cached tokens. `models` replaces the recording's own names."""
    replay = _Replay(recording, encoder, models or tuple(recording.models))
    return [row for step in recording.steps for row in await replay.step(step)]


class TokenIdsOnly:
    """An encoder for recordings whose prompts are token ids."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        """The ids that the request brings."""
        return source.ids if isinstance(source, TokenIds) else Untokenised("no tokenizer")


class _Rank:
    """One data-parallel rank of the engine, as a picker follows it."""

    def __init__(self, number: int, base: str) -> None:
        self.endpoint = rank_at(_ENGINE, number)
        self.began_late = False  # its first message was not the first that its publisher sent
        self.feed = Feed(FeedSpec(self.endpoint, rank=number), lambda lora: root_key(_SECRET, base, lora), lambda: None)
        self._sequence = BatchSequence(replay=False)

    def take(self, message: RecordedMessage) -> None:
        """A message of its publisher."""
        self._do(self._sequence.live(message.seq, message.frames[-1]))

    def restart(self) -> None:
        """The process is another one."""
        self._sequence = BatchSequence(replay=False)
        self.feed.sink(Begin(complete=True))

    def drop_cache(self) -> None:
        """By a call."""
        if incarnation := self.feed.incarnation:
            incarnation.batches += 1
            incarnation.tracker.apply(Batch(0.0, [Cleared()], 0))

    @property
    def is_known(self) -> bool:
        """All that it holds came with the messages."""
        incarnation = self.feed.incarnation
        return incarnation.tracker.mode is not Mode.APPROX if incarnation else not self.began_late

    def _do(self, effects: Iterator[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Ask):  # which never happens without a replay socket
                self.feed.sink(effect)


class _Replay:
    """The rooms of one picker, and how many messages they have got."""

    def __init__(self, recording: Recording, encoder: Encoder, models: tuple[str, ...]) -> None:
        base = models[0] if models else ""
        self._messages = recording.messages
        self._told = 0
        self._state = MemoryState()
        self._ranks = {number: _Rank(number, base) for number in recording.ranks}
        self._reader = PromptReader(
            encoder, models, _SECRET, HashedSizes(self._state.block_sizes), Metrics().stage_seconds
        )
        for message in reversed(self._messages):
            self._of(message).began_late = message.seq != 0

    async def step(self, step: Mapping[str, Any]) -> list[Row]:
        """Bring the index to the step's begin, predict, and take note of what the step did to the cache."""
        begin = step.get("msg_range", (self._told, 0))[0]
        for message in self._messages[self._told : begin]:
            self._of(message).take(message)
        self._told = max(self._told, begin)
        for rank in self._ranks.values():
            await upload(self._state, rank.feed, math.inf)  # nothing waits: a recording has its own time
        together = step.get("parallel")
        requests = together if together is not None else [step]
        rows = [row for request in requests if (row := await self._row(step, request, together is not None))]
        for rank in self._ranks.values():
            if is_restart(step):
                rank.restart()
            elif drops_cache(step):
                rank.drop_cache()
        return rows

    async def _row(self, step: Mapping[str, Any], request: Mapping[str, Any], together: bool) -> Row | None:
        usage = usage_of(request)
        reported = ((usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens")
        body = request.get("request")
        if not isinstance(reported, int) or not isinstance(body, dict):
            return None
        headers = {name.lower(): value for name, value in (request.get("req_headers") or {}).items()}
        sent = PickRequest("POST", str(request["path"]), headers, json.dumps(body).encode())
        read = await self._reader.read(sent)
        name = str(step.get("step", ""))
        prompt_tokens = int((usage or {}).get("prompt_tokens") or 0)
        if isinstance(read, Blind):
            return Row(name, prompt_tokens, reported, None, f"prompt not read: {read.reason}")
        ranks = self._serving(sent)
        hits = [self._hit(read, rank) for rank in ranks]
        exempt = _exempt(read, body, together)
        if not all(rank.is_known for rank in ranks):
            exempt = exempt or "the recording lacks messages from before it: the cache is not known whole"
        if len(set(hits)) > 1:
            exempt = exempt or "the engine chose one of its ranks, which hold different prompts"
        return Row(name, prompt_tokens, reported, min(hits), exempt)

    def _serving(self, request: PickRequest) -> Sequence[_Rank]:
        """The rank that the request names, else all that the engine may have chosen."""
        named = request.headers.get(RANK_HEADER, "") if heeds_rank(request.path) else ""
        ranks = list(self._ranks.values())
        index = int(named) if named.isascii() and named.isdigit() and len(named) < 10 else len(ranks)
        return [ranks[index]] if index < len(ranks) else ranks

    def _of(self, message: RecordedMessage) -> _Rank:
        """One that can't be read is the first rank's: where there is one only, that is known to be incomplete."""
        number = message.rank
        return next(iter(self._ranks.values())) if number is None else self._ranks[number]

    def _hit(self, read: Known, rank: _Rank) -> int:
        if not read.reads_cache:
            return 0
        return sum(self._state.hits(chains).get(rank.endpoint, 0) for chains in read.chains)


def usage_of(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage that an answer reports, whole or streamed; None where it reports none."""
    response = request.get("response")
    usage = response.get("usage") if isinstance(response, dict) else None
    for _, line in request.get("sse", ()):
        if isinstance(line, str) and line.startswith("data: {"):
            try:
                usage = json.loads(line.removeprefix("data: ")).get("usage") or usage
            except ValueError:
                continue  # the client left in the middle of it
    return usage if isinstance(usage, dict) else None


def is_restart(step: Mapping[str, Any]) -> bool:
    """A step without a request, in which the engine was started again."""
    return "method" not in step and "parallel" not in step and "restart" in str(step.get("step", "")).lower()


def drops_cache(step: Mapping[str, Any]) -> bool:
    """A call after which the engine's cache is empty."""
    path, _, query = str(step.get("path", "")).partition("?")
    if step.get("status") != 200:
        return False
    if path == "/reset_prefix_cache":
        response = step.get("response")
        return not isinstance(response, dict) or response.get("success") is not False
    if path == "/sleep":
        return "level=0" not in query
    return path == "/pause" and "clear_cache=false" not in query and "mode=keep" not in query


def _exempt(read: Known, body: Mapping[str, Any], together: bool) -> str:
    if together:
        return "sent together with others: requests of one engine step hit each other's blocks"
    if len(read.chains) > 1:
        return "several prompts in one request: they hit each other's blocks"
    if body.get("n", 1) not in (None, 1):
        return f"n={body['n']}: its samples hit each other's blocks"
    return ""
