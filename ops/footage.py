"""A video or a camera -> fingers counted in each frame, and smoothed over half a second."""

import logging
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from ops.audit import VIDEOS, opened
from ops.counter import Counter
from ops.predict import as_line, told
from ops.show import Row
from serve.client import ServerError
from serve.problems import Problem
from serve.schema import Answer, ErrorDetail
from stages.files import write_bytes, write_text
from stages.params import StageError
from stages.sources.tree import suffix
from stages.vision.images import Image

logger = logging.getLogger(__name__)

# Nobody changes their fingers faster. Of the counts within, the median is taken: a wrong frame or two do not show, a
# change stays as sharp as it was, and unlike a mean it is a count that was seen.
SMOOTHING = 0.5  # s


@dataclass(frozen=True)
class Frame:
    number: int  # from 0
    seconds: float  # from the beginning
    image: Image


class Result(BaseModel):
    """A line of results."""

    model_config = ConfigDict(frozen=True)

    frame: int
    seconds: float
    finger_count: int | None = None  # None: no answer
    smoothed_count: int | None = None  # None: no answer near
    answer: Answer | None = None
    error: ErrorDetail | None = None


def camera_in(what: Sequence[Path]) -> int | None:
    """camera, camera:0, camera:1 -> its number."""
    found = re.fullmatch(r"camera(?::(\d{1,3}))?", str(what[0])) if len(what) == 1 else None
    return int(found[1] or 0) if found else None


def video_in(what: Sequence[Path]) -> Path | None:
    return what[0] if len(what) == 1 and suffix(what[0].name) in VIDEOS and not what[0].is_dir() else None


def default_out(video: Path) -> Path:
    """Its name, here."""
    return Path(f"{video.name}.jsonl")


def count(path: Path, counter: Counter, out: Path, save: Path | None, every: int = 1) -> list[Result]:
    """Of each every-th frame; out is written whole, at the end. save: a JPEG a frame. Raises StageError."""
    with opened(path) as video:
        stated = max(0, round(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        frames, total = frames_of(video, every), -(-stated // every) or None
        seen = tqdm(frames, total=total, desc="count", unit="frame", disable=None, delay=2)
        results = [one(frame, counter, save) for frame in seen]
    if not results:
        raise StageError(f"{path}: not found, or not a video that OpenCV reads")
    if results[-1].frame + every < stated:
        logger.warning("%s: ends at frame %d, of %d that its header states", path, results[-1].frame, stated)
    counts = smoothed([result.seconds for result in results], [result.finger_count for result in results])
    results = [r.model_copy(update={"smoothed_count": count}) for r, count in zip(results, counts, strict=True)]
    write_text(out, "".join(map(as_line, results)))
    return results


def frames_of(video: cv2.VideoCapture, every: int) -> Iterator[Frame]:
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    number = 0
    while video.grab():
        if number % every == 0:
            read, image = video.retrieve()
            if not read:
                return
            yield Frame(number, round(number / rate, 3), as_rgb(image))
        number += 1


def as_rgb(image: cv2.typing.MatLike) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def one(frame: Frame, counter: Counter, save: Path | None) -> Result:
    try:
        counted = counter.frame(frame.image, draw=save is not None)
    except (Problem, ServerError) as error:
        return Result(frame=frame.number, seconds=frame.seconds, error=told(error))
    if save and counted.drawn:
        write_bytes(save / f"frame-{frame.number:06}.jpg", counted.drawn)
    count = counted.answer.finger_count
    return Result(frame=frame.number, seconds=frame.seconds, finger_count=count, answer=counted.answer)


def smoothed(seconds: Sequence[float], counts: Sequence[int | None]) -> list[int | None]:
    """For each frame the median of the counts around it, half of SMOOTHING to either side."""
    found: list[int | None] = []
    low = high = 0
    for now in seconds:
        while seconds[low] < now - SMOOTHING / 2:
            low += 1
        while high < len(seconds) and seconds[high] <= now + SMOOTHING / 2:
            high += 1
        found.append(middle(counts[low:high]))
    return found


def middle(counts: Sequence[int | None]) -> int | None:
    """The median of those known; of two in the middle the lower, for their mean may be a count that nobody showed."""
    known = [count for count in counts if count is not None]
    return statistics.median_low(known) if known else None


def stretches(results: Sequence[Result]) -> list[Row]:
    """A row for each stretch of frames with the same smoothed count."""
    groups = [list(group) for _, group in groupby(results, lambda result: result.smoothed_count)]
    return [
        {"from s": first.seconds, "to s": last.seconds, "fingers": first.smoothed_count, "frames": len(group)}
        for group in groups
        for first, last in [(group[0], group[-1])]
    ]


def watch(index: int, counter: Counter) -> None:
    """Until Ctrl-C: on a terminal one line that changes, elsewhere a line for each new count. Raises StageError."""
    video = cv2.VideoCapture(index)
    try:
        if not video.isOpened():
            raise StageError(f"camera:{index}: cannot be opened; is it there, and free? camera:1 is the next one")
        video.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that waited
        with suppress(KeyboardInterrupt):
            tell(live(video), counter)
            raise StageError(f"camera:{index}: gives no more pictures; was it unplugged, or taken by another program?")
    finally:
        video.release()


def live(video: cv2.VideoCapture) -> Iterator[Frame]:
    began, number = time.monotonic(), 0
    while (read := video.read())[0]:
        yield Frame(number, time.monotonic() - began, as_rgb(read[1]))
        number += 1


def tell(frames: Iterator[Frame], counter: Counter) -> None:
    """What was seen, smoothed over the last half second: later frames are not there yet."""
    recent: list[Result] = []
    shown: int | None = None
    for frame in frames:
        result = one(frame, counter, None)
        recent = [past for past in recent if frame.seconds - past.seconds <= SMOOTHING] + [result]
        count = middle([past.finger_count for past in recent])
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K{in_words(count, result)}")
        elif count != shown:
            sys.stdout.write(f"{frame.seconds:.1f} s: {in_words(count, result)}\n")
        sys.stdout.flush()
        shown = count


def in_words(count: int | None, result: Result) -> str:
    if result.answer is None:
        return f"no answer: {result.error.message if result.error else 'unknown'}"
    answer = result.answer
    unknown = f", {answer.unknown_hands} unknown" if answer.unknown_hands else ""
    hands, faces = len(answer.predictions), answer.faces_blurred
    took = f"{answer.timing_ms.total:.0f} ms"
    return f"{count} fingers; now {answer.finger_count} on {hands} hands{unknown}, {faces} faces hidden, {took}"
