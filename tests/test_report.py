"""What a pull request's comment shows: scores beside main's, charts in Mermaid, and what is older than dvc.lock."""

import re
from typing import Any

import pytest

from scripts.report import CURVES, Results, bars, behind, curve, report
from tests.native import ROOT


def results(accuracy: float, curves: dict[str, list[float]] | None = None) -> Results:
    interval = {"count_accuracy_low": accuracy - 0.1, "count_accuracy_high": accuracy + 0.1}
    classes = {"0": {"ap50": accuracy}, "1": {"ap50": None}}
    return Results(
        {"count_accuracy": accuracy, **interval, "map50": 0.5, "map50_95": 0.25, "classes": classes}, curves or {}
    )


def test_scores_and_charts_come_before_the_tables() -> None:
    trained = {"map50_95": [0.1, 0.2], "val_cls_loss": [2.0, 1.5]}
    text = report(results(0.8, trained), results(0.7, trained), [], ["| a |\n", "| b |\n"])
    assert text.startswith("Main and this branch, both trained on this runner.\n\n| | main | here |\n|---|---|---|\n")
    assert "| count accuracy | 0.700 (0.600 to 0.800) | 0.800 (0.700 to 0.900) |\n| mAP50 | 0.500 | 0.500 |" in text
    assert re.findall(r'^  title "(.*):', text, re.MULTILINE) == [
        "val mAP50-95",
        "val loss of classes",
        "AP50 by class",
    ]
    assert text.endswith("differs</summary>\n\n| a |\n\n| b |\n\n</details>\n")


def test_what_was_not_trained_here_says_so_and_has_no_curves() -> None:
    text = report(results(0.8), results(0.7), ["split", "train"], [])
    assert text.startswith(
        "Main and this branch, each as committed: no runner has the pictures.\n\n**Changed since dvc"
    )
    assert "not in these scores: split, train.**" in text
    assert re.findall(r'^  title "(.*):', text, re.MULTILINE) == ["AP50 by class"]


@pytest.mark.parametrize(
    ("after", "before", "drawn"),
    [
        ([], [], []),
        ([0.1], [0.1], []),
        ([0.1, float("nan")], [0.1, 0.2], []),
        (
            [0.1, 0.2],
            [0.3, 0.4],
            ['x-axis "epoch" 1 --> 2', "y-axis 0 --> 1", "line [0.100, 0.200]", "line [0.300, 0.400]"],
        ),
        (
            [0.1, 0.2],
            [3, 2, 1],
            ['x-axis "epoch" 1 --> 3', "y-axis 0 --> 3", "line [0.100, 0.200, 0.200]", "line [3.000, 2.000, 1.000]"],
        ),
    ],
)
def test_a_curve_has_a_value_for_each_epoch(after: list[float], before: list[float], drawn: list[str]) -> None:
    assert [line.strip() for line in curve("score", after, before).splitlines()[6:-1]] == drawn


def test_a_class_that_one_side_has_not_is_no_bar() -> None:
    assert bars({"a": {"ap50": 1.0}}, {"b": {"ap50": 1.0}}) == ""
    text = bars({'say "a"': {"ap50": 1.0}, "b": {"ap50": None}}, {'say "a"': {"ap50": 0.5}, "b": {"ap50": 0.5}})
    assert "  x-axis [\"say 'a'\"]\n  y-axis 0 --> 1\n  bar [1.000]\n  line [0.500]\n```" in text


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ([], []),
        ([{"changed outs": {"data/raw": "not in cache"}}], []),
        ([{"changed deps": {"data/sources": "modified", "data/raw": "deleted"}}], []),
        ([{"changed deps": {"stages/train.py": "modified"}}], ["train"]),
        ([{"changed deps": {"params.yaml": {"train.epochs": "modified"}}}], ["train"]),
    ],
)
def test_a_stage_is_behind_when_its_code_or_parameters_changed(
    changes: list[dict[str, Any]], stages: list[str]
) -> None:
    assert behind({"train": changes}) == stages


def test_the_curves_are_those_of_a_training() -> None:
    written = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert all(name in written for name in CURVES)
