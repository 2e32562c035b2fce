"""Structured logs on standard error: one JSON object a line, or plain text for people."""

import json
import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_KOPF = frozenset({"k8s_ref", "k8s_skip", "settings"})  # kopf's own marks, of no use to a reader


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, logger, message, the fields given as `extra`, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("multipick_operator."),
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD | _KOPF}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)  # in ASCII, which is JSON in every encoding that the stream may have


def configure(level: str, form: str) -> None:
    """Send all logs of this process to standard error. `form`: json or text."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("kopf").setLevel(logging.CRITICAL)  # what ends a watch is told once, by its supervisor
