"""Whether two sets of repetitions differ by more than they scatter."""

from __future__ import annotations

import math
import statistics

__all__ = ("chance", "quantile", "welch")

_LEAST_SCATTER = 0.01
"""Of logarithms: repetitions that happen to be equal are not known better than to 1 %."""
_MANY = 200
"""Degrees of freedom beyond which nothing changes."""


def welch(before: list[float], after: list[float], usual: float) -> tuple[float, int]:
    """Return the standard error of the difference of two means.

    Parameters
    ----------
    before, after : `list` [`float`]
        Logarithms of repetitions.
    usual : `float`
        Variance of what was measured once.

    Returns
    -------
    error : `float`
        The standard error.
    degrees : `int`
        Its degrees of freedom, after Welch and Satterthwaite.
    """
    shares = [
        (max(statistics.variance(logs), _LEAST_SCATTER**2) / len(logs), len(logs) - 1)
        if len(logs) > 1
        else (max(usual, _LEAST_SCATTER**2), _MANY)
        for logs in (before, after)
    ]
    total = sum(share for share, _ in shares)
    degrees = total**2 / sum(share**2 / free for share, free in shares)
    return math.sqrt(total), max(1, min(_MANY, math.floor(degrees)))


def chance(t: float, degrees: int) -> float:
    """Return how likely a t of this size, of either sign, is by chance.

    Parameters
    ----------
    t : `float`
        A difference over its standard error.
    degrees : `int`
        Degrees of freedom, 1 or more.

    Notes
    -----
    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for number in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (number - 1) / number
        total += term
    beyond = sine * total if degrees > 1 else 0.0
    return max(0.0, 1 - (2 / math.pi * (angle + beyond) if odd else beyond))


def quantile(degrees: int) -> float:
    """Return the t that is exceeded, with either sign, in one case of twenty.

    Parameters
    ----------
    degrees : `int`
        Degrees of freedom, 1 or more.
    """
    low, high = 1.9, 13.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle, degrees) > 0.05 else (low, middle)
    return high
