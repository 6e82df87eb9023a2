"""Recent pictures and a release's input_profile -> how far they are from those it learnt from, in a number and words.

An input has drifted when the median of recent pictures lies outside what nine in ten training pictures were like.
Tests of whole distributions (PSI, Kolmogorov-Smirnov) are no use here: the frames of one webcam are all alike, and
would raise an alarm for being narrower than the training pictures, which harms nobody.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from serve.jobs import Seen

WINDOW = 300  # pictures
ENOUGH = 30  # values; fewer say nothing yet
AN_HOUR = 3600.0  # s; older pictures are not recent
LEVELS: Final = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Input:
    """below, above: the words for pictures under and over the range; None: that is no harm.

    slack: the least distance from the training median that counts, where training pictures were all alike.
    """

    below: str | None
    above: str | None
    slack: float
    relative: bool = False  # slack is a share of the training median
    digits: int = 0


INPUTS: Final = {
    "brightness": Input("pictures are darker", "pictures are brighter", slack=15),  # of 255
    "sharpness": Input("pictures are blurrier", "pictures are sharper or noisier", slack=0.3, relative=True),
    "width": Input("pictures are narrower", "pictures are wider", slack=0.25, relative=True),  # px
    "height": Input("pictures are lower", "pictures are taller", slack=0.25, relative=True),  # px
    "confidence": Input("the model is less sure of hands", None, slack=0.05, digits=2),
}


@dataclass(frozen=True)
class Drift:
    """Of one input. score: the recent median's distance from the training median, signed; 1 is the edge of p05..p95.

    recent None: too few values; training None: the release does not say. Without both there is no score.
    """

    name: str
    values: int
    recent: dict[str, float] | None
    training: dict[str, float] | None
    score: float | None = None
    words: str | None = None  # None: as in training, or not known

    @property
    def drifted(self) -> bool:
        return self.words is not None


def drifts(recent: Mapping[str, Sequence[float]], profile: Mapping[str, Any]) -> list[Drift]:
    """recent: name of an input -> its values. profile: of a release; what it does not say is not judged."""
    return [judged(name, recent.get(name, ()), known(profile.get(name))) for name in INPUTS]


def known(training: Any) -> dict[str, float] | None:
    """A profile is whatever was released, by an older version too."""
    return training if isinstance(training, dict) and training.keys() >= LEVELS.keys() else None


def judged(name: str, values: Sequence[float], training: dict[str, float] | None) -> Drift:
    quantiles = dict(zip(LEVELS, np.quantile(values, list(LEVELS.values())).tolist(), strict=True)) if values else None
    if quantiles is None or len(values) < ENOUGH:
        return Drift(name, len(values), None, training)
    if training is None:
        return Drift(name, len(values), quantiles, None)
    value = score(quantiles["p50"], training, INPUTS[name])
    return Drift(name, len(values), quantiles, training, value, words(name, value, quantiles["p50"], training["p50"]))


def score(median: float, training: Mapping[str, float], of: Input) -> float:
    slack = of.slack * (training["p50"] if of.relative else 1)
    distance = median - training["p50"]
    to_edge = training["p95"] - training["p50"] if distance > 0 else training["p50"] - training["p05"]
    return distance / max(to_edge, slack, 1e-9)


def words(name: str, value: float, median: float, training: float) -> str | None:
    of = INPUTS[name]
    what = None if abs(value) <= 1 else of.above if value > 0 else of.below
    numbers = f"median {name} {median:.{of.digits}f} against {training:.{of.digits}f}"
    return f"{what} than {'it was' if name == 'confidence' else 'those'} in training ({numbers})" if what else None


class Recent:
    """The newest pictures that a model answered, as numbers: nothing of the pictures themselves is kept."""

    def __init__(self) -> None:
        self._pictures: deque[tuple[float, dict[str, list[float]]]] = deque(maxlen=WINDOW)

    def add(self, seen: Seen, confidences: Sequence[float], now: float) -> None:
        """now: s, of a clock that only goes forward."""
        sizes = {"width": [float(seen.width)], "height": [float(seen.height)]}
        looks = {"brightness": [seen.brightness], "sharpness": [seen.sharpness], "confidence": list(confidences)}
        self._pictures.append((now, sizes | looks))

    def values(self, now: float) -> dict[str, list[float]]:
        """By input, oldest first."""
        pictures = [values for at, values in self._pictures if now - at < AN_HOUR]
        return {name: [value for values in pictures for value in values[name]] for name in INPUTS}
