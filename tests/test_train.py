"""A training's settings, its state on disk, and the whole stage on small drawings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from ultralytics.models import YOLO

from stages.params import Params, StageError, TrainParams
from stages.train import described, table, train, training_key
from stages.training.checkpoint import KEPT, Checkpoints
from stages.training.export import check_onnx
from stages.training.settings import FREE, device_for, find_weights, settings_for, threads_for
from stages.vision.images import read_image
from tests.fixed_model import write_model
from tests.native import ROOT, params

CLASSES = ["0", "1"]
SIZE = 64
PATHS = [Path(p) for p in ("data/yolo", "data/splits", "models/detector.pt", "models/detector.onnx", "models/train")]
COLUMNS = """epoch,seconds,box_loss,cls_loss,dfl_loss,val_box_loss,val_cls_loss,val_dfl_loss,
precision,recall,map50,map50_95,lr""".replace("\n", "")

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning:torch.onnx"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # Ultralytics ignores it too, before pytest does not
]


def train_params(**changed: Any) -> TrainParams:
    return params_with(**changed).train


def params_with(**changed: Any) -> Params:
    """A short training on the processor; changed: keys of params.train."""
    quick = {"image_size": SIZE, "epochs": 2, "batch_size": 8, "device": "cpu", "threads": 1, "ultralytics": {}}
    return params(**{f"train.{key}": value for key, value in {**quick, **changed}.items()})


def draw(root: Path, train: int = 20, val: int = 6, test: int = 4) -> Path:
    """data/yolo and data/splits with a disc or a square a picture."""
    rng = np.random.default_rng(0)
    images, labels, splits = (root / "data" / name for name in ("yolo/images", "yolo/labels", "splits"))
    for folder in (images, labels, splits):
        folder.mkdir(parents=True)
    names = [f"a{i:03d}" for i in range(train + val + test)]
    for name in names:
        class_id, radius = int(rng.integers(2)), int(rng.integers(8, 16))
        x, y = (int(v) for v in rng.integers(radius, SIZE - radius, 2))
        image = np.full((SIZE, SIZE, 3), rng.integers(0, 80, 3), np.uint8)
        if class_id:
            cv2.circle(image, (x, y), radius, (240, 200, 60), -1)
        else:
            cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), (60, 80, 240), -1)
        cv2.imwrite(str(images / f"{name}.jpg"), image)
        row = [x / SIZE, y / SIZE, 2 * radius / SIZE, 2 * radius / SIZE]
        (labels / f"{name}.txt").write_text(f"{class_id} {' '.join(f'{v:.6f}' for v in row)}\n")
    for side, chosen in {"train": names[:train], "val": names[train:-test], "test": names[-test:]}.items():
        (splits / f"{side}.txt").write_text("".join(f"./../yolo/images/{name}.jpg\n" for name in chosen))
    write_yaml(splits / "data.yaml", CLASSES)
    (root / "data/yolo/ledger.json").write_text(json.dumps({"classes": CLASSES, "counts": [0, 1], "assets": {}}))
    return root


def write_yaml(path: Path, names: list[str]) -> None:
    lists = "".join(f"{side}: {side}.txt\n" for side in ("train", "val", "test"))
    path.write_text(f"{lists}names:\n" + "".join(f"  {i}: '{name}'\n" for i, name in enumerate(names)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drawn data set in the working directory, and no MLflow server at the address."""
    return enter(draw(tmp_path / "here"), monkeypatch)


def enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return root


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["model"].state_dict()
    return state


# Settings


def test_settings_reach_ultralytics_in_its_own_words() -> None:
    settings = settings_for(train_params(ultralytics={"lr0": 0.002, "mosaic": 0.0}, optimizer="AdamW", seed=7))
    assert settings == {
        "imgsz": SIZE,
        "epochs": 2,
        "batch": 8,
        "optimizer": "AdamW",
        "patience": 100,
        "seed": 7,
        "lr0": 0.002,
        "mosaic": 0.0,
    }


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        ("AdamW", {"lr_0": 0.1}, r"train\.ultralytics\.lr_0: Ultralytics has no such setting; allowed: .*\blr0\b"),
        ("AdamW", {"imgsz": 320}, r"train\.ultralytics\.imgsz: set train\.image_size instead"),
        ("AdamW", {"batch": 320}, r"train\.ultralytics\.batch: set train\.batch_size instead"),
        ("AdamW", {"project": "runs"}, r"train\.ultralytics\.project: the stage sets this itself"),
        ("AdamW", {"deterministic": False}, r"train\.ultralytics\.deterministic: the stage sets this itself"),
        ("AdamW", {"format": "onnx"}, r"train\.ultralytics\.format: .* does not steer a training"),
        ("AdamW", {"mosaic": "yes"}, r"train\.ultralytics: 'mosaic=yes' is of invalid type"),
        ("AdamW", {"hsv_h": 3}, r"train\.ultralytics: 'hsv_h=3' is an invalid value"),
        ("auto", {"lr0": 0.1}, r"train\.ultralytics\.lr0: optimizer auto would ignore it"),
        ("auto", {"momentum": 0.1}, r"train\.ultralytics\.momentum: optimizer auto would ignore it"),
    ],
)
def test_a_setting_that_would_not_steer_the_training_is_refused(
    optimizer: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        settings_for(train_params(optimizer=optimizer, ultralytics=settings))


def test_every_free_setting_exists_in_the_ultralytics_installed() -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    assert set(DEFAULT_CFG_DICT) >= FREE


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    assert device_for("cpu") == "cpu"
    assert device_for("auto")
    with pytest.raises(StageError, match=r"train\.device: 'cuda:63' is not on this machine; it has .*cpu"):
        device_for("cuda:63")


def test_zero_threads_means_one_a_core() -> None:
    assert threads_for(3) == 3
    assert 1 <= threads_for(0) <= (os.cpu_count() or 1)


def test_weights_that_are_absent_without_a_network_name_the_file_and_two_ways_out(here: Path) -> None:
    """A proxy that refuses stands in for a network that is not there, so that the test needs none and asks none."""
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    code = "from stages.training.settings import find_weights; find_weights('yolo11n.pt')"
    started = time.monotonic()
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.monotonic() - started < 30  # most of it is importing torch
    assert re.search(r"StageError: yolo11n\.pt: not found, and no network .*put the file.*yolo11n\.yaml", asked.stderr)
    assert not list(here.rglob("*.pt"))


def test_weights_of_an_unknown_name_are_not_searched_on_the_network(here: Path) -> None:
    with pytest.raises(
        StageError, match=r"mine\.pt: no such file \(train\.weights\); put the file there .*yolo11n\.yaml"
    ):
        find_weights("mine.pt")
    with pytest.raises(StageError, match=r"yolo99\.yaml: no such file, and no architecture"):
        find_weights("yolo99.yaml")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken"])
def test_a_file_that_holds_no_weights_is_refused(here: Path, content: bytes) -> None:
    (here / "mine.pt").write_bytes(content)
    with pytest.raises(StageError, match=r"mine\.pt: not the weights of an Ultralytics detector"):
        find_weights("mine.pt")


def test_relative_weights_are_found_from_a_queued_experiments_copy(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model": YOLO("yolo11n.yaml").model}, here / "mine.pt")
    copy = here / ".dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert find_weights("mine.pt") == str(here / "mine.pt")


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo11x.yaml", "yolov8s.yaml"])
def test_architectures_of_every_size_are_known(name: str) -> None:
    assert find_weights(name) == name


# State on disk


def test_a_training_that_never_began_has_no_state(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None


def test_the_newest_state_is_gone_on_with_and_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(12):
        checkpoints.write(epoch, {"epoch": epoch, "model": {"w": torch.full((3,), epoch)}})
    state = checkpoints.newest()
    assert state
    assert state["epoch"] == 11
    assert state["model"]["w"].tolist() == [11, 11, 11]
    assert len(list(tmp_path.iterdir())) == KEPT


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b[:99] + b"x" + b[100:]])
def test_a_damaged_state_is_discarded_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(2):
        checkpoints.write(epoch, {"epoch": epoch, "model": {"w": torch.zeros(99)}})
    newest = max(tmp_path.iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    state = checkpoints.newest()
    assert state
    assert state["epoch"] == 0
    assert "damaged" in caplog.text
    assert not newest.exists()


# What the training is made from


def key_of(root: Path, weights: str = "yolo11n.yaml", **changed: Any) -> str:
    return training_key(train_params(**changed), root / "data/yolo", root / "data/splits", weights)


def test_the_key_follows_from_content_and_not_from_where_it_lies(tmp_path: Path) -> None:
    assert key_of(draw(tmp_path / "one")) == key_of(draw(tmp_path / "two"))


@pytest.mark.parametrize("change", ["label", "list", "ledger", "params", "weights"])
def test_whatever_decides_the_weights_changes_the_key(tmp_path: Path, change: str) -> None:
    root, weights = draw(tmp_path), tmp_path / "mine.pt"
    weights.write_bytes(b"one")
    before = key_of(root, str(weights))
    match change:
        case "label":
            (root / "data/yolo/labels/a000.txt").write_text("")
        case "list":
            (root / "data/splits/val.txt").write_text("./../yolo/images/a000.jpg\n")
        case "ledger":
            (root / "data/yolo/ledger.json").write_text("{}")
        case "weights":
            weights.write_bytes(b"two")
    assert key_of(root, str(weights), seed=7 if change == "params" else 42) != before


def test_a_list_of_classes_other_than_the_datas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    with pytest.raises(StageError, match=r"data\.yaml: not found"):
        described(path, CLASSES)
    path.write_text("names: [")
    with pytest.raises(StageError, match=r"data\.yaml: not YAML"):
        described(path, CLASSES)
    write_yaml(path, ["1", "0"])
    with pytest.raises(StageError, match=r"data\.yaml: names: .* are not the classes of the data"):
        described(path, CLASSES)
    write_yaml(path, CLASSES)
    assert described(path, CLASSES) == path


def test_the_curves_are_a_table_of_one_row_an_epoch() -> None:
    assert table([{"epoch": 1, "lr": 0.5}, {"epoch": 2, "lr": 0.25}]) == "epoch,lr\n1,0.5\n2,0.25\n"


# The stage


@pytest.mark.slow
def test_two_trainings_in_two_places_end_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [enter(draw(tmp_path / name), monkeypatch) for name in ("one", "another")]
    for root in roots:
        train(params_with(threads=2, ultralytics={"mosaic": 1.0}), *(enter(root, monkeypatch) / path for path in PATHS))
    one, another = (root / "models" for root in roots)
    weights, others = weights_in(one / "detector.pt"), weights_in(another / "detector.pt")
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for name in ("detector.pt", "detector.onnx", "train/run.json"):
        assert (one / name).read_bytes() == (another / name).read_bytes()


@pytest.mark.slow
def test_the_outs_hold_what_later_stages_read_and_nothing_private(here: Path) -> None:
    data = here / "data"
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    train(params_with(), *PATHS)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    assert not list((here / ".local/train").iterdir())

    rows = (here / "models/train/epochs.csv").read_text().splitlines()
    assert rows[0] == COLUMNS
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2"]
    report = json.loads((here / "models/train/run.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}", report["key"])
    assert (report["device"], report["threads"], report["epochs"]) == ("cpu", 1, 2)

    detector, exported = here / "models/detector.pt", here / "models/detector.onnx"
    for path in (detector, exported, here / "models/train/run.json"):
        for private in (str(here), str(ROOT), str(Path.home()), time.strftime("%Y-%m-%d"), "github.com"):
            assert private.encode() not in path.read_bytes(), f"{private} in {path.name}"
    assert YOLO(detector).names == dict(enumerate(CLASSES))
    assert YOLO(detector)(np.zeros((SIZE, SIZE, 3), np.uint8), verbose=False)
    graph = onnx.load(exported).graph
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert shapes == [[1, 3, SIZE, SIZE], [1, 4 + len(CLASSES), (8 * 8 + 4 * 4 + 2 * 2)]]


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three batches an epoch and a step every two: an epoch must leave no gradients to the next
    changed = {"epochs": 4, "ultralytics": {"mosaic": 1.0, "close_mosaic": 1, "nbs": 16, "warmup_epochs": 0.0}}
    whole, killed = draw(tmp_path / "whole"), draw(tmp_path / "killed")
    train(params_with(**changed), *(enter(whole, monkeypatch) / path for path in PATHS))

    document = params_with(**changed).model_dump(by_alias=True)
    (killed / "params.yaml").write_text(json.dumps(document))
    environment = {**os.environ, "DVC_ROOT": str(killed), "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI")
    command = [sys.executable, "-m", "stages.train", *map(str, PATHS)]
    for epochs in (1, 3):
        process = subprocess.Popen(command, cwd=killed, env=environment)
        while count_epochs(killed) < epochs and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        shutil.rmtree(killed / "models")  # as DVC does before it runs a stage
    subprocess.run(command, cwd=killed, env=environment, check=True)

    ours, theirs = weights_in(killed / "models/detector.pt"), weights_in(whole / "models/detector.pt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert count_epochs(killed) == 4
    assert logged_steps(killed) == [[1, 2, 3, 4]]


def count_epochs(root: Path) -> int:
    path = root / "models/train/epochs.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def logged_steps(root: Path) -> list[list[int]]:
    """The steps of map50 in each run of the local MLflow, in the order of logging."""
    code = """
import json, mlflow, sys
client = mlflow.MlflowClient(sys.argv[1])
runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
print(json.dumps([[m.step for m in client.get_metric_history(run.info.run_id, "map50")] for run in runs]))
"""
    address = f"sqlite:///{root}/.local/mlflow/mlflow.db"
    asked = subprocess.run([sys.executable, "-c", code, address], check=True, capture_output=True, text=True)
    steps: list[list[int]] = json.loads(asked.stdout)
    return steps


@pytest.mark.slow
def test_a_training_that_no_longer_improves_ends_and_its_best_epoch_is_what_is_exported(here: Path) -> None:
    learning = {"optimizer": "AdamW", "batch_size": 4, "ultralytics": {"lr0": 0.002, "mosaic": 0.0, "nbs": 4}}
    train(params_with(epochs=80, patience=2, **learning), *PATHS)
    report = json.loads((here / "models/train/run.json").read_text())
    assert report["epochs"] == report["best_epoch"] + 2 < 80
    scores = YOLO(here / "models/detector.pt").val(
        data="data/splits/data.yaml", imgsz=SIZE, batch=8, workers=0, device="cpu", plots=False, verbose=False
    )
    rows = (here / "models/train/epochs.csv").read_text().splitlines()[1:]
    map50_95 = [float(row.split(",")[COLUMNS.split(",").index("map50_95")]) for row in rows]
    assert map50_95[report["best_epoch"] - 1] == max(map50_95) > 0
    assert scores.box.map == pytest.approx(max(map50_95), abs=0.02)


@pytest.mark.slow
def test_a_stage_that_fails_after_its_training_does_not_train_again(here: Path) -> None:
    (here / "models/detector.pt").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        train(params_with(), *PATHS)
    curves = (here / "models/train/epochs.csv").read_text()
    shutil.rmtree(here / "models")
    train(params_with(), *PATHS)
    assert (here / "models/train/epochs.csv").read_text() == curves  # with the seconds that each epoch took


@pytest.mark.slow
def test_a_picture_that_ultralytics_would_drop_in_silence_stops_the_stage(here: Path) -> None:
    picture = here / "data/yolo/images/a003.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])  # the header is whole
    with pytest.raises(StageError, match=r"train\.txt: 1 of 20 pictures unusable: a003\.jpg"):
        train(params_with(), *PATHS)
    picture.unlink()
    with pytest.raises(StageError, match=r"a003\.jpg: not found"):
        train(params_with(), *PATHS)


@pytest.mark.slow
def test_an_export_that_answers_otherwise_is_refused(here: Path) -> None:
    train(params_with(epochs=1), *PATHS)
    pictures = [read_image(here / "data/yolo/images/a000.jpg")]
    detector, other = here / "models/detector.pt", here / "other.onnx"
    assert check_onnx(here / "models/detector.onnx", detector, SIZE, pictures)["boxes_px"] < 0.01
    with pytest.raises(StageError, match=r"other\.onnx: differs from detector\.pt by"):
        check_onnx(write_model(other, [], SIZE, len(CLASSES), anchors=84), detector, SIZE, pictures)
    with pytest.raises(StageError, match=r"other\.onnx: answers \(1, 6, 9\) where detector\.pt answers \(1, 6, 84\)"):
        check_onnx(write_model(other, [], SIZE, len(CLASSES), anchors=9), detector, SIZE, pictures)


@pytest.mark.slow
def test_weights_for_other_classes_are_fine_tuned_and_exported(here: Path) -> None:
    """As the official ones are: a small network for 80 classes has a wider class branch than one for two."""
    YOLO("yolo11n.yaml").save(here / "pretrained.pt")
    train(params_with(weights="pretrained.pt", epochs=1), *PATHS)
    assert YOLO(here / "models/detector.pt").names == dict(enumerate(CLASSES))
    assert (here / "models/detector.onnx").stat().st_size > 1_000_000
