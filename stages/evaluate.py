"""The exported detector -> its scores on the test pictures, as it will be served: mAP, the count, its worst."""

import csv
import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages.files import read_json, whole_directory, write_json, write_text
from stages.launch import launch
from stages.params import Params, Precision
from stages.tracking import open_run
from stages.vision.detector import Detections, Detector
from stages.vision.gallery import write_gallery
from stages.vision.labelled import LabelledPicture, Vocabulary, read_split, read_vocabulary
from stages.vision.network import openvino_network, processor_has
from stages.vision.profile import brightness, sharpness
from stages.vision.scoring import (
    Counts,
    average_precision,
    bootstrap_interval,
    choose_confidence,
    confusion,
    precision_recall_curves,
    seen_counts,
    true_counts,
)

logger = logging.getLogger(__name__)

PROFILED = 500  # training pictures, evenly taken, that tell what the model is used to


def evaluate(
    params: Params, yolo: Path, splits: Path, onnx: Path, int8: Path, training: Path, evaluation: Path
) -> None:
    vocabulary = read_vocabulary(yolo)
    val, test = (read_split(splits, name, vocabulary) for name in ("val", "test"))
    train = read_split(splits, "train", vocabulary, most=PROFILED)
    precisions = usable(params.evaluate.precisions)
    networks = {p: openvino_network(int8 if p == "int8" else onnx, len(vocabulary.classes), p) for p in precisions}
    detectors = {p: Detector(network, params.detect) for p, network in networks.items()}
    run = open_run(read_json(training / "run.json")["key"], name="", resume=True)
    logger.info("%s on %d val and %d test pictures in %s", onnx.name, len(val), len(test), ", ".join(precisions))

    on_val, _ = detect(detectors["f32"], val)
    confidence, by_confidence = choose_confidence(val, on_val, vocabulary.counts)
    answers = {p: Answers(test, *detect(detector, test), vocabulary, confidence) for p, detector in detectors.items()}
    metrics = metrics_of(answers["f32"], params)
    metrics["precisions"] = {p: of_precision(a, params.detect.max_boxes) for p, a in answers.items()}

    with whole_directory(evaluation) as out:
        write_json(out / "metrics.json", metrics)
        write_json(out / "pictures.json", picture_counts(answers["f32"]))
        write_json(out / "input_profile.json", input_profile(train, detectors["f32"], confidence))
        write_plots(out / "plots", answers["f32"], by_confidence)
        write_gallery(out / "worst", test, answers["f32"].shown, vocabulary, params.evaluate.worst)
    run.log_metrics({f"test/{name}": value for name, value in flat(metrics)})
    run.log_artifact(evaluation)
    run.finish("FINISHED")
    logger.info("%s", in_words(metrics))


@dataclass(frozen=True)
class Answers:
    """What one precision of the detector saw in each picture, the time it took, and the threshold that will serve."""

    pictures: Sequence[LabelledPicture]
    detections: Sequence[Detections]  # down to the lowest confidence that AP looks at
    milliseconds: npt.NDArray[np.float64]
    vocabulary: Vocabulary
    confidence: float

    @cached_property
    def shown(self) -> list[Detections]:
        return [found.above(self.confidence) for found in self.detections]

    @cached_property
    def truth(self) -> Counts:
        return true_counts(self.pictures, self.vocabulary.counts)

    @cached_property
    def seen(self) -> Counts:
        return seen_counts(self.shown, self.vocabulary.counts)

    @cached_property
    def right(self) -> npt.NDArray[np.float64]:
        return np.equal(self.truth, self.seen).astype(np.float64)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        return confusion(self.pictures, self.shown, len(self.vocabulary.classes))


def usable(precisions: Sequence[Precision]) -> list[Precision]:
    for precision in precisions:
        if not processor_has(precision):
            logger.warning("%s is not scored: this processor does not compute in it", precision)
    return [precision for precision in precisions if processor_has(precision)]


def detect(detector: Detector, pictures: Sequence[LabelledPicture]) -> tuple[list[Detections], npt.NDArray[np.float64]]:
    """Detections, and the detector's own time for each picture in ms, after one warm-up."""
    detector(pictures[0].read())
    detections, milliseconds = [], []
    for picture in tqdm(pictures, desc="evaluate", unit="picture", disable=None, delay=2):
        blurred = picture.read()
        started = time.perf_counter()
        detections.append(detector(blurred))
        milliseconds.append((time.perf_counter() - started) * 1000)
    return detections, np.array(milliseconds)


def metrics_of(answers: Answers, params: Params) -> dict[str, Any]:
    """The keys that dvc metrics, MLflow and the gates read; null where there is no ground truth."""
    classes = answers.vocabulary.classes
    ap = average_precision(answers.pictures, answers.detections, len(classes), params.detect.max_boxes)
    random = np.random.default_rng(params.evaluate.seed)
    low, high = bootstrap_interval(answers.right, params.evaluate.bootstrap, random)
    table = answers.confusion
    return {
        "map50": ap.map50,
        "map50_95": ap.map50_95,
        "count_accuracy": float(answers.right.mean()),
        "count_accuracy_low": low,
        "count_accuracy_high": high,
        "count_mae": float(np.abs(answers.truth - answers.seen).mean()),
        "confidence": answers.confidence,
        "pictures": len(answers.pictures),
        "classes": {
            name: {**hits(table, i), "ap50": ap.ap50[i], "ap50_95": ap.ap50_95[i]} for i, name in enumerate(classes)
        },
        # hands of a class without a count, which no count accuracy can show
        "uncounted": {
            name: {"true": int(table[i].sum()), "seen": int(table[:, i].sum())}
            for i, name in enumerate(classes)
            if answers.vocabulary.counts[i] is None
        },
    }


def hits(table: npt.NDArray[np.int64], class_id: int) -> dict[str, float | None]:
    """Precision, recall and F1 of one class at the chosen confidence; null where there is no ground truth."""
    right, true, seen = (int(n) for n in (table[class_id, class_id], table[class_id].sum(), table[:, class_id].sum()))
    if not true:
        return {"precision": None, "recall": None, "f1": None}
    return {"precision": right / seen if seen else 0.0, "recall": right / true, "f1": 2 * right / (true + seen)}


def of_precision(answers: Answers, max_boxes: int) -> dict[str, float]:
    """What decides whether a precision may serve."""
    ap = average_precision(answers.pictures, answers.detections, len(answers.vocabulary.classes), max_boxes)
    median, p95 = np.quantile(answers.milliseconds, [0.5, 0.95])
    return {
        "map50": ap.map50,
        "count_accuracy": float(answers.right.mean()),
        "latency_ms": round(float(median), 2),
        "latency_p95_ms": round(float(p95), 2),
    }


def picture_counts(answers: Answers) -> list[dict[str, Any]]:
    """What a champion and its challenger are compared by, picture by picture."""
    return [
        {"id": picture.id, "truth": int(true), "count": int(seen)}
        for picture, true, seen in zip(answers.pictures, answers.truth, answers.seen, strict=True)
    ]


def input_profile(train: Sequence[LabelledPicture], detector: Detector, confidence: float) -> dict[str, Any]:
    """Quantiles of what the training pictures look like: what later inputs are held against for drift."""
    rows: dict[str, list[float]] = {"width": [], "height": [], "brightness": [], "sharpness": [], "confidence": []}
    for picture in tqdm(train, desc="input profile", unit="picture", disable=None, delay=2):
        blurred = picture.read()
        rows["width"].append(picture.width)
        rows["height"].append(picture.height)
        rows["brightness"].append(brightness(blurred.image))
        rows["sharpness"].append(sharpness(blurred.image))
        rows["confidence"] += detector(blurred, confidence).scores.tolist()
    return {name: quantiles(values) for name, values in rows.items()} | {"pictures": len(train)}


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    names = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
    return {name: round(float(q), 3) for name, q in zip(names, np.quantile(values, list(names.values())), strict=True)}


def write_plots(out: Path, answers: Answers, by_confidence: Mapping[float, float]) -> None:
    """Tables that `dvc plots` draws."""
    classes = answers.vocabulary.classes
    named = [*classes, "nothing"]
    table = answers.confusion
    pairs = [(named[true], named[seen]) for true, seen in np.argwhere(table) for _ in range(table[true, seen])]
    write_csv(out / "confusion.csv", ("truth", "seen"), pairs)
    write_csv(out / "confidence.csv", ("confidence", "count_accuracy"), by_confidence.items())
    curves = precision_recall_curves(answers.pictures, answers.detections, len(classes))
    points = [
        (name, f"{r:.4f}", f"{p:.4f}")
        for name, curve in zip(classes, curves, strict=True)
        for p, r in zip(*curve, strict=True)
    ]
    write_csv(out / "precision_recall.csv", ("class", "recall", "precision"), points)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield f"{prefix}{name}", float(value)


def in_words(metrics: Mapping[str, Any]) -> str:
    low, high = metrics["count_accuracy_low"], metrics["count_accuracy_high"]
    latency = ", ".join(f"{of['latency_ms']:.1f} ms in {p}" for p, of in metrics["precisions"].items())
    return (
        f"{metrics['pictures']} pictures: mAP50 {metrics['map50']:.3f}, mAP50-95 {metrics['map50_95']:.3f}, "
        f"count accuracy {metrics['count_accuracy']:.3f} [{low:.3f}, {high:.3f}] "
        f"at confidence {metrics['confidence']:.2f}; {latency}"
    )


if __name__ == "__main__":
    launch(evaluate)
