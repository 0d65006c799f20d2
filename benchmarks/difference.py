"""How well time tells two kinds of address apart.

Decides by which figures it is judged, and what they are held to: the median ratio of two answers of one round, and the
AUC of a classifier that says "known" where an answer is fast. It must not know what was measured.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from statistics import median

RATIO_BOUND, AUC_BOUND = 0.01, 0.02  # off 1, and off 0.5


def auc(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return how often one of `others` exceeds one of `ones`, ties counted half: Mann and Whitney's U, over all pairs.

    It is the area under the curve of every classifier that goes by one bound: 0.5 tells nothing, 0 and 1 all.
    """
    ordered = sorted(ones)
    below = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in others)
    return below / (2 * len(ones) * len(others))


@dataclass(frozen=True)
class Difference:
    """Two kinds of address, compared.

    Args:
        pairs: so many rounds asked for both.
        ratio: of the other's time to the first one's in a round, the median.
        interval: in which chance lets the ratio lie, in 95 of 100 cases.
        auc: of all times.
        medians: of the first one's times, and of the other's.
    """

    pairs: int
    ratio: float
    interval: tuple[float, float]
    auc: float
    medians: tuple[float, float]

    @property
    def off_one(self) -> float:
        """How far the ratio is from that of no difference."""
        return abs(self.ratio - 1)

    @property
    def off_half(self) -> float:
        """How far the classifier is from guessing."""
        return abs(self.auc - 0.5)

    @property
    def is_sharp(self) -> bool:
        """Whether the interval is narrower than the bounds are apart: chance alone hardly puts the ratio outside."""
        return self.interval[1] - self.interval[0] < 2 * RATIO_BOUND

    @property
    def is_within_bounds(self) -> bool:
        """Whether it tells nothing."""
        return self.off_one < RATIO_BOUND and self.off_half < AUC_BOUND


def compare(pairs: Sequence[tuple[float, float]], more: Sequence[float] = ()) -> Difference:
    """Compare the times of two kinds of address.

    Args:
        pairs: measured in one round each, so that what the machine does meanwhile falls on both.
        more: times of the first kind from rounds without the other.
    """
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    ratios = sorted(other / one for one, other in pairs)
    figures = auc([*ones, *more], others), (median(ones), median(others))
    return Difference(len(pairs), median(ratios), _interval(ratios), *figures)


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return between which two values the true median lies, in 95 of 100 cases."""
    aside = ceil(0.98 * sqrt(len(ordered)))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, floor(middle - aside))], ordered[min(len(ordered) - 1, ceil(middle + aside))]
