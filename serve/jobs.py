"""What the API process asks of a worker, and what comes back: numbers, and pictures only as Blurred ones."""

from dataclasses import dataclass
from typing import Literal

from serve.problems import Problem

Render = Literal["none", "image", "blurred"]


@dataclass(frozen=True, slots=True, repr=False)
class Job:
    """One picture. Its repr is short: LitServe formats each payload for a log line that is not written."""

    content: bytes  # the file as it came
    version: str | None  # the model that answers; None: only hide faces
    confidence: float | None  # None: the release's
    iou: float | None
    render: Render
    request_id: str = ""  # of the request that it belongs to, for what the worker logs about it

    def __repr__(self) -> str:
        return f"<Job {len(self.content)} B>"


@dataclass(frozen=True, slots=True)
class Hand:
    class_id: int
    confidence: float
    box: tuple[float, float, float, float]  # px


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
    """What a worker saw in one picture. Times in s."""

    hands: list[Hand]
    faces: int
    blurred: bool  # faces were looked for
    width: int
    height: int
    brightness: float
    sharpness: float
    decode: float
    hide: float
    detect: float
    jpeg: bytes | None  # of the blurred picture, where one was asked for


Outcome = Seen | Problem
