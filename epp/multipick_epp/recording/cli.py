"""`multipick recording check` and `multipick recording make`."""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from multipick_epp.engines import EngineClient, Unanswered
from multipick_epp.events.discover import Addresses, FeedSpec, NoEvents, Ports, Unreachable, discover
from multipick_epp.recording.check import Row, TokenIdsOnly, check
from multipick_epp.recording.folder import BadRecording, Recording, load, save
from multipick_epp.recording.make import NoRecording, Target, record
from multipick_epp.tokens import Tokenizer
from multipick_epp.types import Endpoint

_EVENT_PORT = 5557


def command(argv: Sequence[str]) -> int:
    """0: all equal, or recorded; 1: a prediction differs; 2: nothing could be read or recorded."""
    options = _parser().parse_args(argv)
    try:
        return asyncio.run(_check(options) if options.action == "check" else _make(options))
    except BrokenPipeError:  # nobody reads the output any more
        raise
    except (BadRecording, NoRecording, OSError, ValueError) as error:
        print(f"multipick recording {options.action}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multipick recording", description="Check or make a recording of an engine.")
    actions = parser.add_subparsers(dest="action", required=True)
    checked = actions.add_parser("check", help="compare predicted with reported cached tokens, request by request")
    checked.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    checked.add_argument("--json", type=Path, metavar="FILE", help="write all rows to FILE, too")
    checked.add_argument("--tokenizer", type=Path, metavar="DIR", help="the model's folder: needed for text and chats")
    checked.add_argument("--model", action="append", metavar="NAME", help="a name of the base model; any other is LoRA")
    made = actions.add_parser("make", help="record a live engine; the recording contains the prompts that are sent")
    made.add_argument("--url", required=True, help="http://host:port of the engine")
    made.add_argument(
        "--events", metavar="ADDRESS", help="tcp://host:port of its publisher; default: asked of the engine"
    )
    made.add_argument("--replay", metavar="ADDRESS", help="tcp://host:port of its replay socket, with --events")
    made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="written anew; must not exist")
    made.add_argument(
        "--requests", type=Path, metavar="FILE", help="JSON lines: step, method, path, request, req_headers"
    )
    made.add_argument(
        "--settle", type=float, default=0.5, metavar="S", help="seconds to wait for events after an answer"
    )
    return parser


async def _check(options: argparse.Namespace) -> int:
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    try:
        recordings = [load(folder) for folder in options.folders]
        results = [
            (recording, await check(recording, tokenizer or TokenIdsOnly(), tuple(options.model or ())))
            for recording in recordings
        ]
    finally:
        if tokenizer:
            tokenizer.close()
    if options.json:
        options.json.write_text(json.dumps([_as_json(recording, rows) for recording, rows in results], indent=1) + "\n")
    for recording, rows in results:
        print("\n".join(table(recording, rows)))
    return int(any(row.verdict == "DIFFERENT" for _, rows in results for row in rows))


def table(recording: Recording, rows: Sequence[Row]) -> Iterator[str]:
    """One recording as lines of text."""
    yield f"{recording.name} ({recording.manifest.get('engine', 'unknown engine')})"
    yield f"  {'request':<56} {'prompt':>7} {'predicted':>9} {'reported':>8}"
    for row in rows:
        predicted = "-" if row.predicted is None else row.predicted
        verdict = f"{row.verdict}: {row.exempt}" if row.exempt else row.verdict
        yield f"  {row.step[:56]:<56} {row.prompt_tokens:>7} {predicted:>9} {row.reported:>8}  {verdict}"
    counts = Counter(row.verdict for row in rows)
    yield f"  {counts['equal']} equal, {counts['DIFFERENT']} different, {counts['exempt']} exempt\n"


def _as_json(recording: Recording, rows: Sequence[Row]) -> dict[str, Any]:
    counts = Counter(row.verdict for row in rows)
    return {
        "recording": recording.name,
        "engine": recording.manifest.get("engine"),
        "equal": counts["equal"],
        "different": counts["DIFFERENT"],
        "exempt": counts["exempt"],
        "requests": [
            {
                "step": row.step,
                "prompt_tokens": row.prompt_tokens,
                "predicted": row.predicted,
                "reported": row.reported,
                "verdict": row.verdict.lower(),
                "exempt": row.exempt or None,
            }
            for row in rows
        ],
    }


async def _make(options: argparse.Namespace) -> int:
    if options.out.exists():
        raise NoRecording(f"{options.out} exists already")
    requests = None
    if options.requests:
        requests = [json.loads(line) for line in options.requests.read_bytes().splitlines() if line.strip()]
    url = options.url.rstrip("/")
    if options.events:
        target = Target(url, [Addresses(options.events, options.replay)], settle_s=options.settle)
    else:
        found = await _discover(url)
        target = Target(url, list(found.values()), list(found), options.settle)
    recording, metrics = await record(options.out.name, target, requests, lambda step: print(f"  {step}", flush=True))
    save(options.out, recording)
    for name, page in zip(("metrics_00_start.txt", "metrics_99_end.txt"), metrics, strict=True):
        (options.out / name).write_text(page, encoding="utf-8")
    print(f"{options.out}: {len(recording.steps)} steps, {len(recording.messages)} event messages")
    return 0


async def _discover(url: str) -> Mapping[int, Addresses]:
    """The publisher of each rank. Raises NoRecording where one can't be found."""
    endpoint = Endpoint(urlsplit(url).netloc)
    engines = EngineClient()
    await engines.start()
    try:
        sources = await engines.event_sources(endpoint)
        ranks = [0] if isinstance(sources, Unanswered) else sorted(sources) or [0]
        found = {rank: await discover(engines, FeedSpec(endpoint, rank=rank), Ports(_EVENT_PORT)) for rank in ranks}
    except Unreachable as error:
        raise NoRecording(f"{url}: {error}") from error
    finally:
        await engines.close()
    if missing := [each.reason for each in found.values() if isinstance(each, NoEvents)]:
        raise NoRecording(f"{url}: {missing[0]}; name the publisher with --events")
    return {rank: each for rank, each in found.items() if isinstance(each, Addresses)}
