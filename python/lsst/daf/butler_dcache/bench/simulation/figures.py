"""Figures of a simulation as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .study import RESOURCES

__all__ = ("interval_text", "mean", "number_text", "saturation_text")


def mean(run: Mapping[str, Any], name: str) -> float:
    """Return the mean of a figure of a run, 0 if it has none.

    Parameters
    ----------
    run : `~collections.abc.Mapping`
        One of a document's runs.
    name : `str`
        Which figure.
    """
    found = run["figures"].get(name)
    return float(found["mean"]) if found else 0.0


def number_text(value: float) -> str:
    """Return a number with three digits that count.

    Parameters
    ----------
    value : `float`
        The number.
    """
    if value == 0 or abs(value) < 5e-4:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval_text(run: Mapping[str, Any], name: str, factor: float = 1.0) -> str:
    """Return a figure of a run with half of its interval.

    Parameters
    ----------
    run : `~collections.abc.Mapping`
        One of a document's runs.
    name : `str`
        Which figure.
    factor : `float`, optional
        Is multiplied with both.
    """
    found = run["figures"].get(name)
    if not found:
        return "0"
    half = (found["high"] - found["low"]) / 2 * factor
    mean = found["mean"] * factor
    return (
        number_text(mean)
        if half <= 5e-4 * max(abs(mean), 1.0)
        else f"{number_text(mean)} ± {number_text(half)}"
    )


def saturation_text(one: Mapping[str, Any]) -> str:
    """Say where a client saturates a site.

    Parameters
    ----------
    one : `~collections.abc.Mapping`
        One of a document's ``saturation``.
    """
    if one["saturated"] is not None and not one["good"]:
        return f"{one['client']}: already by these cores; {RESOURCES[one['because']]}: full."
    if one["saturated"] is None:
        return f"{one['client']}: not up to {one['good']:g} times the cores."
    return (
        f"{one['client']}: between {one['good']:g} and {one['saturated']:g} times the cores; "
        f"{RESOURCES[one['because']]}: {100 * one['utilisation']:.0f} %."
    )
