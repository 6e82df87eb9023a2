"""Pictures and videos -> copies with faces hidden, and how many in each, for a person to check; given boxes, recall."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ops.show import Row
from stages.files import read_json, whole_directory, write_json
from stages.params import FaceParams, StageError
from stages.sources.tree import PICTURES, list_directory, suffix
from stages.vision.boxes import Boxes, from_yolo
from stages.vision.faces import Blur, Blurred, covered, regions
from stages.vision.images import Image, Unreadable, encode_jpeg, read_image

logger = logging.getLogger(__name__)

VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"}
ENOUGH = 0.9  # of a face's box: less hidden, and the face counts as missed
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Look:
    """What became of a picture, or of a frame of a video."""

    file: str  # relative, with /
    frame: int | None = None  # from 0; None: a picture
    faces: int = 0  # hidden
    problem: str | None = None  # why there is no copy


@dataclass(frozen=True)
class Miss:
    """A face that somebody boxed, and of whose box less than ENOUGH was hidden."""

    file: str
    box: list[float]  # x1 y1 x2 y2 in px
    hidden: float  # of the box, in [0, 1]


@dataclass
class Audit:
    looks: list[Look] = field(default_factory=list)
    boxed: int = 0  # faces that somebody boxed
    misses: list[Miss] = field(default_factory=list)

    def problems(self) -> list[Look]:
        return [look for look in self.looks if look.problem]

    def report(self) -> dict[str, Any]:
        seen = [look for look in self.looks if not look.problem]
        totals = {
            "looked_at": len(seen),
            "faces": sum(look.faces for look in seen),
            "without_a_face": sum(not look.faces for look in seen),
            "unreadable": len(self.problems()),
        }
        found = self.boxed - len(self.misses)
        recall = {"boxed": self.boxed, "hidden": found, "recall": found / self.boxed} if self.boxed else None
        return {
            "looks": [asdict(look) for look in self.looks],
            "totals": totals,
            "recall": recall,
            "misses": [asdict(miss) for miss in self.misses],
        }


def audit(path: Path, out: Path, params: FaceParams, boxes: Path | None = None) -> Audit:
    """Writes the copies and report.json to out, whole or not at all; an unreadable file is noted, the rest goes on.

    Raises StageError when there is nothing to look at, out holds something, or boxes name pictures that are not there.
    """
    if params.detector == "none":
        raise StageError("faces.detector: none hides nothing, so there is nothing to check; set centerface or haar")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StageError(f"{out}: holds something already; give a new folder")
    folder, files = listed(path)
    truth = read_truth(boxes) if boxes else {}
    if strangers := sorted(truth.keys() - set(files)):
        raise StageError(f"{boxes}: {len(strangers)} of its pictures are not in {path}, first {strangers[0]}")
    blur, done = Blur(params), Audit()
    with whole_directory(out) as copies:
        for file in tqdm(files, desc="audit", unit="file", disable=None, delay=2):
            (copies / file).parent.mkdir(parents=True, exist_ok=True)
            if suffix(file) in VIDEOS:
                done.looks += hide_in_video(folder, file, blur, copies)
            else:
                hide_in_picture(folder, file, blur, copies, truth, params.margin, done)
        write_json(copies / REPORT_FILE, done.report())
    return done


def listed(path: Path) -> tuple[Path, list[str]]:
    """The folder, and the pictures and videos in it or below by name; of a single file, its own."""
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise StageError(f"{path}: not found; give a picture, a video, or a folder")
    files = list_directory(path)
    known = [file for file in files if suffix(file) in PICTURES | VIDEOS]
    if not known:
        raise StageError(f"{path}: no picture and no video in it or below")
    if len(known) < len(files):
        logger.info("%s: %d files are neither pictures nor videos by name", path, len(files) - len(known))
    return path, known


def read_truth(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """File -> (N, 4), x_centre y_centre width height as fractions of the picture. Raises StageError."""
    document = read_json(path)
    try:
        return {file: np.array(entry["faces"], np.float64).reshape(-1, 4) for file, entry in document.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        shape = '{"photo.jpg": {"faces": [[x_centre, y_centre, width, height], ...]}}, fractions of the picture'
        raise StageError(f"{path}: not boxes of faces; expected {shape}") from None


def hide_in_picture(
    folder: Path,
    file: str,
    blur: Blur,
    copies: Path,
    truth: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]],
    margin: float,
    done: Audit,
) -> None:
    try:
        picture = blur(read_image(folder / file))
    except Unreadable as error:
        done.looks.append(Look(file, problem=str(error)))
        return
    copy = copies / (file if suffix(file) in (".jpg", ".jpeg") else f"{file}.jpg")
    copy.write_bytes(encode_jpeg(picture.image))
    done.looks.append(Look(file, faces=len(picture.faces)))
    if file in truth:
        height, width = picture.image.shape[:2]
        faces = from_yolo(truth[file], width, height)
        done.boxed += len(faces)
        done.misses += missed(file, faces, picture, margin)


def missed(file: str, faces: Boxes, picture: Blurred, margin: float) -> Iterator[Miss]:
    height, width = picture.image.shape[:2]
    shares = covered(faces, regions(picture.faces, margin, width, height), width, height)
    for box, share in zip(faces.tolist(), shares.tolist(), strict=True):
        if share < ENOUGH:
            yield Miss(file, [round(value, 1) for value in box], round(share, 3))


def hide_in_video(folder: Path, file: str, blur: Blur, copies: Path) -> Iterator[Look]:
    """A look a frame. The copy has the frames alone: no sound, no metadata."""
    frames = 0
    with opened(folder / file) as video, closing(Copy(copies / f"{file}.mp4", video.get(cv2.CAP_PROP_FPS))) as copy:
        while (read := video.read())[0]:
            picture = blur(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
            copy.add(picture.image)
            yield Look(file, frames, len(picture.faces))
            frames += 1
        stated = round(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if not frames:
        yield Look(file, problem="not a video that OpenCV reads")
    elif frames < stated:
        yield Look(file, frames, problem=f"ends here, of {stated} frames that its header states")


@contextmanager
def opened(path: Path) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(str(path))
    try:
        yield video
    finally:
        video.release()


class Copy:
    """An MP4 file that takes its size from the first picture added."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._rate = frames_per_second or 25.0
        self._writer: cv2.VideoWriter | None = None

    def add(self, image: Image) -> None:
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, (image.shape[1], image.shape[0]))
            if not self._writer.isOpened():
                raise StageError(f"{self._path}: this OpenCV writes no MP4; install opencv-python-headless again")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def rows(done: Audit) -> list[Row]:
    """A line a picture; frames of a video in which as many faces were hidden, one after the other, share one."""
    found: list[Row] = []
    for (file, video, faces, problem), group in groupby(
        done.looks, lambda look: (look.file, look.frame is not None, look.faces, look.problem)
    ):
        looks = list(group)
        frames = f"{looks[0].frame}-{looks[-1].frame}" if video else None
        found.append({"file": file, "frames": frames, "faces": None if problem else faces, "problem": problem})
    return found


def in_words(done: Audit) -> str:
    report = done.report()
    totals, recall = report["totals"], report["recall"]
    words = f"{totals['faces']} faces hidden in {totals['looked_at']} pictures; {totals['without_a_face']} show none"
    words += f"; {totals['unreadable']} unreadable" if totals["unreadable"] else ""
    if recall:
        words += f"; of {recall['boxed']} boxed faces {recall['hidden']} ({100 * recall['recall']:.1f} %) are hidden"
    return words
