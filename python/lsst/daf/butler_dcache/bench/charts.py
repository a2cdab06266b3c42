"""Charts that list rows and their clients: ratios, requests, phases.

Each says in words what it shows, and is `None` where there is nothing to show.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from .document import NOTHING, Document, Result, verdict
from .drawing import LETTER, WIDTH, Drawing, Line, draw, label_lines, plain_ticks
from .quantities import number_text, ratio_text, seconds_text
from .theme import DOOR, INK, MARKERS, MUTED, PAPER, PHASES, POOL, client_colours
from .vocabulary import OPERATIONS, PHASE_NAMES

__all__ = ("Charts",)

_LINE = 17.0
"""Points for one line."""
_MANY_REQUESTS = 30.0
"""Up to here all bars can be seen beside one another."""


class Charts:
    """Draws the charts of a document.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """

    def __init__(self, document: Document) -> None:
        names = document.client_names
        self._colours = client_colours(names)
        self._markers = {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(names)}

    def ratios(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw how long this package takes over how long each peer takes, with intervals.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows.
        title : `str`
            Of the drawing.
        """
        lines, points = [], []
        for result in results:
            ratios = result.ratios("wall")
            if not ratios:
                continue
            lines.append(Line(result.title))
            for peer, ratio in ratios.items():
                points.append((len(lines), peer, ratio))
                lines.append(Line(peer, self._colours.get(peer, MUTED), ratio_text(ratio)))
        if not points:
            return None
        # Two repetitions make intervals that reach over many powers of ten: those may leave the drawing.
        means = [ratio.ratio for _, _, ratio in points]
        low = max(min(*means, 0.8) / 3, min([0.8, *(r.low or r.ratio for _, _, r in points)]) / 1.15)
        high = min(max(*means, 1.25) * 3, max([1.25, *(r.high or r.ratio for _, _, r in points)]) * 1.15)

        def paint(axes: Any) -> None:
            axes.set_xscale("log")
            axes.set_xlim(low, high)
            axes.axvspan(low, 1, color=PHASES["transfer"], alpha=0.13, linewidth=0)
            axes.axvline(1, color=INK, linewidth=1)
            for number, peer, ratio in points:
                colour = self._colours.get(peer, MUTED)
                if ratio.low is not None and ratio.high is not None:
                    ends = [max(ratio.low, low), min(ratio.high, high)]
                    axes.plot(ends, [number, number], color=colour, linewidth=2.2)
                axes.plot([ratio.ratio], [number], marker=self._markers.get(peer, "o"), color=colour)
            plain_ticks(axes.xaxis, low, high)
            axes.set_xlabel("wall time of this package / wall time of the peer")
            label_lines(axes, lines)
            for text, shift, side in (("← this package is faster", -6, "right"), ("slower →", 6, "left")):
                axes.annotate(
                    text,
                    (1, 1),
                    (shift, 6),
                    axes.get_xaxis_transform(),
                    "offset points",
                    ha=side,
                    color=MUTED,
                    fontsize=9.5,
                )

        faster = sum(verdict(ratio) < 0 for _, _, ratio in points)
        slower = sum(verdict(ratio) > 0 for _, _, ratio in points)
        words = (
            f"{len(points)} comparisons; this package is certainly faster in {faster}, certainly slower in "
            f"{slower}; the ratios go from {min(r.ratio for _, _, r in points):.2f} to "
            f"{max(r.ratio for _, _, r in points):.2f}."
        )
        return draw(
            (WIDTH, _LINE * len(lines) + 64),
            (_left([peer for _, peer, _ in points]), 118, 22, 42),
            title,
            words,
            paint,
        )

    def requests(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw how many requests an operation takes at the door and at pools.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows.
        title : `str`
            Of the drawing.
        """
        names = list(self._colours)
        kinds: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for result in results:
            for client in result.clients:
                if client.name != NOTHING and (found := client.requests()) is not None:
                    kind = kinds.setdefault(str(result.work.get("operation")), {})
                    kind.setdefault(client.name, []).append(found)
        lines, bars = [], []
        for operation, clients in kinds.items():
            lines.append(Line(OPERATIONS.get(operation, operation)))
            for name, counted in sorted(clients.items(), key=lambda item: names.index(item[0])):
                doors, pools = zip(*counted, strict=True)
                bars.append((len(lines), statistics.fmean(doors), statistics.fmean(pools)))
                lines.append(Line(name, self._colours[name], f"{_range(doors)} + {_range(pools)}"))
        if not bars:
            return None
        # One client with a hundred requests would make all others' bars invisible; its figure stands beside.
        totals = [door + pool for _, door, pool in bars]
        end = min(max(totals), max(4 * statistics.median(totals), _MANY_REQUESTS)) * 1.05

        def paint(axes: Any) -> None:
            places = [place for place, _, _ in bars]
            doors, pools = [door for _, door, _ in bars], [pool for _, _, pool in bars]
            axes.barh(places, doors, 0.62, color=DOOR)
            axes.barh(places, pools, 0.62, left=doors, color=POOL)
            axes.set_xlim(0, end)
            for place, total in zip(places, totals, strict=True):
                if total > end:
                    axes.text(
                        0.995,
                        place,
                        "\N{RIGHTWARDS ARROW}",
                        transform=axes.get_yaxis_transform(),
                        ha="right",
                        va="center",
                        color=PAPER,
                        fontweight="bold",
                    )
            axes.set_xlabel("requests for one operation")
            label_lines(axes, lines)
            _write_legend(axes, _legend(0, [("at the door", DOOR), ("at pools", POOL)]))

        worst = max(bars, key=lambda bar: bar[1])
        words = (
            f"Between {number_text(min(bar[1] for bar in bars))} and {number_text(worst[1])} requests at the "
            f"door for one operation; most by {lines[worst[0]].name}."
        )
        return draw(
            (WIDTH, _LINE * len(lines) + 64),
            (_left([line.name for line in lines if line.colour]), 96, 22, 42),
            title,
            words,
            paint,
        )

    def phases(self, results: Sequence[Result], title: str) -> Drawing | None:
        """Draw into which phases an operation of this package falls.

        Parameters
        ----------
        results : `~collections.abc.Sequence` [`~.document.Result`]
            Rows.
        title : `str`
            Of the drawing.
        """
        lines, stacks = [], []
        for result in results:
            mine = [client for client in result.clients if client.phases]
            if mine:
                lines.append(Line(result.title))
            for client in mine:
                stacks.append((len(lines), client.phases))
                total = sum(client.phases.values())
                lines.append(Line(client.name, self._colours[client.name], seconds_text(total)))
        if not stacks:
            return None
        used = [name for name in PHASE_NAMES if any(name in phases for _, phases in stacks)]
        left_margin = _left([line.name for line in lines if line.colour])
        legend = _legend(left_margin, [(PHASE_NAMES[name], PHASES[name]) for name in used])
        top = 5 + _LINE * len(legend)

        def paint(axes: Any) -> None:
            left = [0.0] * len(stacks)
            for name in used:
                shares = [100 * phases.get(name, 0) / sum(phases.values()) for _, phases in stacks]
                axes.barh([place for place, _ in stacks], shares, 0.7, left=left, color=PHASES[name])
                left = [before + share for before, share in zip(left, shares, strict=True)]
            axes.set_xlim(0, 100)
            axes.set_xlabel("share of an operation's time, in %; at the right the time itself")
            label_lines(axes, lines)
            _write_legend(axes, legend)

        words = "; ".join(
            f"{lines[place].name}: {PHASE_NAMES[longest]} "
            f"{100 * phases[longest] / sum(phases.values()):.0f} %"
            for place, phases in stacks
            for longest in [max(phases, key=phases.__getitem__)]
        )
        return draw(
            (WIDTH, _LINE * len(lines) + top + 42),
            (left_margin, 76, top, 42),
            title,
            f"The longest phase of each: {words}.",
            paint,
        )


def _range(values: Sequence[float]) -> str:
    low, high = number_text(min(values)), number_text(max(values))
    return low if low == high else f"{low}–{high}"


def _left(names: Sequence[str]) -> float:
    return LETTER * 1.08 * max(map(len, names)) + 12


def _legend(left: float, entries: Sequence[tuple[str, str]]) -> list[list[tuple[float, str, str]]]:
    """Return the lines of what colours mean: place, text and colour of each."""
    lines: list[list[tuple[float, str, str]]] = [[]]
    place = 0.0
    for text, colour in entries:
        length = LETTER * len(text) + 22
        if lines[-1] and place + length > WIDTH - left:
            lines.append([])
            place = 0.0
        lines[-1].append((place, text, colour))
        place += length
    return lines


def _write_legend(axes: Any, lines: Sequence[Sequence[tuple[float, str, str]]]) -> None:
    for number, line in enumerate(reversed(lines)):
        for place, text, colour in line:
            for shift, words, ink, size in ((0, "■", colour, 11), (12, text, INK, 9.5)):
                axes.annotate(
                    words,
                    (0, 1),
                    (place + shift, 6 + _LINE * number),
                    "axes fraction",
                    "offset points",
                    color=ink,
                    fontsize=size,
                )
