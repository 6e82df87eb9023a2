"""Groups and what they hold -> a side for each: train, val or test, as even over the classes as whole groups allow."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.params import SplitParams

SIDES = ("train", "val", "test")
NEW = -1  # the place of a group that is on no side yet
Places = npt.NDArray[np.int64]  # (groups,): 0 1 2, positions in SIDES, or NEW
Counts = npt.NDArray[np.int64]  # (..., strata): pictures, pictures without boxes, boxes of each class

MAX_ORDERS, PLACINGS = 100, 20_000  # a dozen groups are placed in 100 orders, 10,000 in two, more in one
MOVES = 200  # of single groups, to even out what an order left; more groups than that are even already
DIGITS = 6  # of a cost: what differs by less is equal, so that another processor's rounding decides nothing
MISSING = 1e6  # the cost of a class that is missing on a side; unevenness costs some hundreds at most


def place(strata: Counts, settled: Places, rules: SplitParams) -> Places:
    """A side for every new group; settled ones stay. strata (groups, strata), settled and the answer (groups,).

    Each order of the new groups is placed one by one where the deficit is largest, then evened out by moving single
    groups; the most even outcome is taken. The orders are drawn, the first of them then sorted by falling size.
    """
    new = np.flatnonzero(settled == NEW)
    if not new.size:
        return settled
    balance = Balance.of(strata, rules)
    rng = np.random.default_rng(rules.seed)
    orders = [rng.permutation(new) for _ in range(max(1, min(MAX_ORDERS, PLACINGS // len(new))))]
    orders[0] = orders[0][np.argsort(-strata[orders[0], 0], kind="stable")]
    outcomes = (balance.even_out(balance.fill(settled, order), new) for order in orders)
    return min(outcomes, key=balance.cost)


@dataclass(frozen=True)
class Balance:
    """How even sides are: chi-square, (observed - expected)² / expected, over the shares of each stratum."""

    strata: Counts  # (groups, strata)
    shares: npt.NDArray[np.float64]  # of the whole stratum
    weights: npt.NDArray[np.float64]  # (strata,)
    wanted: npt.NDArray[np.float64]  # (sides, 1): the fractions
    everywhere: npt.NDArray[np.bool_]  # (strata,): in at least three groups, so that no side need be without

    @classmethod
    def of(cls, strata: Counts, rules: SplitParams) -> "Balance":
        occurs = strata.any(axis=0)
        weights = np.ones(strata.shape[1])
        weights[0] = occurs.sum()  # the number of pictures weighs as much as all classes together
        everywhere = np.count_nonzero(strata, axis=0) >= len(SIDES)
        everywhere[1] = False  # pictures without boxes are no class
        shares = strata[:, occurs] / strata[:, occurs].sum(axis=0)
        wanted = np.array(fractions(rules))[:, None]
        return cls(strata[:, occurs], shares, weights[occurs], wanted, everywhere[occurs])

    def fill(self, settled: Places, order: npt.NDArray[np.intp]) -> Places:
        """Each group of the order in turn, where the deficit is largest."""
        places = settled.copy()
        deficit = np.array([self.wanted[at] - self.shares[places == at].sum(axis=0) for at in range(len(SIDES))])
        for number in order:
            share = self.shares[number]
            gain = (share * (2 * deficit - share) / self.wanted * self.weights).sum(axis=1)  # the fall of chi-square
            places[number] = chosen = int(np.argmax(gain.round(DIGITS)))
            deficit[chosen] -= share
        return places

    def even_out(self, places: Places, movable: npt.NDArray[np.intp]) -> Places:
        """Moves the one group that helps most, until none helps."""
        places = places.copy()
        each = np.arange(len(movable))
        for _ in range(MOVES):
            held = self.held(places)
            before = self.costs(held, self.wanted)  # (sides,)
            moving, from_ = self.strata[movable], places[movable]
            leaving = self.costs(held[from_] - moving, self.wanted[from_]) - before[from_]
            change = np.stack([self.costs(held[at] + moving, self.wanted[at]) for at in range(len(SIDES))], axis=1)
            change += leaving[:, None] - before  # (movable, sides)
            change[each, from_] = 0
            best, side = np.unravel_index(np.argmin(change.round(DIGITS)), change.shape)
            if side == from_[best]:
                break
            places[movable[best]] = side
        return places

    def cost(self, places: Places) -> float:
        return round(float(self.costs(self.held(places), self.wanted).sum()), DIGITS)

    def held(self, places: Places) -> Counts:
        """(groups,) -> (sides, strata)."""
        return np.array([self.strata[places == at].sum(axis=0) for at in range(len(SIDES))])

    def costs(self, counts: Counts, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """counts (N, strata), wanted (N, 1) -> (N,)."""
        off = (counts / self.strata.sum(axis=0) - wanted) ** 2 / wanted * self.weights
        missing = np.count_nonzero((counts == 0) & self.everywhere, axis=1)
        total: npt.NDArray[np.float64] = off.sum(axis=1) + MISSING * missing
        return total


def fractions(rules: SplitParams) -> list[float]:
    return [rules.train, rules.val, rules.test]
