"""data/yolo and data/splits -> a fine-tuned detector, its ONNX export, and the curves of its training."""

import csv
import hashlib
import io
import json
import logging
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from stages.files import sha256_of, write_bytes, write_json, write_text
from stages.launch import launch
from stages.lineage import local_folder
from stages.params import Params, StageError, TrainParams
from stages.tracking import TrackedRun, open_run
from stages.training.checkpoint import Checkpoints, State
from stages.training.export import check_onnx, write_detector, write_onnx
from stages.training.fit import Epoch, Fit, keep_freed_memory
from stages.training.settings import Settings, device_for, find_weights, settings_for, threads_for
from stages.vision.labelled import read_split, read_vocabulary

logger = logging.getLogger(__name__)

CHECKED = 8  # val pictures on which the export must answer as the trained network does
DECIDE_WEIGHTS = ("torch", "torchvision", "ultralytics-opencv-headless", "numpy", "opencv-python-headless")


def train(params: Params, yolo: Path, splits: Path, detector: Path, onnx: Path, reports: Path) -> None:
    keep_freed_memory()
    asked, vocabulary = params.train, read_vocabulary(yolo)
    settings = settings_for(asked) | {"model": find_weights(asked.weights)}
    settings["data"] = str(described(splits / "data.yaml", vocabulary.classes))
    pictures, val = read_split(splits, "train", vocabulary), read_split(splits, "val", vocabulary)
    made_with = {"threads": threads_for(asked.threads), "versions": versions()}
    if asked.executor == "local":
        made_with["device"] = settings["device"] = device_for(asked.device)
    else:
        made_with |= {"device": asked.device, "workers": asked.workers}
    key = training_key(asked, yolo, splits, settings["model"])
    checkpoints = Checkpoints(local_folder() / "train" / key)
    state = checkpoints.newest()
    logger.info(
        "%d train and %d val pictures, %d classes; %s at %d px on %s, %d threads; %s",
        *(len(pictures), len(val), len(vocabulary.classes), asked.weights, asked.image_size),
        *(made_with["device"], made_with["threads"], ahead(state, asked.epochs)),
    )

    run = open_run(key, name="", resume=state is not None)
    try:
        run.log_params({**params.model_dump(by_alias=True), "training": made_with})
        state = fit(asked, settings, yolo, splits, checkpoints, state, reports / "epochs.csv", run)
        trained = write_detector(checkpoints.folder / "detector.pt", state, vocabulary.classes, asked.image_size)
        exported = write_onnx(trained, asked.image_size)
        apart = check_onnx(exported, trained, asked.image_size, [picture.read().image for picture in val[:CHECKED]])
        write_bytes(detector, trained.read_bytes())
        write_bytes(onnx, exported.read_bytes())
        outcome = {"epochs": len(state["history"]), "best_epoch": state["best_epoch"], "export_difference": apart}
        write_json(reports / "run.json", {"key": key, **made_with, **outcome})
        run.log_artifact(yolo / "ledger.json", "data")
        run.log_artifact(reports)
    except Exception:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")
    checkpoints.remove()
    best = state["history"][state["best_epoch"] - 1]
    logger.info(
        "%d epochs; the best is %d: val mAP50 %.4f, mAP50-95 %.4f; the export differs by %.2g px and %.2g in scores",
        *(
            outcome["epochs"],
            outcome["best_epoch"],
            best["map50"],
            best["map50_95"],
            apart["boxes_px"],
            apart["scores"],
        ),
    )


def fit(
    asked: TrainParams,
    settings: Settings,
    yolo: Path,
    splits: Path,
    checkpoints: Checkpoints,
    state: State | None,
    epochs_csv: Path,
    run: TrackedRun,
) -> State:
    """The state after the last epoch, going on after the one given, if any."""

    def keep(state: State) -> None:
        checkpoints.write(state["epoch"], state)
        report(state["history"])

    def report(history: Sequence[Epoch]) -> None:
        write_text(epochs_csv, table(history))
        run.log_steps({int(row["epoch"]): {name: row[name] for name in row if name != "epoch"} for row in history})

    if state is not None:
        report(state["history"])
        if state["finished"]:
            return state
    folder = checkpoints.folder / "ultralytics"
    if asked.executor == "local":
        return Fit(settings, threads_for(asked.threads), folder, state, keep).run()
    from stages.training.workers import fit_on_cluster  # noqa: PLC0415 -- Ray is an extra

    return fit_on_cluster(asked, settings, (yolo, splits), installed(), state, keep)


def ahead(state: State | None, epochs: int) -> str:
    if state is None:
        return f"epochs 1 to {epochs}"
    done = len(state["history"])
    return f"goes on after epoch {done}: {'the export is missing' if state['finished'] else f'to {epochs}'}"


def training_key(train: TrainParams, yolo: Path, splits: Path, weights: str) -> str:
    """sha256 over all that the trained weights follow from, on one machine: data, params, code and libraries."""
    code = [Path(__file__), *sorted((Path(__file__).parent / "training").glob("*.py"))]
    data = [yolo / "ledger.json", *sorted((yolo / "labels").glob("*.txt"))]
    lists = [splits / name for name in ("data.yaml", "test.txt", "train.txt", "val.txt")]
    start = sha256_of(Path(weights)) if Path(weights).is_file() else weights
    values = json.dumps({**train.model_dump(), "weights": start, "versions": versions()}, sort_keys=True)
    digest = hashlib.sha256(values.encode())
    for path in (*data, *lists, *code):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **installed()}


def installed() -> dict[str, str]:
    return {name: version(name) for name in DECIDE_WEIGHTS}


def described(path: Path, classes: Sequence[str]) -> Path:
    """path, which Ultralytics reads. Raises StageError unless it has the ledger's classes in their order."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path}: not found; dvc repro split writes it") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {' '.join(str(error).split())}; dvc repro -sf split") from None
    names = document.get("names") if isinstance(document, dict) else None
    if names != dict(enumerate(classes)):
        raise StageError(f"{path}: names: {names} are not the classes of the data, {classes}; dvc repro -sf split")
    return path


def table(history: Sequence[Epoch]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


if __name__ == "__main__":
    launch(train)
