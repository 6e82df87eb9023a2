"""Two versions or runs -> the parameters and scores in which they differ, and the pictures they count differently."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from ops.models import released
from ops.runs import progress
from stages.gates import compare
from stages.mlflow_client import ServerAway
from stages.params import PARAMS_FILE, StageError, load_params
from stages.registry import Registry, Version
from stages.release import Release
from stages.runs import Run, Runs
from stages.tracking import as_logged
from stages.vision import engines
from stages.vision.detector import Detections, Detector
from stages.vision.labelled import LabelledPicture, read_split, read_vocabulary
from stages.vision.scoring import Counts, seen_counts, true_counts


@dataclass(frozen=True)
class Difference:
    """Of a parameter. None: it has none of that name."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Scores:
    name: str
    a: float | None
    b: float | None
    difference: float | None  # b minus a


@dataclass(frozen=True)
class Picture:
    """One that a and b count differently."""

    id: str
    truth: int
    a: int
    b: int


@dataclass(frozen=True)
class OnPictures:
    """What both count on the test pictures of the checkout, each with its own classes and threshold."""

    pictures: int
    a_accuracy: float
    b_accuracy: float
    difference: float  # b minus a, on the same pictures
    low: float  # of its 95 % interval
    high: float
    differing: list[Picture]


@dataclass(frozen=True)
class Compared:
    a: str
    b: str
    params: list[Difference]
    scores: list[Scores]
    on_pictures: OnPictures | None
    why_not: str | None  # on pictures


def compared(registry: Registry, runs: Runs, root: Path, a: str, b: str) -> Compared:
    """a, b: a version's number, alias or stage, or a run's id or name. Raises StageError when there is no such."""
    one, other = side(registry, runs, a), side(registry, runs, b)
    if one.name == other.name:
        raise StageError(f"{a} and {b} are both {one.name}; name two that differ")
    on_pictures, why_not = None, None
    try:
        on_pictures = count(registry, root, one, other)
    except ServerAway:
        raise
    except StageError as error:  # the rest can be compared all the same
        why_not = str(error)
    return Compared(
        a=one.name,
        b=other.name,
        params=list(differences(one.params, other.params)),
        scores=list(side_by_side(one.scores, other.scores)),
        on_pictures=on_pictures,
        why_not=why_not,
    )


@dataclass(frozen=True)
class Side:
    name: str
    params: Mapping[str, str]
    scores: Mapping[str, float]
    version: Version | None  # None: a run from which none was registered


def side(registry: Registry, runs: Runs, reference: str) -> Side:
    if reference.isdecimal() or registry.look_up(reference):
        return of_version(registry, runs, registry.find(reference))
    return of_run(registry, runs, runs.find(reference))


def of_version(registry: Registry, runs: Runs, version: Version) -> Side:
    """What its release says, and of its run what a release does not say."""
    release = released(registry, version)
    run = runs.get(version.run_id)
    params = {**(run.params if run else {}), **as_logged(release.lineage.params)}
    lineage = {"data": release.lineage.data, "git": release.lineage.git}
    return Side(
        name=f"version {version.number}",
        params=params | {f"lineage.{name}": text for name, text in lineage.items() if text},
        scores=dict(numbers(release.metrics.model_dump())),
        version=version,
    )


def of_run(registry: Registry, runs: Runs, run: Run) -> Side:
    best = progress(runs, run).best_map50
    tested = {name.removeprefix("test/"): value for name, value in run.metrics.items() if name.startswith("test/")}
    return Side(
        name=f"run {run.name} {run.id[:6]}",  # two may have one name
        params={**run.params, **{f"lineage.{name}": run.tags[name] for name in ("data", "git") if name in run.tags}},
        scores={**({} if best is None else {"val_map50": best}), **tested},
        version=next((version for version in registry.versions() if version.run_id == run.id), None),
    )


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """As evaluate names them in a run: classes/3/ap50."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif value is not None:
            yield f"{prefix}{name}", float(value)


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield Difference(name, a.get(name), b.get(name))


def side_by_side(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[Scores]:
    """What describes the whole before what describes a class."""
    for name in sorted(a.keys() | b.keys(), key=lambda name: (name.count("/"), name)):
        apart = b[name] - a[name] if name in a and name in b else None
        yield Scores(name, a.get(name), b.get(name), apart)


def count(registry: Registry, root: Path, a: Side, b: Side) -> OnPictures:
    """Raises StageError, with the way out, when a picture or a model is not there."""
    yolo, splits = output_of(root, "convert"), output_of(root, "split")
    for path in (yolo, splits):
        if not (root / path).exists():
            raise StageError(f"{path}: not here; ./run dvc pull {yolo} {splits} fetches the test pictures")
    vocabulary = read_vocabulary(root / yolo)
    pictures = read_split(root / splits, "test", vocabulary)
    truth = true_counts(pictures, vocabulary.counts)
    with TemporaryDirectory() as folder:
        models = [load(registry, of, Path(folder) / str(n)) for n, of in enumerate((a, b))]
        seen = counts_of(models, pictures)
    params = load_params(root / PARAMS_FILE).evaluate
    right = [counts == truth for counts in seen]
    comparison = compare(a.name, right[1], right[0], params.bootstrap, np.random.default_rng(params.seed))
    differing = [
        Picture(picture.id, *map(int, (truth[n], seen[0][n], seen[1][n])))
        for n, picture in enumerate(pictures)
        if seen[0][n] != seen[1][n]
    ]
    return OnPictures(
        pictures=len(pictures),
        a_accuracy=float(right[0].mean()),
        b_accuracy=float(right[1].mean()),
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        differing=differing,
    )


def output_of(root: Path, stage: str) -> Path:
    """What dvc.yaml, where paths stand, names first among what the stage makes."""
    out = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["outs"][0]
    return Path(out if isinstance(out, str) else next(iter(out)))


Model = tuple[Release, Detector]


def load(registry: Registry, side: Side, folder: Path) -> Model:
    if side.version is None:
        raise StageError(f"{side.name}: no model was registered from it; dvc repro register, in its experiment, does")
    release = registry.download(side.version, folder)
    return release, engines.load(folder, release)


def counts_of(models: Sequence[Model], pictures: Sequence[LabelledPicture]) -> list[Counts]:
    """What each model counts on each picture, with its own classes and threshold. A picture is read once for all."""
    found: list[list[Detections]] = [[] for _ in models]
    for picture in tqdm(pictures, desc="compare", unit="picture", disable=None, delay=2):
        blurred = picture.read()
        for (release, detector), answers in zip(models, found, strict=True):
            answers.append(detector(blurred, release.thresholds.confidence))
    return [seen_counts(answers, release.counts) for (release, _), answers in zip(models, found, strict=True)]
