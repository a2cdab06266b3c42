"""Curves: latency by percentile, throughput and latency by size, concurrency and rate of arrivals.

Each says in words what it shows, and is `None` where there is nothing to show.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from .document import NOTHING, Client, Document, Result
from .drawing import LETTER, WIDTH, Drawing, draw, label_ends, plain_ticks
from .quantities import bytes_text, number_text, rate_text, seconds_text
from .theme import MARKERS, client_colours

__all__ = ("Curves",)

_FEW_OPERATIONS = 20
"""Percentiles of fewer say nothing."""
_SHARES = tuple(1 - 10 ** (-step / 6) for step in range(25))
"""Up to 99.99 %, evenly on a percentile axis."""
_Points = list[tuple[float, float]]


class Curves:
    """Draws the curves of a document.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """

    def __init__(self, document: Document) -> None:
        names = document.client_names
        self._colours = client_colours(names)
        self._markers = {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(names)}

    def percentiles(self, result: Result) -> Drawing | None:
        """Draw how long the operations of a row took, from the quickest to the slowest.

        Parameters
        ----------
        result : `~.document.Result`
            The row.
        """
        curves = {
            client.name: curve
            for client in result.clients
            if client.name != NOTHING and len(curve := _curve(client)) > 1
        }
        if not curves:
            return None

        def paint(axes: Any) -> None:
            axes.set_yscale("log")
            for name, curve in curves.items():
                shares, seconds = zip(*curve, strict=True)
                axes.plot([_nines(share) for share in shares], seconds, color=self._colours[name])
            shown = [share for share in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999) if share <= _last(curves)]
            axes.set_xticks([_nines(share) for share in shown], [f"{100 * share:g} %" for share in shown])
            axes.set_xlim(0, _nines(_last(curves)))
            times = [seconds for curve in curves.values() for _, seconds in curve]
            _time_axis(axes, min(times), max(times))
            axes.set_xlabel("share of the operations that are done within this time")
            label_ends(
                axes,
                [(_nines(c[-1][0]), c[-1][1], name, self._colours[name]) for name, c in curves.items()],
            )

        words = "; ".join(
            f"{client.name}: half within {seconds_text(client.get('p50_seconds'))}, 99 % within "
            f"{seconds_text(client.get('p99_seconds'))}"
            for client in result.clients
            if client.name in curves
        )
        height = max(210.0, 13.5 * len(curves) + 60)
        return draw(
            (460.0, height), (56, _right(curves), 10, 40), f"Latency: {result.title}", f"{words}.", paint
        )

    def by_size(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw the throughput against the size of files.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows that differ in the size.
        title : `str`
            Of the drawing.
        """
        series = self._series(
            results,
            lambda result: float(result.work.get("size_bytes") or 0),
            "throughput_bytes_per_second",
        )
        if not series:
            return None

        def paint(axes: Any) -> None:
            sizes = sorted({x for line in series.values() for x, _ in line})
            axes.set_xscale("log")
            axes.set_yscale("log")
            self._plot(axes, series)
            axes.set_xticks(_apart(sizes), [bytes_text(size) for size in _apart(sizes)])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("size of a file")
            _rate_axis(axes, series)
            self._label(axes, series)

        return draw(
            (WIDTH / 2 + 100, 250), (66, _right(series), 10, 42), title, _best(series, rate_text), paint
        )

    def by_concurrency(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw throughput and latency against the number of operations at a time.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows of the same work, which differ in nothing else.
        title : `str`
            Of the drawing.
        """
        rates = self._series(results, lambda result: float(result.at_once), "operations_per_second")
        tails = self._series(results, lambda result: float(result.at_once), "p99_seconds")
        if not rates:
            return None

        def paint(left: Any, right: Any) -> None:
            numbers = sorted({x for line in rates.values() for x, _ in line})
            for axes, series in ((left, rates), (right, tails)):
                axes.set_xscale("log", base=2)
                self._plot(axes, series)
                axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
                axes.set_xticks([], minor=True)
                axes.set_xlabel("operations at a time")
            left.set_ylim(0, max(y for line in rates.values() for _, y in line) * 1.08)
            left.set_title("operations per second", pad=8)
            self._label(left, rates)
            right.set_title("99 % are done within", pad=8)
            if tails:
                right.set_yscale("log")
                times = [y for line in tails.values() for _, y in line]
                _time_axis(right, min(times), max(times))
                self._label(right, tails)

        words = _best(rates, lambda value: f"{number_text(value)} operations per second")
        return draw((WIDTH, 260), (56, _right(rates), 26, 42), title, words, paint, panels=2)

    def by_arrivals(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw the latency against the rate at which operations arrive.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows of an open loop that differ in the rate.
        title : `str`
            Of the drawing.
        """
        arriving = [result for result in results if result.rate]
        series = {
            percent: self._series(arriving, lambda result: result.rate, f"p{percent}_seconds")
            for percent in (50, 99)
        }
        if not series[50]:
            return None

        def paint(*panels: Any) -> None:
            times = [y for lines in series.values() for line in lines.values() for _, y in line]
            rates = sorted({x for line in series[50].values() for x, _ in line})
            for axes, (percent, lines) in zip(panels, series.items(), strict=True):
                axes.set_xscale("log")
                axes.set_yscale("log")
                self._plot(axes, lines)
                axes.set_xticks(_apart(rates), [number_text(rate) for rate in _apart(rates)])
                axes.set_xticks([], minor=True)
                axes.set_xlabel("arrivals per second")
                axes.set_title("half are done within" if percent == 50 else "99 % are done within", pad=8)
                _time_axis(axes, min(times), max(times))
                self._label(axes, lines)

        words = "; ".join(
            f"{name}: 99 % within {seconds_text(line[0][1])} at {number_text(line[0][0])} a second, "
            f"{seconds_text(line[-1][1])} at {number_text(line[-1][0])}"
            for name, line in series[99].items()
        )
        return draw((WIDTH, 260), (56, _right(series[50]), 26, 42), title, f"{words}.", paint, panels=2)

    def _series(self, results: Sequence[Result], x: Any, quantity: str) -> dict[str, _Points]:
        """Points by client; of those that have two or more."""
        series: dict[str, dict[float, float]] = {}
        for result in results:
            for client in result.clients:
                y = client.get(quantity)
                if y and x(result):
                    series.setdefault(client.name, {})[x(result)] = y
        return {name: sorted(line.items()) for name, line in series.items() if len(line) > 1}

    def _plot(self, axes: Any, series: dict[str, _Points]) -> None:
        for name, line in series.items():
            x, y = zip(*line, strict=True)
            axes.plot(x, y, marker=self._markers[name], color=self._colours[name])

    def _label(self, axes: Any, series: dict[str, _Points]) -> None:
        label_ends(axes, [(*line[-1], name, self._colours[name]) for name, line in series.items()])


@functools.lru_cache(maxsize=1024)
def _shares_within(count: int) -> tuple[float, ...]:
    """Shares of which at least one operation lies beyond."""
    return tuple(share for share in _SHARES if share <= 1 - 1 / count)


def _curve(client: Client) -> list[tuple[float, float]]:
    histogram = client.histogram("operation")
    if histogram is None or histogram.count < _FEW_OPERATIONS:
        return []
    shares = _shares_within(histogram.count)
    return list(zip(shares, histogram.percentiles(100 * share for share in shares), strict=True))


def _last(curves: dict[str, _Points]) -> float:
    return max(curve[-1][0] for curve in curves.values())


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _right(names: Any) -> float:
    return LETTER * 1.08 * max(map(len, names)) + 18


def _apart(values: Sequence[float]) -> list[float]:
    """Return those values whose labels do not stand over one another on a logarithmic axis."""
    shown: list[float] = []
    whole = math.log10(values[-1] / values[0]) or 1.0
    for value in values:
        if not shown or math.log10(value / shown[-1]) > 0.14 * whole:
            shown.append(value)
    return shown


def _time_axis(axes: Any, low: float, high: float) -> None:
    low, high = low / 1.2, high * 1.2
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, low, high)
    axes.set_yticks(axes.get_yticks(), [seconds_text(tick) for tick in axes.get_yticks()])


def _rate_axis(axes: Any, series: dict[str, _Points]) -> None:
    rates = [y for line in series.values() for _, y in line]
    low, high = min(rates) / 1.3, max(rates) * 1.3
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, low, high)
    axes.set_yticks(axes.get_yticks(), [rate_text(tick) for tick in axes.get_yticks()])


def _best(series: dict[str, _Points], show: Any) -> str:
    words = "; ".join(
        f"{name}: {show(line[0][1])} first, {show(max(y for _, y in line))} at most"
        for name, line in series.items()
    )
    return f"From left to right, {words}."
