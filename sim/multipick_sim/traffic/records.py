"""What came of one request, as the client saw it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt. Prompts with equal leading segments have equal leading tokens."""

    name: int | str  # an int is the seed of a fixed text; a string names an answer
    tokens: int  # in the prompt, the chat template's own tokens included


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are engine seconds since the run began; None stands for what was never seen."""

    name: str  # the x-request-id it was sent with
    segments: tuple[Segment, ...]  # of its prompt
    answer: Segment  # its answer, as a later prompt of the session has it
    sent_s: float
    first_token_s: float | None
    end_s: float
    prompt_tokens: int  # by the engine's usage, as the next two
    output_tokens: int
    cached_tokens: int | None
    counted_tokens: int | None  # of the prompt, by the picker
    predicted_tokens: int | None  # the hit that the picker foresaw
    endpoint: str | None  # where the picker sent it
    mode: str | None  # how well the picker knew that endpoint's cache
    status: int  # of HTTP; 0 = no response
    error: str | None = None  # None = a whole answer came

    @property
    def ok(self) -> bool:
        """A whole answer came."""
        return self.error is None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token."""
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None where there was no second one."""
        if self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.end_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """Time from sending to the answer's last byte."""
        return self.end_s - self.sent_s
