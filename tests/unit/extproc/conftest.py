"""Plays one stream against the state machine, and reads what it answered."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gateway_messages import read
from multipick_epp.extproc.collected import Bounds, Kept
from multipick_epp.extproc.effects import (
    Ask,
    Check,
    Counted,
    Effect,
    End,
    FirstByte,
    Missed,
    Release,
    Send,
    Served,
    Undecided,
)
from multipick_epp.extproc.messages import GatewayMessage, Modes, Part, RequestBody, ResponseBody
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.extproc.stream import Stream
from multipick_epp.proto.ext_proc_pb2 import ProcessingResponse

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "ext_proc"


@dataclass
class Play:
    """One stream so far."""

    modes: Modes | None
    bounds: Bounds = field(default_factory=Bounds)
    kept: Kept = field(default_factory=Kept)
    counts_output: bool = False

    def __post_init__(self) -> None:
        self.stream = Stream(self.bounds, self.kept, counts_output=self.counts_output)
        self.sent: list[ProcessingResponse] = []
        self.asked: list[PickRequest] = []
        self.told: list[Effect] = []  # Served, FirstByte, Counted, Release
        self.missed: list[Undecided] = []
        self.to_check: Check | None = None  # what waits to be looked through
        self.ended = False
        self._first = True

    def hear(self, part: Part) -> None:
        # The short way of a chunk, where there is one, leads to the same as the long one.
        match part:
            case ResponseBody(data, end) if not self._first:
                short = self.stream.pass_on("response_body", data, end)
            case RequestBody(data, end) if not self._first:
                short = self.stream.pass_on("request_body", data, end)
            case _:
                short = None
        effects = self.stream.receive(GatewayMessage(part, self.modes if self._first else None))
        assert short is None or effects == [Send(short)]
        self._carry_out(effects)
        self._first = False

    def pick(self, outcome: Pick | NoPick | None) -> None:
        self._carry_out(self.stream.picked(outcome))

    def stop(self) -> None:
        self._carry_out(self.stream.stop())

    def check(self, outcome: bytes | NoPick | None = None) -> None:
        """The body was looked through; None: nothing was found in it."""
        assert self.to_check is not None
        body, self.to_check = self.to_check.body, None
        self._carry_out(self.stream.checked(body if outcome is None else outcome))

    def half_close(self) -> None:
        self._carry_out(self.stream.half_closed())

    def close(self) -> None:
        self._carry_out(self.stream.closed())

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(data):
                    assert not self.ended, "nothing may follow the end"
                    self.sent.append(ProcessingResponse.FromString(data))
                case Ask(request):
                    self.asked.append(request)
                case Check():
                    self.to_check = effect
                case End():
                    self.ended = True
                case Missed(how):
                    self.missed.append(how)
                case Served() | FirstByte() | Counted() | Release():
                    self.told.append(effect)

    @property
    def kinds(self) -> list[str]:
        return [kind(reply) for reply in self.sent]

    @property
    def released(self) -> list[str]:
        return [effect.reservation for effect in self.told if isinstance(effect, Release)]

    def chunks(self, side: str) -> list[tuple[bytes, bool]]:
        """The streamed pieces of a body that were sent on."""
        pieces = [
            getattr(reply, side).response.body_mutation.streamed_response for reply in self.sent if kind(reply) == side
        ]
        return [(piece.body, piece.end_of_stream) for piece in pieces]


def kind(reply: ProcessingResponse) -> str:
    name: str = reply.WhichOneof("response")
    return name


@pytest.fixture(scope="session")
def recorded() -> dict[str, list[GatewayMessage]]:
    """Conversations of the real Envoy by name."""
    return {
        file.stem: [read(base64.b64decode(message)) for message in json.loads(file.read_text())]
        for file in sorted(RECORDINGS.glob("*.json"))
    }


@pytest.fixture
def play() -> type[Play]:
    return Play
