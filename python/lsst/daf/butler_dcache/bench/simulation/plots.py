"""The plots of a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing import Drawing, draw, label_ends
from .figures import mean, number_text, saturation_text
from .study import RESOURCES

__all__ = ("drawings",)

_COLOURS = {
    "ours": "#0a58ca",
    "ours, no pacing": "#0b7285",
    "ours, upstream's repetition": "#5f3dc4",
    "ours, no repetition": "#8a5a00",
    "upstream": "#c1121f",
}
_RESOURCE_COLOURS = ("#0a58ca", "#c1121f", "#8a2fb0", "#8a5a00", "#267332", "#4d5966")
_WIDTH = 720.0
_FEW_STEPS = 3
"""What is over so soon has no course."""


def drawings(document: Mapping[str, Any]) -> dict[str, Drawing]:
    """Return the plots, by name.

    Parameters
    ----------
    document : `dict`
        What `~.study.study` returned.
    """
    made: dict[str, Drawing] = {}
    if "demand" in document:
        made["demand"] = _demand_plot(document)
    if "load" in document:
        made["saturation"] = _load_plot(document)
        made["utilisation"] = _utilisation_plot(document)
    if "overload" in document:
        made["overload"] = _bars(
            "A limiter that is full: what comes out, by policy",
            document["overload"]["runs"],
            (
                ("files written per second", "written files", 1.0),
                ("failed tasks per second", "failed tasks", 1.0),
            ),
        )
    if "together" in document:
        parts = document.get("parts", 1)
        made["together"] = _bars(
            "All begin together, by policy",
            document["together"],
            (
                ("seconds until all is over", "seconds", 1.0),
                ("refused requests", "refused in all", parts),
                ("failed tasks", "failed tasks in all", parts),
            ),
        )
        if "demand" not in document:
            made["let-through"] = _over_time(
                "Requests let through per second", document["together"], "door requests", "requests/s"
            )
    if "faults" in document:
        made["waiting"] = _over_time(
            "Cores that wait for the site", document["faults"], "cores waiting", "cores", document
        )
        made["failing"] = _over_time(
            "Tasks that fail per second", document["faults"], "failed tasks", "tasks/s", document
        )
    return made


def _demand_plot(document: Mapping[str, Any]) -> Drawing:
    names = (
        ("requests at the doors", "door requests"),
        ("connections at the doors", "door connections"),
        ("full TLS handshakes there", "door full handshakes"),
        ("requests at the pools", "pool requests"),
        ("connections at the pools", "pool connections"),
        ("full TLS handshakes there", "pool full handshakes"),
    )
    runs = document["demand"]

    def paint(axes: Any) -> None:
        for number, run in enumerate(runs):
            values = [mean(run, name) for _, name in names]
            places = [place + (number - 0.5) * 0.36 for place in range(len(names))]
            axes.barh(places, values, 0.34, color=_COLOURS[run["client"]], label=run["client"])
            for place, value in zip(places, values, strict=True):
                axes.text(
                    value,
                    place,
                    f" {number_text(value)}",
                    va="center",
                    fontsize=9,
                    color=_COLOURS[run["client"]],
                )
        axes.set_yticks(range(len(names)), [title for title, _ in names])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("per second")
        axes.margins(x=0.12)
        axes.legend(loc="lower right", frameon=False)

    words = "; ".join(
        f"{title}: " + ", ".join(f"{run['client']} {number_text(mean(run, name))}" for run in runs)
        for title, name in names
    )
    return draw((_WIDTH, 270), (165, 20, 10, 40), "What it asks of doors and pools", words, paint)


def _load_plot(document: Mapping[str, Any]) -> Drawing:
    runs = document["load"]
    clients = list(dict.fromkeys(run["client"] for run in runs))

    def paint(files: Any, waiting: Any) -> None:
        first = mean(runs[0], "written files") / runs[0]["cores"]
        most = max(run["cores"] for run in runs)
        files.plot([0, most], [0, most * first], color="#56626e", linestyle=":", linewidth=1.2)
        for axes, name, factor in ((files, "written files", 1.0), (waiting, "share waiting", 100.0)):
            ends = []
            for client in clients:
                own = [run for run in runs if run["client"] == client]
                xs = [run["cores"] for run in own]
                ys = [mean(run, name) * factor for run in own]
                axes.plot(xs, ys, color=_COLOURS[client], marker="o")
                ends.append((xs[-1], ys[-1], client, _COLOURS[client]))
                low = [run["figures"][name]["low"] * factor for run in own]
                high = [run["figures"][name]["high"] * factor for run in own]
                axes.fill_between(xs, low, high, color=_COLOURS[client], alpha=0.15, linewidth=0)
            axes.set_xlabel("cores")
            axes.set_xlim(0, most)
            axes.set_ylim(bottom=0)
            label_ends(axes, ends)
        files.set_title("files written per second")
        waiting.set_title("cores that wait for the site, %")

    words = (
        " ".join(saturation_text(one) for one in document["saturation"]) + " Dotted: if nothing were full."
    )
    return draw((_WIDTH, 250), (48, 62, 26, 40), "More and more cores at the same site", words, paint, 2)


def _utilisation_plot(document: Mapping[str, Any]) -> Drawing:
    runs = document["load"]
    clients = list(dict.fromkeys(run["client"] for run in runs))
    shown = [name for name in RESOURCES if any(mean(run, name) > 0.05 for run in runs)]

    def paint(*panels: Any) -> None:
        for axes, client in zip(panels, clients, strict=True):
            own = [run for run in runs if run["client"] == client]
            ends = []
            for name, colour in zip(RESOURCES, _RESOURCE_COLOURS, strict=True):
                if name not in shown:
                    continue
                xs = [run["cores"] for run in own]
                ys = [min(100.0, 100 * mean(run, name)) for run in own]
                axes.plot(xs, ys, color=colour, marker="o")
                thing, _, where = RESOURCES[name].partition(" of the ")
                ends.append((xs[-1], ys[-1], f"{where[:-1]} {thing}", colour))
            axes.set_title(client)
            axes.set_xlabel("cores")
            axes.set_xlim(left=0)
            axes.set_ylim(0, 105)
            axes.set_ylabel("in use, %")
            label_ends(axes, ends)

    words = "; ".join(
        f"{run['client']} with {run['cores']:,} cores: "
        + ", ".join(f"{RESOURCES[name]} {100 * mean(run, name):.0f} %" for name in shown)
        for run in (runs[0], runs[-1])
    )
    return draw((_WIDTH, 270), (52, 108, 26, 40), "What is full", words, paint, len(clients))


def _bars(title: str, runs: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, str, float]]) -> Drawing:
    names = [run["client"] for run in runs]

    def paint(*all_axes: Any) -> None:
        for number, (axes, (heading, name, factor)) in enumerate(zip(all_axes, panels, strict=True)):
            values = [mean(run, name) * factor for run in runs]
            # The names stand at the first panel alone, so that all have room.
            wide = (_WIDTH - 184.0) / len(panels)
            _, bottom, _, height = axes.get_position().bounds
            axes.set_position(((160 + number * wide) / _WIDTH, bottom, (wide - 24) / _WIDTH, height))
            axes.barh(range(len(runs)), values, 0.6, color=[_COLOURS[one] for one in names])
            for place, value in enumerate(values):
                axes.text(value, place, f" {number_text(value)}", va="center", fontsize=9)
            axes.set_yticks(range(len(runs)), names if number == 0 else [""] * len(runs))
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_xlim(0, max(values) * 1.2 or 1.0)
            axes.set_title(heading)

    words = "; ".join(
        f"{heading}: " + ", ".join(f"{run['client']} {number_text(mean(run, name) * factor)}" for run in runs)
        for heading, name, factor in panels
    )
    return draw((_WIDTH, 190), (160, 12, 26, 26), title, words, paint, len(panels))


def _over_time(
    title: str,
    runs: Sequence[Mapping[str, Any]],
    name: str,
    unit: str,
    document: Mapping[str, Any] | None = None,
) -> Drawing:
    start = document["scenario"]["warm_up_seconds"] if document else 0.0
    shown = [run for run in runs if any(run["series"][name]) and len(run["series"]["at"]) > _FEW_STEPS]

    def paint(axes: Any) -> None:
        ends = []
        for run in shown:
            xs = [at - start for at in run["series"]["at"]]
            ys = run["series"][name]
            axes.plot(xs, ys, color=_COLOURS[run["client"]], linewidth=1.3)
            ends.append((xs[-1], ys[-1], run["client"], _COLOURS[run["client"]]))
        for fault in document["scenario"]["faults"] if document else ():
            axes.axvspan(
                fault["at_seconds"], fault["at_seconds"] + fault["for_seconds"], color="#dbe1e7", linewidth=0
            )
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        label_ends(axes, ends)

    words = (
        "; ".join(f"{run['client']}: at most {number_text(max(run['series'][name]))} {unit}" for run in shown)
        + "; the others none"
    )
    return draw((_WIDTH, 260), (56, 190, 10, 40), title, words if shown else "none", paint)
