"""Traces in the formats that others publish, and in our own capture's: JSON lines, in one file or many, gzipped or not.

| format | told by | times | a hash id stands for | turn before |
|---|---|---|---|---|
| Mooncake | the default | ms | 512 tokens | guessed |
| Bailian | `chat_id` | s | 16 tokens | `parent_chat_id` |
| capture | `block_size` | ms | `block_size` tokens | by `turn`, else guessed |

All have `timestamp`, `input_length`, `output_length` (tokens) and `hash_ids`; a capture is Mooncake's with the block
size on each line, so that it goes into other projects' tools as it is. Where the turn before is not named, it is the
latest request of which all full blocks begin this prompt, two of them at least; that is a guess. A capture's `turn`
says how many answers a prompt has in it: the turn before has one less, and what follows its prompt here was its answer.

A line of a capture without `hash_ids` is a request whose prompt the picker could not read: it is equal to no other.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated

import msgspec
from msgspec import Meta, Struct

from multipick_sim.workloads.workload import NOBODY, Item, Prefixes, Workload

MOONCAKE_BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16
MAX_PROMPT_TOKENS = 1 << 21
MAX_OUTPUT_TOKENS = 1 << 18
MAX_LINE_BYTES = 1 << 22  # 131,072 ids of 20 digits and their commas are less
MAX_REQUESTS = 2_000_000
MAX_IDS = 30_000_000  # of all requests; about 1.5 GB
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
LEAST_COMMON_BLOCKS = 2


class TraceError(Exception):
    """The trace can't be read; the message names file and line."""


class Line(Struct, frozen=True):
    """One request; fields we don't know are ignored."""

    timestamp: Annotated[float, Meta(ge=0, le=1 << 42)]
    input_length: Annotated[int, Meta(ge=1, le=MAX_PROMPT_TOKENS)]
    output_length: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)]
    hash_ids: Annotated[Sequence[int | str], Meta(max_length=MAX_PROMPT_TOKENS)]
    block_size: Annotated[int, Meta(ge=1, le=1 << 16)] | None = None
    turn: Annotated[int, Meta(ge=0)] | None = None
    chat_id: int | str | None = None
    parent_chat_id: int | str | None = None


def read_workload(path: Path, requests: int | None = None) -> Workload:
    """The first `requests` requests (by time; all for None) of a file, or of all trace files of a folder.

    Raises TraceError for what can't be read, a line that is no request, lines of several formats, and no request.
    """
    lines, ids = [], 0
    for file in _files(path):
        for line in _lines(file):
            lines.append(line)
            ids += len(line.hash_ids)
            if ids > MAX_IDS or len(lines) > MAX_REQUESTS:
                raise TraceError(f"{path}: more than {MAX_REQUESTS} requests or {MAX_IDS} hash_ids; take a part of it")
    if not lines:
        raise TraceError(f"{path}: no requests in it")
    bailian = lines[0].chat_id is not None
    known = next((line for line in lines if line.hash_ids), lines[0])
    block_tokens = BAILIAN_BLOCK_TOKENS if bailian else known.block_size or MOONCAKE_BLOCK_TOKENS
    for line in lines:
        other_size = line.hash_ids and (line.block_size or block_tokens) != block_tokens
        if (line.chat_id is not None) != bailian or other_size:
            raise TraceError(f"{path}: not all of its lines have the same format and block size")
    lines.sort(key=lambda line: line.timestamp)
    lines = lines[:requests]
    parents = _named_parents(lines) if bailian else None
    items = _items(lines, block_tokens, 1.0 if bailian else 1e-3, parents)
    return Workload(path.name or str(path), block_tokens, items)


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    if not files:
        raise TraceError(f"{path}: no trace files ({', '.join(SUFFIXES)}) in it")
    return files


def _lines(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    open_it: Callable[[Path], IO[bytes]] = gzip.open if path.name.endswith(".gz") else _open  # type: ignore[assignment]
    number = 0
    try:
        with open_it(path) as file:
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise TraceError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes")
                if not raw.strip():
                    continue
                try:
                    yield decoder.decode(raw)
                except (ValueError, msgspec.MsgspecError):
                    if raw.endswith(b"\n") or number == 1:
                        raise
                    return  # the last line, which a picker is still writing
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(
            f"{path}: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
        ) from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise TraceError(f"{path}, line {number}: {error}") from error


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _named_parents(lines: Sequence[Line]) -> Sequence[int]:
    """The latest request before each that has the chat id it names as its parent."""
    latest: dict[int | str, int] = {}
    parents = []
    for number, line in enumerate(lines):
        parents.append(NOBODY if line.parent_chat_id is None else latest.get(line.parent_chat_id, NOBODY))
        if line.chat_id is not None:
            latest[line.chat_id] = number
    return parents


def _items(lines: Sequence[Line], block_tokens: int, second: float, parents: Sequence[int] | None) -> Sequence[Item]:
    chain = Prefixes()
    begin = lines[0].timestamp
    ends: dict[tuple[int, int | None], int] = {}  # the prefix of all of a request's full blocks, its turn -> it
    items: list[Item] = []
    for number, line in enumerate(lines):
        unread = line.block_size is not None and not line.hash_ids
        full = 0 if unread else line.input_length // block_tokens
        if len(line.hash_ids) < full:
            raise TraceError(
                f"{line.input_length} input tokens have {full} full blocks of {block_tokens}, "
                f"but there are {len(line.hash_ids)} hash_ids (request {number + 1} by time)"
            )
        turn = line.turn if line.block_size is not None else None
        prefixes = chain.number(line.hash_ids[: -(-line.input_length // block_tokens)])
        after = parents[number] if parents is not None else _guess(ends, prefixes[:full], turn)
        if after != NOBODY and (parents is not None or turn is not None):
            items[after] = _with_answer(items[after], prefixes[:full], block_tokens)
        if full:
            ends[prefixes[full - 1], turn] = number
        at_s = (line.timestamp - begin) * second
        tokens = line.input_length
        items.append(Item(at_s, tokens, max(1, line.output_length), prefixes, tokens, after))
    return items


def _guess(ends: Mapping[tuple[int, int | None], int], full: Sequence[int], turn: int | None) -> int:
    before = turn - 1 if turn is not None else None
    for place in range(len(full) - 1, LEAST_COMMON_BLOCKS - 2, -1):
        if (full[place], before) in ends:
            return ends[full[place], before]
    return NOBODY


def _with_answer(item: Item, next_turn: Sequence[int], block_tokens: int) -> Item:
    """A request whose answer's blocks are those of the next turn's prompt, if that begins with this prompt."""
    full = item.prompt_tokens // block_tokens
    known = min(item.prompt_tokens + item.output_tokens, len(next_turn) * block_tokens)
    if known <= item.known_tokens or list(next_turn[:full]) != list(item.prefixes[:full]):
        return item
    return item._replace(prefixes=next_turn[: -(-known // block_tokens)], known_tokens=known)
