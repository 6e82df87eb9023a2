"""A scored detector -> its release manifest, a version in MLflow, and an alias: champion only through the gates."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stages.card import model_card
from stages.files import read_json, sha256_of, write_json
from stages.gates import below_floors, compare, demo_for_real, judged, not_compared, worse_than_champion
from stages.launch import launch
from stages.lineage import LOCK_FILE, read_checkout
from stages.mlflow_client import ServerAway
from stages.params import PARAMS_FILE, Params, StageError
from stages.registry import Registry, Version
from stages.release import (
    INT8_FILE,
    INT8_WEIGHTS_FILE,
    ONNX_FILE,
    Comparison,
    Gates,
    Lineage,
    Metrics,
    PrecisionMetrics,
    Release,
    Thresholds,
    checked,
)
from stages.tracking import TrackedRun, backfill_epochs, open_run
from stages.vision import engines
from stages.vision.labelled import read_split, read_vocabulary
from stages.vision.scoring import counts_by

logger = logging.getLogger(__name__)


class Evaluation(Metrics):
    """models/evaluate/metrics.json."""

    confidence: float
    precisions: dict[str, PrecisionMetrics]


def register(
    params: Params,
    yolo: Path,
    splits: Path,
    onnx: Path,
    int8: Path,
    training: Path,
    evaluation: Path,
    release: Path,
) -> None:
    promote = promotes()
    run = open_run(read_json(training / "run.json")["key"], name="", resume=True)
    backfill_epochs(run, training / "epochs.csv")
    files = {ONNX_FILE: onnx, INT8_FILE: int8, INT8_WEIGHTS_FILE: int8.with_suffix(".bin")}
    draft = draft_release(params, yolo, files, evaluation, run)
    write_json(release, draft.model_dump(mode="json"))
    try:
        registry = Registry(draft.name)
        gates, comparison = judge(draft, registry, params, yolo, splits, evaluation)
        final = draft.model_copy(update={"gates": gates, "comparison": comparison})
        write_json(release, final.model_dump(mode="json"))
        card = model_card(final, read_json(yolo / "ledger.json"), sizes(splits))
        version = publish(final, registry, files, card, promote)
    except ServerAway as error:
        raise StageError(f"{error}; {release} is written, the version is missing: dvc repro tries again") from None
    add_to_run(run, final, version, {yolo / "ledger.json": "data", training: "", evaluation / "plots": "evaluate"})
    run.log_artifact(release)
    run.finish("FINISHED")
    tell(final, version, release, params.register_.require_gates, promote)


def draft_release(params: Params, yolo: Path, files: Mapping[str, Path], evaluation: Path, run: TrackedRun) -> Release:
    """As it is when MLflow cannot be reached: nothing is known of a champion, so the gates are not passed."""
    vocabulary, checkout = read_vocabulary(yolo), read_checkout()
    scores = checked(Evaluation, evaluation / "metrics.json", "score it again: dvc repro -sf evaluate")
    return Release(
        name=params.register_.model_name,
        sha256=sha256_of(files[ONNX_FILE]),
        int8={INT8_FILE: sha256_of(files[INT8_FILE]), INT8_WEIGHTS_FILE: sha256_of(files[INT8_WEIGHTS_FILE])},
        faces=params.faces,
        classes=vocabulary.classes,
        counts=vocabulary.counts,
        thresholds=Thresholds(confidence=scores.confidence, iou=params.detect.iou, max_boxes=params.detect.max_boxes),
        precisions=scores.precisions,
        metrics=Metrics.model_validate(scores.model_dump()),
        gates=judged([not_compared("MLflow could not be reached")]),
        comparison=None,
        input_profile=read_json(evaluation / "input_profile.json"),
        lineage=Lineage(
            data=checkout.data,
            lock=checkout.lock,
            git=checkout.git,
            training_key=run.key,
            run_id=run.run_id,
            params=params.model_dump(mode="json", by_alias=True),
        ),
    )


def judge(
    draft: Release, registry: Registry, params: Params, yolo: Path, splits: Path, evaluation: Path
) -> tuple[Gates, Comparison | None]:
    failures = list(below_floors(draft.metrics, params.register_, params.convert.may_be_absent))
    champion = registry.with_alias("champion")
    if champion is None or champion.identity == draft.identity:
        return judged(failures), None
    try:
        with TemporaryDirectory() as folder:
            files = Path(folder) / "champion"
            released = registry.download(champion, files)
            comparison = against(champion, released, files, params, yolo, splits, evaluation)
    except ServerAway:
        raise
    except StageError as error:  # the champion cannot be read: that must not keep the challenger from its version
        return judged([*failures, not_compared(str(error))]), None
    failures += worse_than_champion(comparison, params.register_.margin)
    failures += demo_for_real(draft.is_demo, released.is_demo)
    return judged(failures), comparison


def against(
    champion: Version, released: Release, files: Path, params: Params, yolo: Path, splits: Path, evaluation: Path
) -> Comparison:
    """The champion counts the present test pictures, with its own classes and thresholds."""
    pictures = read_split(splits, "test", read_vocabulary(yolo))
    seen = counts_by(engines.load(files, released), pictures, released.thresholds.confidence, released.counts)
    counted = {row["id"]: row for row in read_json(evaluation / "pictures.json")}
    truth = np.array([counted[picture.id]["truth"] for picture in pictures])
    challenger = np.array([counted[picture.id]["count"] for picture in pictures])
    random = np.random.default_rng(params.evaluate.seed)
    return compare(champion.number, challenger == truth, seen == truth, params.evaluate.bootstrap, random)


def publish(release: Release, registry: Registry, files: Mapping[str, Path], card: str, promote: bool) -> Version:
    if release.lineage.run_id is None:
        raise ServerAway("MLflow came back only after the run was opened")
    version = registry.register(release, files, card)
    registry.set_alias("challenger", version)
    if release.gates.passed and promote:
        registry.set_alias("champion", version)
    return version


def promotes() -> bool:
    """AUTO_PROMOTE=false leaves it to `fingers promote`. Raises StageError."""
    value = os.environ.get("AUTO_PROMOTE") or "true"
    if value not in ("true", "false"):
        raise StageError(f"AUTO_PROMOTE: {value!r} is neither true nor false")
    return value == "true"


def add_to_run(run: TrackedRun, release: Release, version: Version, reports: Mapping[Path, str]) -> None:
    """reports: what is to be kept with the run, and in which folder of it."""
    run.set_tags({"model_version": version.number, "gates": "passed" if release.gates.passed else "failed"})
    configuration = {path: "configuration" for path in (PARAMS_FILE, LOCK_FILE) if path.exists()}
    for path, folder in {**configuration, **reports}.items():
        run.log_artifact(path, folder)


def sizes(splits: Path) -> dict[str, int]:
    return {name: len((splits / f"{name}.txt").read_text().splitlines()) for name in ("train", "val", "test")}


def tell(release: Release, version: Version, path: Path, require_gates: bool, promote: bool) -> None:
    """Raises StageError for failed gates that are required: all is written by now."""
    known = f"{release.name} version {version.number}"
    for precision, scores in release.precisions.items():
        if precision not in release.servable:
            f32 = release.precisions["f32"].count_accuracy
            logger.warning("%s will not serve: count accuracy %s, f32's %s", precision, scores.count_accuracy, f32)
    if release.gates.passed:
        also = " and champion" if promote else f"; fingers promote {version.number} makes it champion"
        logger.info("every gate passed: %s is challenger%s", known, also)
        return
    for failure in release.gates.failures:
        logger.warning("gate failed: %s", failure.text)
    logger.info("%s is challenger; champion stays as it was", known)
    if require_gates:
        raise StageError(f"{path}: {len(release.gates.failures)} gates failed, and register.require_gates is true")


if __name__ == "__main__":
    launch(register)
