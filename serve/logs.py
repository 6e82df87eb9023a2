"""Log records -> lines: text on a terminal, JSON elsewhere, each with the id of the request that it is about."""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

current_request: ContextVar[str] = ContextVar("current_request", default="")

FIELDS = ("method", "path", "status", "ms")  # of a request's line; nothing else that a record carries is written


def request_id() -> str:
    """Of the request that is being answered; empty outside of one."""
    return current_request.get()


def configure_logging(log_format: Literal["auto", "text", "json"]) -> None:
    """In each process of the server: our loggers at INFO, everybody else's at WARNING, on stderr."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines() if is_text else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("serve", "stages"):
        logging.getLogger(ours).setLevel(logging.INFO)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        about = f" [{request_id()}]" if request_id() else ""
        error = f"\n{way_to(record)}" if record.exc_info else ""
        return f"serve: {level}{record.getMessage()}{about}{error}"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id() or None,
            "error": way_to(record) if record.exc_info else None,
            **{name: getattr(record, name, None) for name in FIELDS},
        }
        return json.dumps({name: value for name, value in line.items() if value is not None})


def way_to(record: logging.LogRecord) -> str:
    """The lines of code that led to an exception, and its type: its message may quote what was sent, even a picture."""
    error = record.exc_info[1] if record.exc_info else None
    links = []
    while error is not None:
        links.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nled to\n".join(reversed(links))
