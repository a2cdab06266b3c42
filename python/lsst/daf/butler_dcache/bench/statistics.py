"""What repetitions say: medians with their range, and ratios with their interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ("Ratio", "Spread", "paired_ratio", "spread", "student_quantile")

_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom."""
_NORMAL_QUANTILE = 1.95996


@dataclass(frozen=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and range.

    Parameters
    ----------
    values : `~collections.abc.Sequence` [`float`]
        At least one.

    Returns
    -------
    spread : `Spread`
        Of them.
    """
    return Spread(statistics.median(values), min(values), max(values))


def student_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, to three digits.

    Parameters
    ----------
    degrees : `int`
        Degrees of freedom, at least 1.

    Returns
    -------
    quantile : `float`
        By how many standard errors an interval of 95 % reaches to either side.
    """
    return _QUANTILES[degrees - 1] if degrees <= len(_QUANTILES) else _NORMAL_QUANTILE + 2.5 / degrees


@dataclass(frozen=True)
class Ratio:
    """A mean ratio and the interval that holds it in 95 of 100 such measurements.

    Parameters
    ----------
    ratio : `float`
        Geometric mean.
    low, high : `float` or `None`
        The interval; `None` if there was one pair, which says nothing of the scatter.
    pairs : `int`
        How many.
    """

    ratio: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def half_width(self) -> float:
        """By which factor, less 1, the interval reaches above the ratio; infinite without one."""
        return math.inf if self.high is None else self.high / self.ratio - 1


def paired_ratio(pairs: Iterable[tuple[float, float]]) -> Ratio | None:
    """Return the mean ratio of figures that were taken one after the other.

    Parameters
    ----------
    pairs : `~collections.abc.Iterable` [`tuple` [`float`, `float`]]
        Numerator and denominator of each repetition; those with a zero are left out.

    Returns
    -------
    ratio : `Ratio` or `None`
        `None` if nothing is left.

    Notes
    -----
    The interval is Student's for the mean of the logarithms: half as long and twice as long are equally far
    from equal, and what slows the machine for a while slows both of a pair.
    """
    logs = [math.log(a / b) for a, b in pairs if a > 0 and b > 0]
    if not logs:
        return None
    mean, count = statistics.fmean(logs), len(logs)
    if count == 1:
        return Ratio(math.exp(mean), None, None, 1)
    half = student_quantile(count - 1) * statistics.stdev(logs) / math.sqrt(count)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), count)
