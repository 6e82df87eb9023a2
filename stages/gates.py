"""Scores of a challenger and of the champion -> which gates the challenger fails, and by how much."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stages.params import RegisterParams
from stages.release import Comparison, Failure, Gates, Metrics


def judged(failures: Iterable[Failure]) -> Gates:
    found = list(failures)
    return Gates(passed=not found, failures=found)


def below_floors(metrics: Metrics, floors: RegisterParams, may_be_absent: Sequence[str]) -> Iterator[Failure]:
    """What no test picture tells is below any floor, but for the classes that need not occur."""
    yield from _below("mAP50", metrics.map50, floors.min_map50)
    yield from _below("count accuracy", metrics.count_accuracy, floors.min_count_accuracy)
    for name, scores in metrics.classes.items():
        if scores.ap50 is not None or name not in may_be_absent:
            yield from _below(f"AP50 of class {name}", scores.ap50, floors.min_class_ap50)


def _below(gate: str, value: float | None, needed: float) -> Iterator[Failure]:
    if value is None:
        yield Failure(gate=gate, value=None, needed=needed, text=f"{gate}: no test picture tells, needed {needed:g}")
    elif value < needed:
        text = f"{gate} {value:.4f}, needed {needed:g}: {needed - value:.4f} too low"
        yield Failure(gate=gate, value=value, needed=needed, text=text)


def compare(
    champion: str,
    challenger_right: npt.NDArray[np.bool_],
    champion_right: npt.NDArray[np.bool_],
    resamplings: int,
    random: np.random.Generator,
) -> Comparison:
    """Whether each counted each of the same N pictures right -> the difference and its 95 % interval.

    Paired percentile bootstrap (Efron, 1979). A picture is won (+1), lost (-1) or neither, so drawing N of them with
    replacement is one draw from a multinomial distribution.
    """
    n = len(challenger_right)
    won, lost = int((challenger_right & ~champion_right).sum()), int((~challenger_right & champion_right).sum())
    drawn = random.multinomial(n, [won / n, lost / n, (n - won - lost) / n], size=resamplings)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return Comparison(champion=champion, pictures=n, difference=(won - lost) / n, low=float(low), high=float(high))


def worse_than_champion(comparison: Comparison, margin: float) -> Iterator[Failure]:
    """Worse is: by more than the margin, and with an interval wholly below zero.

    Either alone misjudges. On a hundred test pictures two trainings of one recipe differ by 3 % from luck, so that a
    margin alone would turn away every other equal challenger; and on ten thousand pictures an interval alone would
    turn one away for a difference that no user sees. To ask for proof that it is *not* worse (an interval wholly above
    -margin) would need some thousand pictures and keep the first champion for ever. What several challengers could lose
    little by little is held by the floors.
    """
    if comparison.difference < -margin and comparison.high < 0:
        text = (
            f"count accuracy {-comparison.difference:.4f} below the champion's (version {comparison.champion}) on the "
            f"same {comparison.pictures} pictures, 95 % interval {-comparison.high:.4f} to {-comparison.low:.4f}; "
            f"allowed {margin:g}"
        )
        yield Failure(gate="champion", value=comparison.difference, needed=-margin, text=text)


def demo_for_real(challenger_is_demo: bool, champion_is_demo: bool) -> Iterator[Failure]:
    if challenger_is_demo and not champion_is_demo:
        text = "trained on drawings, and the champion on photographs: a demo never replaces it"
        yield Failure(gate="demo", value=None, needed=None, text=text)


def not_compared(reason: str) -> Failure:
    return Failure(gate="champion", value=None, needed=None, text=f"not compared with the champion: {reason}")
