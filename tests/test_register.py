"""Which models become champion, what is written about them, and what happens when MLflow is not there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from stages.files import read_json, write_json, write_text
from stages.gates import below_floors, compare, demo_for_real, worse_than_champion
from stages.mlflow_client import connect, tracking_uri
from stages.params import StageError
from stages.register import register
from stages.registry import Alias, Registry
from stages.release import Comparison, Metrics, read_release
from tests.native import params
from tests.released import COUNTS, metrics, model, write_data

FLOORS = params(
    **{"register.min_map50": 0.8, "register.min_count_accuracy": 0.7, "register.min_class_ap50": 0.5}
).register_


def scores(**changes: object) -> Metrics:
    return Metrics.model_validate(metrics(**changes))


def of_class(ap50: float | None) -> dict[str, object]:
    return {"classes": {"3": {"precision": 1, "recall": 1, "f1": 1, "ap50": ap50, "ap50_95": ap50}}}


# The gates, without a registry.


@pytest.mark.parametrize(
    ("changes", "may_be_absent", "failed"),
    [
        ({}, [], []),
        ({"map50": 0.8, "count_accuracy": 0.7}, [], []),  # on the floor is not below it
        ({"map50": 0.79}, [], ["mAP50"]),
        ({"map50": 0.1, "count_accuracy": 0.1}, [], ["mAP50", "count accuracy"]),
        ({"map50": None}, [], ["mAP50"]),
        (of_class(0.4), [], ["AP50 of class 3"]),
        (of_class(None), [], ["AP50 of class 3"]),
        (of_class(None), ["3"], []),
        (of_class(0.4), ["3"], ["AP50 of class 3"]),  # it need not occur; where it does, it counts
    ],
)
def test_floors(changes: dict[str, Any], may_be_absent: list[str], failed: list[str]) -> None:
    assert [failure.gate for failure in below_floors(scores(**changes), FLOORS, may_be_absent)] == failed


def test_a_failure_says_by_how_much() -> None:
    (failure,) = below_floors(scores(map50=0.75), FLOORS, [])
    assert (failure.value, failure.needed) == (0.75, 0.8)
    assert failure.text == "mAP50 0.7500, needed 0.8: 0.0500 too low"


def compared(pictures: int, won: int, lost: int) -> Comparison:
    """Pictures that only the challenger, and only the champion, counted right; the others both."""
    challenger, champion = np.ones(pictures, np.bool_), np.ones(pictures, np.bool_)
    champion[:won] = False
    challenger[won : won + lost] = False
    return compare("7", challenger, champion, 1000, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("pictures", "won", "lost", "worse"),
    [
        (100, 0, 0, False),
        (100, 9, 0, False),
        (100, 0, 1, False),  # no more than the margin
        (100, 4, 8, False),  # beyond the margin, but luck can do that
        (100, 0, 8, True),
        (100, 1, 12, True),
        (10_000, 0, 90, False),  # certain, and too little for anybody to see
        (10_000, 100, 300, True),
        (3, 0, 1, False),  # three pictures prove nothing
    ],
)
def test_not_worse_than_the_champion(pictures: int, won: int, lost: int, worse: bool) -> None:
    comparison = compared(pictures, won, lost)
    assert comparison.difference == pytest.approx((won - lost) / pictures)
    assert comparison.low <= comparison.difference <= comparison.high
    assert bool(list(worse_than_champion(comparison, margin=0.01))) == worse


def test_the_interval_covers_what_the_normal_approximation_says() -> None:
    comparison = compared(1000, 60, 40)
    error = np.sqrt((60 + 40) / 1000 - 0.02**2) / np.sqrt(1000)
    assert comparison.low == pytest.approx(0.02 - 1.96 * error, abs=0.003)
    assert comparison.high == pytest.approx(0.02 + 1.96 * error, abs=0.003)


@pytest.mark.parametrize(("challenger", "champion", "fails"), [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 1)])
def test_a_demo_never_replaces_a_champion_that_is_none(challenger: int, champion: int, fails: int) -> None:
    assert len(list(demo_for_real(bool(challenger), bool(champion)))) == fails


# The stage, with a real registry and real models.


@dataclass(frozen=True)
class World:
    """Ten test pictures of three fingers each; a model that sees N fingers everywhere is right in all or none."""

    root: Path
    yolo: Path
    splits: Path
    release: Path

    def register(
        self,
        seen: int = 3,
        key: str = "k",
        sources: Sequence[str] = ("folder",),
        truth: int = 3,
        changes: Mapping[str, object] = MappingProxyType({}),
        **scored: object,
    ) -> None:
        """A training with this key made a detector that sees `seen` fingers in every picture, and scored so.

        changes: of params.
        """
        onnx = model(self.root / "models/detector.onnx", seen)
        int8, training, evaluation = (
            self.root / "models" / name for name in ("detector.int8.xml", "train", "evaluate")
        )
        write_text(int8, f"<net>{seen}</net>")
        write_text(int8.with_suffix(".bin"), "weights")
        write_json(training / "run.json", {"key": key})
        write_text(training / "epochs.csv", "epoch,map50\n1,0.5\n2,0.9\n")
        write_json(evaluation / "metrics.json", metrics(**scored))
        write_text(evaluation / "plots/confidence.csv", "confidence,count_accuracy\n0.4,0.9\n")
        write_json(evaluation / "input_profile.json", {"pictures": 10})
        counted = [{"id": f"p{n:02d}", "truth": truth, "count": COUNTS[seen]} for n in range(10)]
        write_json(evaluation / "pictures.json", counted)
        values = {"pull.sources": list(sources), "register.model_name": "fingers", **changes}
        register(params(**values), self.yolo, self.splits, onnx, int8, training, evaluation, self.release)

    def aliases(self) -> dict[str, str]:
        """Alias: the number of its version."""
        registry = Registry("fingers")
        aliases: tuple[Alias, ...] = ("challenger", "champion")
        found = {alias: registry.with_alias(alias) for alias in aliases}
        return {alias: version.number for alias, version in found.items() if version}

    def failed(self) -> list[str]:
        return [failure.gate for failure in read_release(self.release).gates.failures]


@pytest.fixture
def world(local_store: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(local_store)
    write_text(local_store / "params.yaml", "pull: {}\n")
    yolo, splits = write_data(local_store, [3] * 10)
    return World(local_store, yolo, splits, local_store / "models/release.json")


def test_the_first_model_above_the_floors_becomes_champion(world: World) -> None:
    world.register()
    assert world.aliases() == {"challenger": "1", "champion": "1"}
    released = read_release(world.release)
    assert released.gates.passed
    assert released.comparison is None
    assert released.thresholds.model_dump() == {"confidence": 0.4, "iou": 0.6, "max_boxes": 20}
    client = connect(tracking_uri())
    version = client.get_model_version("fingers", "1")
    assert version.run_id == released.lineage.run_id
    assert version.tags["sha256"] == released.sha256
    for said in (
        "# fingers",
        "All passed",
        "10 of 11 pictures",
        "| 3 | 10 | 3 |",
        "| exact count | 0.900",
        "found by centerface",
    ):
        assert said in str(version.description)
    run = client.get_run(released.lineage.run_id or "")
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_version"] == "1"
    assert run.data.metrics["map50"] == 0.9  # of models/train/epochs.csv: nobody had logged it here
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        *("configuration", "data", "evaluate", "model", "release.json", "train")
    }


def test_a_person_may_keep_the_champion_to_herself(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AUTO_PROMOTE", "maybe")
    with pytest.raises(StageError, match="AUTO_PROMOTE: 'maybe' is neither true nor false"):
        world.register()
    monkeypatch.setenv("AUTO_PROMOTE", "false")
    with caplog.at_level(logging.INFO):
        world.register()
    assert world.aliases() == {"challenger": "1"}
    assert world.failed() == []
    said = "every gate passed: fingers version 1 is challenger; fingers promote 1 makes it champion"
    assert said in caplog.messages


def test_a_precision_that_collapsed_is_said_not_to_serve(world: World, caplog: pytest.LogCaptureFixture) -> None:
    scores = metrics()["precisions"]["f32"]
    world.register(precisions={"f32": scores, "bf16": scores, "int8": {**scores, "count_accuracy": 0.21}})
    assert read_release(world.release).servable == ["f32", "bf16"]
    assert "int8 will not serve: count accuracy 0.21, f32's 0.9" in caplog.messages
    card = str(connect(tracking_uri()).get_model_version("fingers", "1").description)
    for row in ("| f32 | 0.950 | 0.900 | 4.2 | yes |", "| int8 | 0.950 | 0.210 | 4.2 | no |"):
        assert row in card


def test_a_model_below_a_floor_is_registered_and_does_not_become_champion(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        world.register(changes={"register.min_map50": 0.99})
    assert world.aliases() == {"challenger": "1"}
    assert world.failed() == ["mAP50"]
    said = "mAP50 0.9500, needed 0.99: 0.0400 too low"
    assert f"gate failed: {said}" in caplog.messages
    assert said in str(connect(tracking_uri()).get_model_version("fingers", "1").description)


def test_required_gates_end_with_an_error_after_all_is_written(world: World) -> None:
    with pytest.raises(StageError, match=r"release.json: 1 gates failed, and register.require_gates is true"):
        world.register(changes={"register.min_map50": 0.99, "register.require_gates": True})
    assert world.aliases() == {"challenger": "1"}
    assert world.failed() == ["mAP50"]


def test_a_worse_model_does_not_replace_the_champion_and_an_equal_one_does(world: World) -> None:
    world.register(seen=3)
    world.register(seen=4, key="worse")
    assert world.aliases() == {"challenger": "2", "champion": "1"}
    assert world.failed() == ["champion"]
    seen = read_release(world.release).comparison
    assert seen
    assert (seen.champion, seen.difference, seen.low, seen.high, seen.pictures) == ("1", -1.0, -1.0, -1.0, 10)
    world.register(seen=3, key="equal", changes={"detect.max_boxes": 10})
    assert world.aliases() == {"challenger": "3", "champion": "3"}


def test_a_model_is_compared_on_the_pictures_of_today(world: World) -> None:
    """The champion was right on every test picture of its own time; today's show four fingers."""
    world.register(seen=3)
    write_data(world.root, [4] * 10)
    world.register(seen=4, key="today", truth=4)
    comparison = read_release(world.release).comparison
    assert comparison
    assert comparison.difference == 1.0


def test_a_demo_does_not_replace_a_real_champion_and_is_replaced_by_one(world: World) -> None:
    world.register(sources=["demo"])
    world.register(sources=["demo", "folder"], key="real", changes={"detect.max_boxes": 10})
    assert world.aliases() == {"challenger": "2", "champion": "2"}
    world.register(sources=["demo"], key="drawn", changes={"detect.max_boxes": 5})
    assert world.aliases() == {"challenger": "3", "champion": "2"}
    assert world.failed() == ["demo"]


def test_registering_twice_makes_one_version_and_one_run(world: World) -> None:
    world.register()
    first = world.release.read_bytes()
    world.register()
    assert world.release.read_bytes() == first
    assert world.aliases() == {"challenger": "1", "champion": "1"}
    client = connect(tracking_uri())
    assert len(client.search_model_versions("name = 'fingers'")) == 1
    assert len(client.search_runs([e.experiment_id for e in client.search_experiments()])) == 1


def test_a_champion_that_cannot_be_read_keeps_its_place(world: World) -> None:
    world.register()
    (stored,) = (world.root / ".local/mlflow/artifacts").rglob("detector.onnx")
    stored.write_bytes(b"rubbish")
    world.register(seen=4, key="next")
    assert world.aliases() == {"challenger": "2", "champion": "1"}
    assert world.failed() == ["champion"]


def test_without_mlflow_the_release_is_written_and_the_stage_says_what_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(StageError, match=r"release.json is written, the version is missing: dvc repro tries again"):
            world.register()
        released = read_release(world.release)
        assert released.lineage.run_id is None
        assert not released.gates.passed
    world.register()
    assert world.aliases() == {"challenger": "1", "champion": "1"}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", {}, "metrics.json: map50: field required; score it again: dvc repro -sf evaluate"),
        ("metrics.json", metrics(confidence="high"), "metrics.json: confidence: input should be a valid number"),
        ("metrics.json", [], "metrics.json: the document: input should be"),
    ],
)
def test_scores_of_another_shape_are_named(world: World, file: str, content: object, said: str) -> None:
    world.register()
    write_json(world.root / "models/evaluate" / file, content)
    names = ("detector.onnx", "detector.int8.xml", "train", "evaluate")
    onnx, int8, training, evaluation = (world.root / "models" / name for name in names)
    with pytest.raises(StageError) as error:
        register(params(), world.yolo, world.splits, onnx, int8, training, evaluation, world.release)
    assert said in str(error.value)


def test_a_release_of_another_schema_is_not_half_understood(world: World) -> None:
    world.register()
    write_json(world.release, {**read_json(world.release), "schema_version": 3})
    with pytest.raises(StageError, match=r"release.json: schema_version: input should be 2"):
        read_release(world.release)
