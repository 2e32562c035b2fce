import json
import logging
import sys

import pytest
from multipick_epp.telemetry import logs


def record(**extra: object) -> logging.LogRecord:
    entry = logging.makeLogRecord(
        {"name": "multipick_epp.pods.monitor", "levelname": "INFO", "msg": "endpoint changed"}
    )
    vars(entry).update(extra)
    return entry


def test_a_json_line_has_the_message_the_room_and_every_field() -> None:
    line = json.loads(logs.JsonFormatter().format(record(endpoint="1.2.3.4:8000", ready=True)))
    assert line["message"] == "endpoint changed"
    assert line["room"] == "pods.monitor"
    assert (line["endpoint"], line["ready"]) == ("1.2.3.4:8000", True)


def test_a_line_break_in_a_field_stays_in_its_line() -> None:
    assert "\n" not in logs.JsonFormatter().format(record(why="first\nsecond"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_a_json_line_is_json_in_every_encoding_of_the_stream(encoding: str) -> None:
    why = "é 中 😀 \udcff a\u2028b"
    line = logs.JsonFormatter().format(record(why=why)).encode(encoding, "backslashreplace")
    assert json.loads(line.decode())["why"] == why


def test_nothing_in_a_text_line_moves_the_cursor_or_begins_another_line() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        failed = sys.exc_info()
    formatted = logs.TextFormatter().format(record(why="a\r\nb\x1b[2J\x9b1m\x85\u2028c é", exc_info=failed))
    line, *trace = formatted.split("\n")
    assert line.endswith(r"why=a\r\nb\x1b[2J\x9b1m\x85\u2028c é")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == r"ValueError: \x1b[2J"


def test_a_text_line_is_for_people() -> None:
    assert logs.TextFormatter().format(record(endpoint="x")).endswith("INFO    endpoint changed endpoint=x")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="json or text"):
        logs.configure("info", "xml")
