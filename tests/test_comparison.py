"""Two versions or runs side by side, and the commands of the registry as they are typed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.comparison import Compared, Difference, Picture, compared, output_of
from stages.mlflow_client import connect, tracking_uri
from stages.params import StageError
from stages.registry import Registry
from stages.runs import Runs
from stages.tracking import open_run
from tests.native import ROOT
from tests.released import metrics, model, registered, write_data

CLONE = {"pull": {"sources": ["folder"]}, "train": {"epochs": 24}}


def register(registry: Registry, onnx: Path, key: str, epochs: int, data: str = "1.dir", **changes: Any) -> None:
    run_id = open_run(key, name="", resume=True).run_id
    params = {**CLONE, "train": {"epochs": epochs}}
    lineage = {"data": data, "lock": None, "git": None, "training_key": key, "run_id": run_id, "params": params}
    registered(registry, onnx, key, lineage=lineage, **changes)


@pytest.fixture
def root(local_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of ten test pictures six show three fingers and four show four; version 1 sees three everywhere, 2 four."""
    monkeypatch.chdir(local_store)
    monkeypatch.setenv("DEFAULT_MODEL_NAME", "fingers")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, local_store / name)
    write_data(local_store, [3] * 6 + [4] * 4)
    registry = Registry("fingers")
    first, second = (model(local_store / f"{count}.onnx", count) for count in (3, 4))
    register(registry, first, "a", 24)
    register(registry, second, "b", 50, metrics=metrics(map50=0.9, count_mae=None))
    return local_store


def compare(root: Path, a: str, b: str) -> Compared:
    return compared(Registry("fingers"), Runs(), root, a, b)


def test_two_versions_differ_in_params_scores_and_pictures(root: Path) -> None:
    found = compare(root, "1", "2")
    assert (found.a, found.b) == ("version 1", "version 2")
    assert found.params == [Difference("train.epochs", "24", "50")]
    scores = {score.name: score for score in found.scores}
    assert next(iter(scores)) == "count_accuracy"
    assert (scores["map50"].a, scores["map50"].b) == (0.95, 0.9)
    assert scores["map50"].difference == pytest.approx(-0.05)
    assert (scores["count_mae"].b, scores["count_mae"].difference) == (None, None)
    assert scores["classes/3/ap50"].difference == 0
    on = found.on_pictures
    assert on
    assert (on.pictures, on.a_accuracy, on.b_accuracy) == (10, 0.6, 0.4)
    assert on.difference == pytest.approx(-0.2)
    assert on.low < on.difference < on.high
    assert len(on.differing) == 10
    assert (on.differing[0], on.differing[-1]) == (Picture("p00", 3, 3, 4), Picture("p09", 4, 3, 4))


def test_what_counts_alike_has_no_differing_pictures(root: Path) -> None:
    thresholds = {"confidence": 0.3, "iou": 0.6, "max_boxes": 20}
    register(Registry("fingers"), root / "3.onnx", "c", 24, "2.dir", thresholds=thresholds)
    found = compare(root, "1", "3")
    assert found.params == [Difference("lineage.data", "1.dir", "2.dir")]
    assert found.on_pictures
    assert (found.on_pictures.difference, found.on_pictures.low, found.on_pictures.differing) == (0, 0, [])


def test_a_run_is_compared_by_the_version_that_came_of_it(root: Path) -> None:
    run = open_run("a", name="", resume=True)
    run.log_params(CLONE)
    run.log_metrics({"map50": 0.3}, step=1)
    run.log_metrics({"test/map50": 0.5, "test/classes/3/ap50": 0.4})
    assert run.run_id
    found = compare(root, run.run_id, "2")
    assert found.params == [
        Difference("lineage.data", None, "1.dir"),
        Difference("train.epochs", "24", "50"),
    ]
    scores = {score.name: score for score in found.scores}
    assert (scores["map50"].a, scores["map50"].b, scores["val_map50"].a) == (0.5, 0.9, 0.3)
    assert scores["classes/3/ap50"].a == 0.4
    assert found.on_pictures


def test_without_model_or_pictures_the_rest_is_compared_and_the_way_out_is_named(root: Path) -> None:
    run_id = open_run("unfinished", name="", resume=True).run_id
    found = compare(root, "1", run_id or "")
    assert found.on_pictures is None
    assert "no model was registered from it" in str(found.why_not)
    shutil.rmtree(root / "data/yolo")
    assert compare(root, "1", "2").why_not == (
        "data/yolo: not here; ./run dvc pull data/yolo data/splits fetches the test pictures"
    )


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("1", "9", "fingers: no version '9'; there is 2; 1"),
        ("1", "nobody", "finger-counter: no run 'nobody'; fingers runs lists them"),
        ("2", "2", "2 and 2 are both version 2; name two that differ"),
    ],
)
def test_what_cannot_be_compared_is_named(root: Path, a: str, b: str, said: str) -> None:
    with pytest.raises(StageError, match=said):
        compare(root, a, b)


def test_a_version_whose_run_was_deleted_is_compared_all_the_same(root: Path) -> None:
    connect(tracking_uri()).delete_run(Registry("fingers").find("1").run_id)
    assert compare(root, "1", "2").params == [Difference("train.epochs", "24", "50")]


def test_paths_are_those_of_the_map() -> None:
    assert [output_of(ROOT, stage) for stage in ("convert", "split")] == [Path("data/yolo"), Path("data/splits")]


def fingers(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("root")
def test_the_registry_as_it_is_typed() -> None:
    fingers("promote", "1")
    fingers("promote", "2")
    champion, former = json.loads(fingers("models", "--json"))
    assert (champion["version"], champion["aliases"], former["aliases"]) == ("2", ["champion"], [])
    assert "0.900 [0.800, 0.970]" in fingers("models")
    assert "# fingers" in fingers("models", "Production")
    assert json.loads(fingers("models", "1", "--json"))[0]["card"] == "# fingers\n"
    fingers("rollback")
    history = json.loads(fingers("models", "--history", "--json"))
    assert [(one["version"], one["before"], one["command"]) for one in history] == [
        ("1", None, "promote"),
        ("2", "1", "promote"),
        ("1", "2", "rollback"),
    ]
    assert "rollback" in fingers("models", "--history")


@pytest.mark.usefixtures("root")
def test_runs_traces_and_comparisons_as_they_are_typed() -> None:
    assert [run["version"] for run in json.loads(fingers("runs", "--json"))] == [None, None]
    assert "interrupted" in fingers("runs")
    said = fingers("compare", "1", "2", "--limit", "3")
    assert "on the 10 test pictures here: count accuracy 0.6000 (version 1), 0.4000 (version 2)" in said
    assert ("p02" in said, "p03" in said) == (True, False)
    assert len(json.loads(fingers("compare", "1", "2", "--json"))[0]["on_pictures"]["differing"]) == 10
    assert "no git revision was recorded" in fingers("trace", "1")
    (trace,) = json.loads(fingers("trace", "--sha256", Registry("fingers").find("2").sha256[:9], "--json"))
    assert (trace["version"], trace["params"]["train"]["epochs"]) == ("2", 50)
    assert CliRunner().invoke(app, ["trace"]).exit_code == 2
