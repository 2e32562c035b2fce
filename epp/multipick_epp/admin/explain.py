"""`multipick explain ID`: why a request went where it went, asked of a running picker."""

import argparse
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

import msgspec

from multipick_epp.decision.explained import Explained

ASK_S = 5.0
HEADS = ("endpoint", "hit", "new", "queued", "in flight", "score")


def command(argv: Sequence[str]) -> int:
    """Run it; 1 where no picker that was asked knows the request."""
    arguments = _parser().parse_args(argv)
    failed = []
    for picker in arguments.picker or ["http://127.0.0.1:9090"]:
        try:
            url = f"{picker.rstrip('/')}/explain/{urllib.parse.quote(arguments.id, safe='')}"
            with urllib.request.urlopen(url, timeout=ASK_S) as answer:
                body = answer.read()
            explained = msgspec.json.decode(body, type=Explained)
        except urllib.error.HTTPError as error:
            failed.append(f"{picker}: {error.read(200).decode(errors='replace').strip() or error}")
        except (OSError, ValueError, HTTPException, msgspec.ValidationError) as error:
            failed.append(f"{picker}: {' '.join(str(error).split()) or type(error).__name__}")
        else:
            print(body.decode() if arguments.json else "\n".join(lines(explained)))
            return 0
    print("\n".join(f"multipick explain: {each}" for each in failed), file=sys.stderr)
    return 1


def lines(explained: Explained) -> list[str]:
    """For people."""
    rows = [
        (
            f"{'*' if each.endpoint == explained.endpoint else ' '} {each.endpoint}",
            *map(str, (each.hit_tokens, each.new_tokens, each.queued_tokens, each.in_flight)),
            "" if each.score is None else f"{each.score:g}",
        )
        for each in explained.considered
    ]
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (HEADS, *rows)]
    what = f"{explained.prompt_tokens} prompt tokens, {explained.policy}, {explained.mode}"
    first = None if explained.first_byte_s is None else f"first byte after {explained.first_byte_s:.3f} s"
    ended = None if explained.ended_s is None else f"{explained.ended} after {explained.ended_s:.3f} s"
    return [
        f"{explained.request or explained.reservation}: {what}",
        f"sent to {explained.endpoint}: {explained.why}",
        f"charged {explained.charged_tokens} tokens there, "
        f"where {explained.queued_before} were queued and {explained.in_flight_before} requests in flight",
        *[", ".join(filter(None, (first, ended))) or "not answered yet"],
        f"of {explained.endpoints} endpoints, best first:",
        *table,
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multipick explain", description=__doc__)
    parser.add_argument("id", help="the request's x-request-id, or the picker's own name of its reservation")
    parser.add_argument(
        "--picker", action="append", metavar="URL", help="admin port, may come again (default http://127.0.0.1:9090)"
    )
    parser.add_argument("--json", action="store_true", help="as the picker answers")
    return parser
