"""Structured logs on standard error: one JSON object a line, or plain text for people.

Fields hold the words of engines, clients and libraries, so any character: none of it may begin a line, or end one.
"""

import json
import logging
import re
import time
from typing import Any

from multipick_epp.telemetry.writer import Writer

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What a terminal obeys, or takes for the end of a line."""


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, room, message, the fields given as `extra`, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("multipick_epp."),
            "message": record.getMessage(),
        }
        entry |= extras(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)  # in ASCII, which is JSON in every encoding that the stream may have


class TextFormatter(logging.Formatter):
    """The same for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, with its traceback behind it if there is one."""
        fields = " ".join(f"{name}={value}" for name, value in extras(record).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname:<7} {record.getMessage()} {fields}".rstrip()
        trace = self.formatException(record.exc_info).split("\n") if record.exc_info else ()
        return "\n".join(_NO_TEXT.sub(_written_out, each) for each in (line, *trace))


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that the caller gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def check(level: str, form: str) -> None:
    """Raises ValueError for a level or format ("json", "text") that there isn't."""
    if level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"log level {level!r}: one of debug, info, warning, error")
    if form not in ("json", "text"):
        raise ValueError(f"log format {form!r}: json or text")


def configure(level: str, form: str) -> None:
    """Send all logs of this process to standard error. Raises ValueError as `check`."""
    check(level, form)
    handler = Writer()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("hpack").setLevel(logging.WARNING)  # below, it logs the headers of clients
