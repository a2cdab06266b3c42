"""How long operations took, kept so that many processes' figures can be put together."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Any, Self

__all__ = ("Histogram",)

_PER_SECOND = 1_000_000
_LARGEST = 3600 * _PER_SECOND
_DIGITS = 3


@cache
def _kind() -> Any:
    try:
        return importlib.import_module("hdrh.histogram").HdrHistogram
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the package hdrhistogram is not installed: pip install 'lsst-daf-butler-dcache[bench]'"
        ) from error


class Histogram:
    """Times from a microsecond to an hour with three digits: an HDR histogram.

    Parameters
    ----------
    times : `~collections.abc.Iterable` [`float`], optional
        Seconds that it begins with.

    Raises
    ------
    ModuleNotFoundError
        If the package hdrhistogram is not installed.

    Notes
    -----
    What is shorter counts as a microsecond, what is longer as an hour. One thread at a time.
    """

    def __init__(self, times: Iterable[float] = ()) -> None:
        self._counts: Any = _kind()(1, _LARGEST, _DIGITS)
        for seconds in times:
            self.record(seconds)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the histogram that `encode` described.

        Parameters
        ----------
        text : `str`
            Its description.
        """
        histogram = cls()
        histogram._counts.decode_and_add(text.encode())
        return histogram

    def encode(self) -> str:
        """Return a description of it: base64 of the compressed V2 format of HDR histograms."""
        encoded: bytes = self._counts.encode()
        return encoded.decode()

    def record(self, seconds: float) -> None:
        """Count one time.

        Parameters
        ----------
        seconds : `float`
            The time.
        """
        self._counts.record_value(min(max(round(seconds * _PER_SECOND), 1), _LARGEST))

    def add(self, other: Histogram) -> None:
        """Count all times of another.

        Parameters
        ----------
        other : `Histogram`
            Stays as it is.
        """
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        """How many times there are."""
        return int(self._counts.total_count)

    @property
    def mean(self) -> float:
        """Their mean in seconds; 0 if there are none."""
        return float(self._counts.get_mean_value()) / _PER_SECOND if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the time within which a share of all lies.

        Parameters
        ----------
        percent : `float`
            From 0 to 100; 100 is the longest.

        Returns
        -------
        seconds : `float`
            0 if there are none.
        """
        return float(self._counts.get_value_at_percentile(percent)) / _PER_SECOND if self.count else 0.0

    def percentiles(self, percents: Iterable[float]) -> list[float]:
        """Return the times within which several shares lie; faster than one at a time.

        Parameters
        ----------
        percents : `~collections.abc.Iterable` [`float`]
            Each from 0 to 100.

        Returns
        -------
        seconds : `list` [`float`]
            In the same order; 0 if there are none.
        """
        percents = list(percents)
        if not self.count:
            return [0.0] * len(percents)
        values = self._counts.get_percentile_to_value_dict(percents)
        return [float(values[percent]) / _PER_SECOND for percent in percents]
