"""JSON as deep as the API server lets an object be is read, on a CPython whose C code reads less."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from multipick_operator import cli, logs

LEVELS = 9_993  # the API server takes so many in a podTemplate
C_LEVELS = 1_500  # as of CPython 3.12
SHAPES = [('{"a":', "{}", "}"), ("[", "[]", "]"), ('{"a":[', "{}", "]}")]


@pytest.fixture
def as_the_operator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Calls something where the operator does its work, on an interpreter whose C code goes no deeper than C_LEVELS."""
    decoder: Any = json._default_decoder  # type: ignore[attr-defined]
    plain, limit = decoder.scan_once, sys.getrecursionlimit()

    def in_c(text: str, start: int) -> Any:
        if text.count("{") + text.count("[") > C_LEVELS:
            raise RecursionError
        return plain(text, start)

    def call(work: Callable[[], None]) -> None:
        async def run(_: object) -> None:
            work()

        monkeypatch.setattr(cli, "_run", run)
        assert cli.command(["--picker-image", "i"]) == 0

    monkeypatch.setattr(decoder, "scan_once", in_c)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    yield call
    sys.setrecursionlimit(limit)


def depth(found: Any) -> int:
    levels = 0
    while found:
        found = found["a"] if isinstance(found, dict) else found[0]
        levels += 1
    return levels


@pytest.mark.parametrize(("opening", "inmost", "closing"), SHAPES)
def test_an_object_as_deep_as_the_api_server_takes_is_read(
    as_the_operator: Callable[[Callable[[], None]], None], opening: str, inmost: str, closing: str
) -> None:
    def work() -> None:
        times = LEVELS // len(closing)
        assert depth(json.loads(opening * times + inmost + closing * times)) == times * len(closing)

    as_the_operator(work)


def test_what_is_no_json_or_has_no_end_is_an_error_as_before(
    as_the_operator: Callable[[Callable[[], None]], None],
) -> None:
    def work() -> None:
        for text in ("", "{", "[" * 2 * C_LEVELS + "?", '{"a":' * 2 * C_LEVELS):
            with pytest.raises(json.JSONDecodeError):
                json.loads(text)
        with pytest.raises(RecursionError):
            json.loads("[" * 100_000)

    as_the_operator(work)
