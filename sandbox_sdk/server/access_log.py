"""Log records as lines of JSON, and without what a request holds."""

from __future__ import annotations

import json
import logging

from aiohttp.http_exceptions import HttpProcessingError

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Discreet(logging.Filter):
    """Takes out of aiohttp's reports of malformed requests what they quote: it may be a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without the bytes of a request."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            record.msg, record.args, record.exc_info = "server.malformed", (), None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record's time, level, name and what was said with it; a traceback as one text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                known = isinstance(value, str | int | float | bool | None)
                line[name] = value if known else str(value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
