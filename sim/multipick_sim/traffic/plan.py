"""What clients are going to ask, as plain values: sessions of turns of messages.

A plan has no text, only the seeds of texts: a trace of 12,000 long prompts is then a few megabytes, and two policies
are given the very same requests. All times are engine seconds, the time that the simulated pods live in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# What ChatML adds under the shipped tokenizer: <|im_start|> role \n … <|im_end|> \n around a message, and
# <|im_start|> assistant \n for the answer to come.
MESSAGE_OVERHEAD_TOKENS = 5
ANSWER_OPENING_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message whose text is `fixed_text(seed, text_tokens)`."""

    role: str
    seed: int
    text_tokens: int

    @property
    def tokens(self) -> int:
        """What the message takes in a prompt."""
        return self.text_tokens + MESSAGE_OVERHEAD_TOKENS


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: the conversation so far, with the real answers in it, and then `messages`."""

    wait_s: float  # after the previous answer's end; of a first turn after the session's start
    messages: tuple[Message, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation."""

    start_s: float
    turns: tuple[Turn, ...]


def request_count(sessions: Sequence[Session]) -> int:
    """How many requests a plan makes."""
    return sum(len(session.turns) for session in sessions)
