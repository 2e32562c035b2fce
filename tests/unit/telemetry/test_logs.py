import json
import logging

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


def test_a_text_line_is_for_people() -> None:
    assert logs.TextFormatter().format(record(endpoint="x")).endswith("INFO    endpoint changed endpoint=x")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="json or text"):
        logs.configure("info", "xml")
