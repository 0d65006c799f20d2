"""How well the time of an answer distinguishes two kinds of address.

Two figures have bounds: the median ratio of two answers of one round, and the AUC of a classifier that calls an address
known if its answer is fast. This module doesn't know what was measured.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from statistics import median

RATIO_BOUND = 0.01  # off 1
AUC_BOUND = 0.02  # off 0.5


def auc(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return the share of all pairs in which one of `others` exceeds one of `ones`; ties count half.

    That is Mann and Whitney's U divided by the number of pairs, and the area under the curve of a classifier with one
    threshold: at 0.5 it guesses, at 0 and 1 it is always right.
    """
    ordered = sorted(ones)
    below = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in others)
    return below / (2 * len(ones) * len(others))


@dataclass(frozen=True)
class Difference:
    """Two kinds of address, compared.

    Args:
        pairs: the number of rounds with both.
        ratio: the median ratio of the second kind's time to the first kind's, in one round.
        interval: the 95 % confidence interval of the ratio.
        auc: of all times.
        medians: of the first kind's times and of the second kind's.
    """

    pairs: int
    ratio: float
    interval: tuple[float, float]
    auc: float
    medians: tuple[float, float]

    @property
    def off_one(self) -> float:
        """The distance of the ratio from 1, which is no difference."""
        return abs(self.ratio - 1)

    @property
    def off_half(self) -> float:
        """The distance of the AUC from 0.5, which is guessing."""
        return abs(self.auc - 0.5)

    @property
    def is_sharp(self) -> bool:
        """Whether the interval is narrower than the bounds, so that chance alone rarely puts the ratio outside."""
        return self.interval[1] - self.interval[0] < 2 * RATIO_BOUND

    @property
    def is_within_bounds(self) -> bool:
        """Whether the times reveal nothing."""
        return self.off_one < RATIO_BOUND and self.off_half < AUC_BOUND


def compare(pairs: Sequence[tuple[float, float]], more: Sequence[float] = ()) -> Difference:
    """Compare the times of two kinds of address.

    Args:
        pairs: the times of one round each, so that whatever slows the machine down affects both.
        more: times of the first kind from rounds without the second.
    """
    ones = [one for one, _ in pairs]
    others = [other for _, other in pairs]
    ratios = sorted(other / one for one, other in pairs)
    figures = auc([*ones, *more], others), (median(ones), median(others))
    return Difference(len(pairs), median(ratios), _interval(ratios), *figures)


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median."""
    aside = ceil(0.98 * sqrt(len(ordered)))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, floor(middle - aside))], ordered[min(len(ordered) - 1, ceil(middle + aside))]
