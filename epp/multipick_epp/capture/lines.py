"""One request -> lines of a trace: Mooncake's format, with the block size on each line.

An id stands for one block of the prompt and all before it, as a block key does, but goes through AES under the pool's
salt: equal ids are equal prefixes, in the files of all pickers of the pool and of all its days, while nobody who has
the files can tell what an id stands for, or try whether it stands for a text that he guesses.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from multipick_epp.types import BlockKey

ID_BITS = 53
"""What a JSON number holds in every language."""
MAX_BLOCKS = 131_072
"""Of one prompt: a line of 2 MB, which `multipick replay` still reads."""


class Told(StrEnum):
    """Where an answer's length comes from."""

    USAGE = "usage"  # the engine's own count, in the response that passed here
    STEPS = "steps"  # a guess: what its engine did while it ran
    NOBODY = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt of a request, as small as it can be kept."""

    tokens: int
    block_size: int  # tokens; 0: its blocks are not known
    keys: bytes  # those of its full blocks, 8 bytes each


@dataclass(frozen=True, slots=True)
class Captured:
    """One request that is over."""

    at_s: float  # Unix time, when it came
    parts: Sequence[Part]
    turn: int | None  # answers that the prompt has in it already; None where it is no chat
    output_tokens: int  # of the answers to all parts
    told: Told


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    timestamp: int  # ms since 1970
    input_length: int
    output_length: int
    hash_ids: Sequence[int]
    block_size: int
    output_from: Told
    turn: int | None = None


class Lines:
    """Makes the lines of one pool."""

    def __init__(self, secret: bytes, pool: str) -> None:
        """`secret` is the pool's, of any length but 0; what its pickers share makes ids of one kind."""
        salt = blake2b(pool.encode(), key=blake2b(secret).digest(), person=b"capture", digest_size=16).digest()
        self._cipher = Cipher(algorithms.AES(salt), modes.ECB())  # a permutation of keys: none comes twice in a chain
        self._block_size = 16  # of the last prompt whose blocks were known, for those whose are not
        self._encoder = msgspec.json.Encoder()

    def of(self, request: Captured) -> bytes:
        """A line a prompt, each with its share of the answers' tokens."""
        made = bytearray()
        count = len(request.parts)
        for place, part in enumerate(request.parts):
            self._block_size = part.block_size or self._block_size
            share = request.output_tokens * (place + 1) // count - request.output_tokens * place // count
            line = _Line(
                round(request.at_s * 1000),
                max(1, part.tokens),
                share,
                self._ids(part.keys),
                self._block_size,
                request.told,
                request.turn,
            )
            made += self._encoder.encode(line) + b"\n"
        return bytes(made)

    def _ids(self, keys: bytes) -> Sequence[int]:
        wide = array("Q", bytes(2 * len(keys)))
        wide[::2] = array("Q", keys)
        encryptor = self._cipher.encryptor()
        salted = array("Q", encryptor.update(wide.tobytes()) + encryptor.finalize())
        return [each >> (64 - ID_BITS) for each in salted[::2]]


def part(tokens: int, block_size: int = 0, keys: Sequence[BlockKey] = ()) -> Part:
    """One prompt; without `keys` its blocks are not known."""
    return Part(tokens, block_size, array("Q", keys).tobytes())
