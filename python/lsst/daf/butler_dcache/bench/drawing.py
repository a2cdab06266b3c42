"""Drawings for a page: matplotlib's SVG, with text as text, in the page's colours, with words beside it."""

from __future__ import annotations

import importlib
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .theme import GRID, INK, MUTED, PAPER, themed

__all__ = ("LETTER", "WIDTH", "Drawing", "Line", "draw", "label_ends", "label_lines", "plain_ticks")

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dcache-butler-bench",
    "font.family": ["sans-serif"],
    "font.size": 10.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
}
WIDTH = 720.0
"""Points of a drawing that fills the page."""
LETTER = 6.2
"""Points of a letter, on the safe side."""
_LINE_HEIGHT = 13.0
"""Points between two labels."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Drawing:
    """A drawing, with what it shows in words.

    Parameters
    ----------
    title : `str`
        What it shows.
    description : `str`
        What is seen in it, for those who do not see it.
    svg : `str`
        The drawing, to stand in a page.
    """

    title: str
    description: str
    svg: str


def draw(
    size: tuple[float, float],
    margins: tuple[float, float, float, float],
    title: str,
    description: str,
    paint: Callable[..., None],
    panels: int = 1,
) -> Drawing:
    """Return a drawing.

    Parameters
    ----------
    size : `tuple` [`float`, `float`]
        Width and height of all in points, of which the page shows each as large as one of its own at most.
    margins : `tuple` [`float`, `float`, `float`, `float`]
        Of each panel, in points: left, right, top, bottom. The layout is not left to matplotlib, which
        measures every text, draws all twice and takes twice the time for it.
    title, description : `str`
        In words.
    paint : `~collections.abc.Callable`
        Takes the axes of each panel, and draws.
    panels : `int`, optional
        Number of panels, side by side.
    """
    matplotlib = importlib.import_module("matplotlib")
    figures = importlib.import_module("matplotlib.figure")
    importlib.import_module("matplotlib.backends.backend_svg")
    out = io.StringIO()
    width, height = size
    left, right, top, bottom = margins
    each = width / panels
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=(width / 72, height / 72), dpi=72)
        paint(
            *(
                figure.add_axes(
                    (
                        (number * each + left) / width,
                        bottom / height,
                        (each - left - right) / width,
                        (height - top - bottom) / height,
                    )
                )
                for number in range(panels)
            )
        )
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Drawing(title, description, _for_page(out.getvalue(), title, description, width))


def _for_page(svg: str, title: str, description: str, width: float) -> str:
    """Leave out what stands before the drawing, and make names unique in a page with many of them."""
    number = next(_numbers)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' id="(?!m|p|C|DejaVu)[a-z]+[A-Za-z]*_[0-9]+"', "", svg)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>d{number}-", svg)
    svg = re.sub(r"font(-family)?:[^;\"]*?(sans-serif)[^;\"]*", lambda found: _font(found.group()), svg)
    head, _, rest = svg.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return themed(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()}'
        f' role="img" aria-labelledby="d{number}-title d{number}-words" style="max-width:{width:.0f}pt">'
        f'<title id="d{number}-title">{escape(title)}</title>'
        f'<desc id="d{number}-words">{escape(description)}</desc>{rest}'
    )


def _font(style: str) -> str:
    """Return the style with the font of the page."""
    if style.startswith("font-family"):
        return "font-family: inherit"
    size = re.search(r"[0-9.]+px", style)
    weight = "bold " if "bold" in style or "700" in style else ""
    return f"font: {weight}{size.group() if size else '10px'} var(--font)"


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names to the right of where lines end, none over another.

    Parameters
    ----------
    axes : `matplotlib.axes.Axes`
        With scales and limits as they will be.
    ends : `~collections.abc.Sequence`
        End of each line, its name and its colour.
    """
    (_, bottom), (_, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    ordered = sorted((axes.transData.transform((x, y))[1], x, y, text, colour) for x, y, text, colour in ends)
    places = _spread_out([height for height, *_ in ordered], bottom, top)
    for place, (_, x, y, text, colour) in zip(places, ordered, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.03, (place - bottom) / (top - bottom)),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontweight="bold",
            fontsize=9.5,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
            annotation_clip=False,
        )


def _spread_out(heights: Sequence[float], bottom: float, top: float) -> list[float]:
    """Return places near heights that rise, a line apart from one another."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, bottom, places[-1] + _LINE_HEIGHT if places else bottom))
    limit = max(top, bottom + _LINE_HEIGHT * (len(places) - 1))
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - _LINE_HEIGHT
    return places


@dataclass(frozen=True)
class Line:
    """A line of a chart that lists rows and, below each, its clients.

    Parameters
    ----------
    name : `str`
        The row or the client.
    colour : `str`, optional
        Of the client; empty for a row.
    figure : `str`, optional
        What stands at the right end.
    """

    name: str
    colour: str = ""
    figure: str = ""


def label_lines(axes: Any, lines: Sequence[Line]) -> None:
    """Name the lines of a chart, whose places are 0, 1, … from the top.

    Parameters
    ----------
    axes : `matplotlib.axes.Axes`
        Of the chart.
    lines : `~collections.abc.Sequence` [`Line`]
        Rows, and clients.
    """
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    clients = [(number, line) for number, line in enumerate(lines) if line.colour]
    axes.set_yticks([number for number, _ in clients], [line.name for _, line in clients])
    for label, (_, line) in zip(axes.get_yticklabels(), clients, strict=True):
        label.set_color(line.colour)
        label.set_fontweight("bold")
    transform = axes.get_yaxis_transform()
    for number, line in enumerate(lines):
        if not line.colour:
            axes.text(
                0.0,
                number + 0.08,
                line.name,
                transform=transform,
                va="center",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
            )
        elif line.figure:
            axes.text(1.02, number, line.figure, transform=transform, va="center", fontsize=9.5)


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Name round numbers on a logarithmic axis.

    Parameters
    ----------
    axis : `matplotlib.axis.Axis`
        Of the drawing.
    low, high : `float`
        Where it begins and ends.
    """
    steps = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in _steps(high / low)
    ]
    shown = [step for step in steps if low <= step <= high]
    axis.set_ticks(shown, [f"{step:g}" for step in shown])
    axis.set_ticks([], minor=True)


def _steps(factor: float) -> tuple[float, ...]:
    """Which multiples of powers of ten are named on an axis that spans this factor."""
    if factor < 8:
        return (1, 1.5, 2, 3, 4, 5, 7)
    return (1, 2, 5) if factor < 300 else (1,)
