"""Structured logs on standard error: one JSON object a line, or plain text for people."""

import json
import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, with its traceback behind it if there is one."""
        fields = " ".join(f"{name}={value}" for name, value in extras(record).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname:<7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that the caller gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def check(level: str, form: str) -> None:
    """Raises ValueError for a level or format ("json", "text") that there isn't."""
    if level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"log level {level!r}: one of debug, info, warning, error")
    if form not in ("json", "text"):
        raise ValueError(f"log format {form!r}: json or text")


def configure(level: str, form: str) -> None:
    """Send all logs of this process to standard error. Raises ValueError as `check`."""
    check(level, form)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("hpack").setLevel(logging.WARNING)  # below, it logs the headers of clients
