"""A check of one piece -> what it found."""

from dataclasses import dataclass
from typing import Literal

from stages.params import StageError


@dataclass(frozen=True)
class Finding:
    """detail: what was found, or the cause, or why nothing was tried. remedy: of a failure."""

    state: Literal["ok", "failed", "skipped"]
    detail: str
    remedy: str = ""


def ok(detail: str) -> Finding:
    return Finding("ok", detail)


def skipped(why: str) -> Finding:
    return Finding("skipped", why)


def failed(cause: str, remedy: str) -> Finding:
    return Finding("failed", cause, remedy)


def failed_by(error: StageError, remedy: str) -> Finding:
    """Its line is `cause; remedy`; the remedy given here is for one that ends with the cause."""
    cause, _, own = str(error).partition("; ")
    return failed(cause, own or remedy)
