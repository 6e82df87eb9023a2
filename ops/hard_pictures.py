"""Pictures nobody annotated -> those the champion is least sure of, blurred: the ones worth annotating next."""

import hashlib
import logging
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from ops.picsellia import aim, push
from stages.params import Params, StageError
from stages.registry import Registry
from stages.release import Release
from stages.vision import engines
from stages.vision.boxes import Scores
from stages.vision.detector import Detector, finger_count
from stages.vision.faces import Blur, Blurred
from stages.vision.images import Unreadable, encode_jpeg, read_image

logger = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class HardPicture:
    path: Path
    doubt: float  # in [0, 1]; 1: a hand exactly at the threshold
    count: int  # what the model counts
    hands: int  # that it sees above its threshold
    faces: int  # that are hidden
    name: str  # that it leaves under: told by its blurred content


def offer(
    folder: Path, most: int, version: str, registry: Registry, params: Params, *, dry_run: bool
) -> list[HardPicture]:
    """Pushes the hardest pictures as a version of Picsellia's dataset; a dry run sends nothing, and returns the same.

    Raises StageError, before anything is sent, for a name that is taken and for pictures that cannot all be blurred.
    """
    if params.faces.detector == "none":
        raise StageError("faces.detector: none hides nothing, and pictures are to leave; set centerface or haar")
    target = aim(params.pull.picsellia, version)
    pictures = hardest(folder, most, registry, params, target.file_names.keys())
    if dry_run:
        logger.info("%d pictures would make the version %r; nothing was sent", len(pictures), version)
        return pictures
    with TemporaryDirectory() as temporary:
        push(target, write_blurred(pictures, params, Path(temporary)))
    return pictures


def hardest(
    folder: Path, most: int, registry: Registry, params: Params, known: AbstractSet[str] = frozenset()
) -> list[HardPicture]:
    """At most so many, the most doubtful first; a picture with the bytes of another is taken once, known ones never.

    Raises StageError when there is no champion, no picture, or no doubt. What is left out is counted in the log.
    """
    version = registry.find("champion")
    paths = distinct(folder)
    outcomes: Counter[str] = Counter()
    found: dict[str, HardPicture] = {}
    blur = Blur(params.faces)
    with TemporaryDirectory() as temporary:
        champion = Path(temporary) / "champion"
        release = registry.download(version, champion)
        detector = engines.load(champion, release)
        for path in tqdm(paths, desc="look", unit="picture", disable=None):
            try:
                picture = judge(path, blur(read_image(path)), detector, release)
            except Unreadable as error:
                logger.warning("%s: left out: %s", path, error)
                outcomes["unreadable"] += 1
                continue
            if picture.name in known or picture.name in found:
                outcomes["offered already"] += 1
            elif not picture.doubt:
                outcomes["without a doubt"] += 1
            else:
                found[picture.name] = picture
    left_out = ", ".join(f"{count} {why}" for why, count in sorted(outcomes.items()))
    said = f"{folder}: {len(paths)} pictures{f', {left_out}' if left_out else ''}"
    if not found:
        raise StageError(f"{said}; none is left to offer")
    logger.info("%s; %d to choose from", said, len(found))
    return sorted(found.values(), key=lambda picture: (-picture.doubt, picture.path))[:most]


def judge(path: Path, blurred: Blurred, detector: Detector, release: Release) -> HardPicture:
    threshold = release.thresholds.confidence
    seen = detector(blurred)
    shown = seen.above(threshold)
    return HardPicture(
        path=path,
        doubt=doubt(seen.scores, threshold),
        count=finger_count(shown.class_ids, release.counts),
        hands=len(shown.scores),
        faces=len(blurred.faces),
        name=name_of(encode_jpeg(blurred.image)),
    )


def doubt(scores: Scores, threshold: float) -> float:
    """How near the threshold the nearest score is: 1 at it, 0 for a score of 0 or 1, and for none.

    A score near the threshold is a hand that a slightly other picture would gain or lose, and the count with it.
    """
    return max((1 - distance(float(score), threshold) for score in scores), default=0.0)


def distance(score: float, threshold: float) -> float:
    """In [0, 1], on either side."""
    return (threshold - score) / threshold if score < threshold else (score - threshold) / ((1 - threshold) or 1)


def distinct(folder: Path) -> list[Path]:
    """Pictures in folder and below, sorted. Raises StageError when there is none."""
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; give one with pictures that nobody has annotated")
    by_content: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            by_content.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    if not by_content:
        raise StageError(f"{folder}: no pictures ({' '.join(ENDINGS)}) in it or below")
    return list(by_content.values())


def write_blurred(pictures: list[HardPicture], params: Params, folder: Path) -> list[Path]:
    """Each as a JPEG in folder, faces hidden and without metadata. Raises StageError for one that has changed since."""
    blur = Blur(params.faces)
    written = []
    for picture in pictures:
        content = encode_jpeg(blur(read_image(picture.path)).image)
        if name_of(content) != picture.name:
            raise StageError(f"{picture.path}: has changed since it was looked at; nothing was sent, push again")
        path = folder / picture.name
        path.write_bytes(content)
        written.append(path)
    return written


def name_of(content: bytes) -> str:
    return f"hard-{hashlib.sha256(content).hexdigest()[:16]}.jpg"
