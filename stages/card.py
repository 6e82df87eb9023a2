"""A release and its data -> the model card in Markdown: data, metrics, gates, limits, lineage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stages.params import FaceParams
from stages.release import Comparison, Gates, Metrics, PrecisionMetrics, Release


def model_card(release: Release, ledger: Mapping[str, Any], pictures: Mapping[str, int]) -> str:
    """ledger: data/yolo/ledger.json; pictures: how many each split has."""
    parts = [
        f"# {release.name}",
        "Finds hands in a picture and tells how many fingers each holds up; the product is their sum, the count.",
        _table(("file", "sha256"), [(f"`{name}`", f"`{sha256}`") for name, sha256 in release.files().items()]),
        "## Gates\n" + _gates(release.gates, release.comparison),
        "## Scores on the test pictures\n" + _scores(release.metrics, release.thresholds.confidence),
        _classes(release.metrics),
        "## Precisions\n"
        + _table(
            ("precision", "mAP50", "count accuracy", "latency, ms", "may serve"),
            [
                (name, *_scored(scores), "yes" if name in release.servable else "no")
                for name, scores in release.precisions.items()
            ],
        ),
        "## Data\n" + _data(release, ledger, pictures),
        "## Limits\n" + _limits(release),
        "## Lineage\n" + _lineage(release),
    ]
    return "\n\n".join(parts) + "\n"


def _gates(gates: Gates, seen: Comparison | None) -> str:
    lines = ["All passed." if gates.passed else "Failed:"] + [f"- {failure.text}" for failure in gates.failures]
    if seen is not None:
        lines.append(
            f"\nAgainst the champion, version {seen.champion}, on the same {seen.pictures} pictures: count accuracy "
            f"{seen.difference:+.4f} (95 % interval {seen.low:+.4f} to {seen.high:+.4f})."
        )
    return "\n".join(lines)


def _scores(metrics: Metrics, confidence: float) -> str:
    interval = f" (95 % interval {_number(metrics.count_accuracy_low)} to {_number(metrics.count_accuracy_high)})"
    return _table(
        ("score", "value"),
        [
            ("exact count", _number(metrics.count_accuracy) + interval),
            ("mean absolute error of the count", _number(metrics.count_mae)),
            ("mAP50", _number(metrics.map50)),
            ("mAP50-95", _number(metrics.map50_95)),
            ("confidence threshold, chosen on val", f"{confidence:g}"),
        ],
    )


def _classes(metrics: Metrics) -> str:
    return _table(
        ("class", "precision", "recall", "F1", "AP50", "AP50-95"),
        [
            (name, *(_number(value) for value in (m.precision, m.recall, m.f1, m.ap50, m.ap50_95)))
            for name, m in metrics.classes.items()
        ],
    )


def _scored(metrics: PrecisionMetrics) -> tuple[str, str, str]:
    return _number(metrics.map50), _number(metrics.count_accuracy), _number(metrics.latency_ms, 1)


def _data(release: Release, ledger: Mapping[str, Any], pictures: Mapping[str, int]) -> str:
    assets = ledger["assets"].values()
    kept = [asset for asset in assets if asset["outcome"] == "kept"]
    sources = Counter(asset["source"] for asset in kept)
    boxes: Counter[str] = Counter()
    for asset in kept:
        boxes.update(asset["boxes"])
    classes = [
        (name, str(boxes[name]), "nothing" if count is None else str(count))
        for name, count in zip(release.classes, release.counts, strict=True)
    ]
    return (
        f"{len(kept)} of {len(assets)} pictures, from {_counted(sources)}; split into {_counted(pictures)}, related "
        "pictures together. What was left out, and why, is in ledger.json of the run.\n\n"
        + _table(("class", "boxes", "adds to the count"), classes)
        + f"\n\nFaces are hidden before anything looks at a picture: {_faces(release.faces)}."
    )


def _faces(faces: FaceParams) -> str:
    if faces.detector == "none":
        return "nowhere, the pictures are said to show none"
    return f"found by {faces.detector} from a confidence of {faces.confidence:g}, hidden by {faces.method}"


def _limits(release: Release) -> str:
    unseen = [name for name, scores in release.metrics.classes.items() if scores.ap50 is None]
    limits = [
        "- The scores hold for pictures like those of the test split; input_profile in release.json describes them."
    ]
    if release.is_demo:
        limits.append("- Trained on drawings: it shows that the pipeline works, and is of no use on photographs.")
    if unseen:
        limits.append(f"- No test picture shows {', '.join(unseen)}: how well it is found is not known.")
    return "\n".join(limits)


def _lineage(release: Release) -> str:
    lineage = release.lineage
    return _table(
        ("what", "which"),
        [
            ("data/yolo", f"`{lineage.data}`"),
            ("dvc.lock", f"`{lineage.lock}`"),
            ("git", f"`{lineage.git}`"),
            ("training", f"`{lineage.training_key}`"),
            ("MLflow run", f"`{lineage.run_id}`"),
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(numbers.items()))


def _number(value: float | None, digits: int = 3) -> str:
    return "not known" if value is None else f"{value:.{digits}f}"
