"""data/yolo and data/splits -> the labelled pictures of one split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stages.files import read_json
from stages.params import StageError
from stages.vision.boxes import Boxes, ClassIds, from_yolo
from stages.vision.faces import Blurred, read_blurred
from stages.vision.images import Unreadable, probe

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Vocabulary:
    """The classes in the order of their ids, and what each adds to the count; None: nothing, told apart."""

    classes: list[str]
    counts: list[int | None]


@dataclass(frozen=True)
class LabelledPicture:
    """One picture with its ground truth: boxes (N, 4) in px, class_ids (N,)."""

    id: str
    path: Path
    width: int
    height: int
    boxes: Boxes
    class_ids: ClassIds

    def read(self) -> Blurred:
        try:
            return read_blurred(self.path)
        except Unreadable as error:
            raise StageError(f"{self.path}: {error}; convert it again: dvc repro -sf convert") from None


def read_vocabulary(yolo: Path) -> Vocabulary:
    ledger = read_json(yolo / "ledger.json")
    return Vocabulary(ledger["classes"], ledger["counts"])


def read_split(splits: Path, name: Split, vocabulary: Vocabulary, most: int | None = None) -> list[LabelledPicture]:
    """In the list's order; with most, no more than that, evenly taken.

    Raises StageError for a list, picture or label file that is absent or damaged.
    """
    path = splits / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise StageError(f"{path}: not found; dvc repro split writes it") from None
    if not lines:
        raise StageError(f"{path}: no pictures; give split.{name} more, or add groups")
    taken = lines if most is None else lines[:: -(-len(lines) // most)]
    return [labelled(splits / line, len(vocabulary.classes)) for line in taken]


def labelled(picture: Path, classes: int) -> LabelledPicture:
    labels = picture.parent.parent / "labels" / f"{picture.stem}.txt"
    try:
        _, width, height, _ = probe(picture.read_bytes())
        rows = np.array([line.split() for line in labels.read_text().splitlines()], np.float64).reshape(-1, 5)
    except FileNotFoundError as error:
        raise StageError(f"{error.filename}: not found; convert again: dvc repro -sf convert") from None
    except Unreadable as error:
        raise StageError(f"{picture}: {error}; convert it again: dvc repro -sf convert") from None
    except ValueError:
        raise StageError(f"{labels}: not five numbers a line; convert it again: dvc repro -sf convert") from None
    class_ids = rows[:, 0].astype(np.int64)
    if ((class_ids < 0) | (class_ids >= classes)).any():
        raise StageError(f"{labels}: class {class_ids.max()} of {classes}; convert it again: dvc repro -sf convert")
    return LabelledPicture(picture.stem, picture, width, height, from_yolo(rows[:, 1:], width, height), class_ids)
