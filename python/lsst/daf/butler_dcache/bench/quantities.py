"""Figures as people read them: with a unit that fits, and no more digits than are known."""

from __future__ import annotations

from .statistics import Ratio

__all__ = ("bytes_text", "number_text", "percent_text", "rate_text", "ratio_text", "seconds_text")

_NONE = "–"
_SCATTERED = 30.0
"""Where the ends of an interval are so many times apart, they say nothing."""


def number_text(value: float | None) -> str:
    """Return three significant digits, thousands without an exponent.

    Parameters
    ----------
    value : `float` or `None`
        Any number.

    Returns
    -------
    text : `str`
        A dash for `None`.
    """
    if value is None:
        return _NONE
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def seconds_text(value: float | None) -> str:
    """Return a time.

    Parameters
    ----------
    value : `float` or `None`
        Seconds.

    Returns
    -------
    text : `str`
        In µs, ms, s or min.
    """
    if value is None:
        return _NONE
    for limit, unit, factor in ((1e-3, "µs", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0)):
        if value < 0.9995 * limit:
            return f"{number_text(value * factor)} {unit}"
    return f"{number_text(value / 60)} min"


def bytes_text(value: float | None) -> str:
    """Return a size in decimal units.

    Parameters
    ----------
    value : `float` or `None`
        Bytes.

    Returns
    -------
    text : `str`
        In B, kB, MB, GB or TB.
    """
    if value is None:
        return _NONE
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{number_text(value)} {unit}"


def rate_text(value: float | None) -> str:
    """Return a throughput.

    Parameters
    ----------
    value : `float` or `None`
        Bytes per second.

    Returns
    -------
    text : `str`
        In MB/s and the like.
    """
    return _NONE if value is None else f"{bytes_text(value)}/s"


def percent_text(share: float) -> str:
    """Return a share in per cent.

    Parameters
    ----------
    share : `float`
        1 is all.

    Returns
    -------
    text : `str`
        Without digits behind the point, and without a place to break a line.
    """
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def ratio_text(ratio: Ratio) -> str:
    """Return a ratio with its interval.

    Parameters
    ----------
    ratio : `~.statistics.Ratio`
        Of repetitions.

    Returns
    -------
    text : `str`
        ``1.10 (1.02–1.19)``.
    """
    mean = f"{ratio.ratio:.2f}" if ratio.ratio >= 0.1 else f"{ratio.ratio:.2g}"
    if ratio.low is None or ratio.high is None:
        return f"{mean} (once)"
    if ratio.high > _SCATTERED * ratio.low:
        return f"{mean} (scattered)"
    low, high = (f"{end:.2f}" if 0.1 <= end < 100 else f"{end:.2g}" for end in (ratio.low, ratio.high))
    return f"{mean} ({low}–{high})"
