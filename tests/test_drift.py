"""What counts as drift, and the words for it."""

from typing import Any

import pytest

from serve.drift import AN_HOUR, ENOUGH, INPUTS, WINDOW, Drift, Recent, drifts
from serve.jobs import Seen
from serve.metrics import of_drift


def quantiles(p05: float, p50: float, p95: float) -> dict[str, float]:
    return {"p05": p05, "p25": (p05 + p50) / 2, "p50": p50, "p75": (p50 + p95) / 2, "p95": p95}


PROFILE: dict[str, Any] = {
    "brightness": quantiles(88, 112, 153),
    "sharpness": quantiles(37, 103, 200),
    "width": quantiles(640, 640, 640),
    "height": quantiles(480, 480, 480),
    "confidence": quantiles(0.88, 0.92, 0.95),
    "pictures": 472,
}


def drift(name: str, value: float, profile: dict[str, Any] = PROFILE, values: int = ENOUGH) -> Drift:
    return next(found for found in drifts({name: [value] * values}, profile) if found.name == name)


def seen(**changes: Any) -> Seen:
    plain: dict[str, Any] = {
        "width": 640,
        "height": 480,
        "brightness": 112.0,
        "sharpness": 103.0,
        "jpeg": None,
        "blurred": True,
    }
    return Seen(**plain | {"hands": [], "faces": 0, "decode": 0.0, "hide": 0.0, "detect": 0.0} | changes)


def test_without_pictures_nothing_is_judged() -> None:
    found = drifts({}, PROFILE)
    assert [each.name for each in found] == list(INPUTS)
    assert {(each.values, each.recent, each.score, each.words) for each in found} == {(0, None, None, None)}


@pytest.mark.parametrize(
    ("name", "median", "words"),
    [
        ("brightness", 112, None),
        ("brightness", 89, None),  # nine in ten training pictures were not darker than 88
        ("brightness", 62, "pictures are darker than those in training (median brightness 62 against 112)"),
        ("brightness", 200, "pictures are brighter than those in training (median brightness 200 against 112)"),
        ("sharpness", 20, "pictures are blurrier than those in training (median sharpness 20 against 103)"),
        ("sharpness", 400, "pictures are sharper or noisier than those in training (median sharpness 400 against 103)"),
        ("width", 641, None),  # training pictures were all alike: a pixel more is no drift
        ("width", 799, None),
        ("width", 1280, "pictures are wider than those in training (median width 1280 against 640)"),
        ("width", 320, "pictures are narrower than those in training (median width 320 against 640)"),
        ("height", 240, "pictures are lower than those in training (median height 240 against 480)"),
        ("height", 720, "pictures are taller than those in training (median height 720 against 480)"),
        ("confidence", 0.86, "the model is less sure of hands than it was in training"),
        ("confidence", 0.999, None),  # surer than in training: no harm
    ],
)
def test_an_input_drifts_when_its_median_leaves_what_training_was_like(
    name: str, median: float, words: str | None
) -> None:
    found = drift(name, median)
    assert (found.words or "").startswith(words or "")
    assert found.drifted == (words is not None)


def test_the_score_is_one_at_the_edge_of_nine_in_ten_training_pictures_and_has_the_side_as_its_sign() -> None:
    assert drift("brightness", 88).score == -1
    assert drift("brightness", 153).score == 1
    assert drift("brightness", 112).score == 0


def test_prometheus_is_told_what_the_page_says_and_a_surer_model_is_no_alert() -> None:
    scores, drifted = of_drift([drift("brightness", 5), drift("confidence", 0.999)])
    assert [sample.value > 0 for sample in scores.samples] == [False, True]
    assert {sample.labels["input"]: sample.value for sample in drifted.samples} == {"brightness": 1, "confidence": 0}


def test_a_few_outliers_are_no_drift() -> None:
    values = [112.0] * 60 + [10.0] * 40
    (found, *_) = drifts({"brightness": values}, PROFILE)
    assert not found.drifted
    assert found.recent == pytest.approx(quantiles(10, 112, 112) | {"p25": 10, "p75": 112})


def test_too_few_values_say_nothing_yet() -> None:
    found = drift("brightness", 5, values=ENOUGH - 1)
    assert (found.values, found.recent, found.score, found.words) == (ENOUGH - 1, None, None, None)


@pytest.mark.parametrize("profile", [{}, {"brightness": None}, {"brightness": {"p50": 3.0}}, {"brightness": "dark"}])
def test_what_a_release_does_not_say_is_not_judged(profile: dict[str, Any]) -> None:
    found = drift("brightness", 5, profile)
    assert found.recent is not None
    assert (found.training, found.score, found.words) == (None, None, None)


def test_the_newest_pictures_of_the_last_hour_are_recent() -> None:
    recent = Recent()
    recent.add(seen(brightness=1.0), [0.5], now=0.0)
    recent.add(seen(brightness=2.0), [0.6, 0.7], now=AN_HOUR - 1)
    assert recent.values(AN_HOUR - 1)["confidence"] == [0.5, 0.6, 0.7]
    assert recent.values(AN_HOUR)["brightness"] == [2.0]
    for n in range(WINDOW + 5):
        recent.add(seen(width=n + 1), [], now=AN_HOUR)
    values = recent.values(AN_HOUR)
    assert (len(values["width"]), values["width"][0], values["confidence"]) == (WINDOW, 6, [])
