"""Log records -> lines: text on a terminal, JSON elsewhere, each with the id of the request that it is about.

What opens doors is taken out of each, whoever wrote it: a library may name the signed address that it asks again.
"""

import json
import logging
import sys
import threading
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from stages.mlflow_client import redacted

logger = logging.getLogger(__name__)

current_request: ContextVar[str] = ContextVar("current_request", default="")

FIELDS = ("method", "path", "status", "ms")  # of a request's line; nothing else that a record carries is written


def request_id() -> str:
    """Of the request that is being answered; empty outside of one."""
    return current_request.get()


def configure_logging(log_format: Literal["auto", "text", "json"], prefix: str = "serve") -> None:
    """In each process that serves: our loggers at INFO, everybody else's at WARNING, and what nobody caught, on stderr.

    prefix: of a line of text.
    """
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines(prefix) if is_text else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    for ours in ("serve", "stages", "ops"):
        logging.getLogger(ours).setLevel(logging.INFO)


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("ended by an error", exc_info=(kind, error, trace))


def uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit:
        logger.critical("a thread ended by an error", exc_info=ended.exc_value)


class TextLines(logging.Formatter):
    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        about = f" [{request_id()}]" if request_id() else ""
        error = f"\n{way_to(record)}" if record.exc_info else ""
        return f"{self._prefix}: {level}{redacted(record.getMessage())}{about}{error}"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
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
