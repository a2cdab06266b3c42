"""What a simulation showed: ``simulation.json``, ``summary.md`` and ``report.html`` with its plots."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..drawing import Drawing, draw, label_ends
from ..theme import style_sheet
from .study import RESOURCES

__all__ = ("drawings", "summary", "write")

_COLOURS = {
    "ours": "#0a58ca",
    "ours, no pacing": "#0b7285",
    "ours, upstream's repetition": "#5f3dc4",
    "ours, no repetition": "#8a5a00",
    "upstream": "#c1121f",
}
_RESOURCE_COLOURS = ("#0a58ca", "#c1121f", "#8a2fb0", "#8a5a00", "#267332", "#4d5966")
_WIDTH = 720.0
_STYLE = """
:root{--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--font)}
main{max-width:1000px;margin:0 auto;padding:2rem 1.5rem 4rem}
h2{margin:2.6rem 0 .6rem;padding-top:.8rem;border-top:2px solid var(--grid)}
p,li{max-width:48rem}
.stand-in{border-left:.3rem solid var(--orange);padding:.1rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left}
figure{margin:1rem 0 1.6rem}figure svg{display:block;width:100%;height:auto}
figcaption{color:var(--muted);font-size:.9rem}
"""

_Rows = Sequence[Sequence[str]]


# -- numbers


def _mean(run: Mapping[str, Any], name: str) -> float:
    found = run["figures"].get(name)
    return float(found["mean"]) if found else 0.0


def _number(value: float) -> str:
    if value == 0 or abs(value) < 5e-4:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _with_interval(run: Mapping[str, Any], name: str, factor: float = 1.0) -> str:
    found = run["figures"].get(name)
    if not found:
        return "0"
    half = (found["high"] - found["low"]) / 2 * factor
    mean = found["mean"] * factor
    return _number(mean) if half <= 5e-4 * max(abs(mean), 1.0) else f"{_number(mean)} ± {_number(half)}"


_DEMAND: tuple[tuple[str, str, float], ...] = (
    ("files written per second", "written files", 1.0),
    ("MB written per second", "written bytes", 1e-6),
    ("requests per second at the doors", "door requests", 1.0),
    ("new connections per second at the doors", "door connections", 1.0),
    ("of these with a full TLS handshake", "door full handshakes", 1.0),
    ("processors of the doors that are busy", "busy door processors", 1.0),
    ("share of what the limiters of all doors allow, %", "limiter utilisation", 100.0),
    ("requests per second at the pools", "pool requests", 1.0),
    ("new connections per second at the pools", "pool connections", 1.0),
    ("of these with a full TLS handshake", "pool full handshakes", 1.0),
    ("mover slots in use", "movers", 1.0),
    ("share of the pools' network, %", "network utilisation", 100.0),
    ("refused requests per second", "refused", 1.0),
    ("input and output of a task, s (median)", "task p50", 1.0),
    ("the same, 99 %", "task p99", 1.0),
    ("cores that wait for the site, %", "share waiting", 100.0),
)


# -- tables


def _demand_table(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    runs = document["demand"]
    return ["", *(run["client"] for run in runs)], [
        [title, *(_with_interval(run, name, factor) for run in runs)] for title, name, factor in _DEMAND
    ]


def _load_table(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["client", "cores", "files/s", "failed tasks/s", "cores waiting, %", "refused/s"]
    head += [title for title in RESOURCES.values()]
    rows = []
    for run in document["load"]:
        rows.append(
            [
                run["client"],
                f"{run['cores']:,}",
                _with_interval(run, "written files"),
                _number(_mean(run, "failed tasks")),
                _number(100 * _mean(run, "share waiting")),
                _number(_mean(run, "refused")),
                *(f"{100 * _mean(run, name):.0f} %" for name in RESOURCES),
            ]
        )
    return head, rows


def _policy_table(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = [
        "client",
        "files/s",
        "failed tasks/s",
        "requests/s at the doors",
        "refused/s",
        "repeated/s",
        "wait of a task, s (median)",
        "99 %",
    ]
    names = (
        "written files",
        "failed tasks",
        "door requests",
        "refused",
        "requests repeated",
        "task p50",
        "task p99",
    )
    return head, [[run["client"], *(_with_interval(run, name) for name in names)] for run in runs]


def _together_table(runs: Sequence[Mapping[str, Any]], parts: int) -> tuple[list[str], list[list[str]]]:
    head = [
        "client",
        "all done after, s",
        "requests/s let through",
        "refused",
        "repeated",
        "tasks that failed",
        "a task, s (median)",
        "99 %",
    ]
    rows = []
    for run in runs:
        rows.append(
            [
                run["client"],
                _with_interval(run, "seconds"),
                _with_interval(run, "door requests"),
                *(
                    _with_interval(run, f"{name} in all", parts)
                    for name in ("refused", "requests repeated", "failed tasks")
                ),
                _with_interval(run, "task p50"),
                _with_interval(run, "task p99"),
            ]
        )
    return head, rows


def _fault_table(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = [
        "client",
        "tasks done",
        "tasks that failed",
        "requests repeated",
        "refused",
        "a task, s (median)",
        "99 %",
    ]
    names = (
        "tasks in all",
        "failed tasks in all",
        "requests repeated in all",
        "refused in all",
        "task p50",
        "task p99",
    )
    return head, [[run["client"], *(_with_interval(run, name) for name in names)] for run in runs]


def _sections(document: Mapping[str, Any]) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """Return heading, text and table of each part that the document has."""
    scenario = document["scenario"]
    site = scenario["site"]
    sections = []
    if "demand" in document:
        sections.append(
            (
                "What it asks of doors and pools",
                f"{scenario['cores']:,} cores on {scenario['hosts']} hosts; {site['doors']} doors of "
                f"{site['door_processors']} processors, {site['pools']} pools of "
                f"{site['movers']} mover slots and {site['pool_bytes_per_second'] / 1e9:g} GB/s.",
                *_demand_table(document),
            )
        )
    if "load" in document:
        sections.append(
            (
                "Where it saturates",
                " ".join(_saturation_text(one) for one in document["saturation"])
                + " The site stays as it is; a site of which everything was divided by "
                f"{document['parts']} was simulated, and figures multiplied.",
                *_load_table(document),
            )
        )
    if "overload" in document:
        over = document["overload"]
        sections.append(
            (
                "Repetition and pacing beyond saturation",
                f"{over['factor']:g} times the cores, this package's requests.",
                *_policy_table(over["runs"]),
            )
        )
    if "together" in document:
        text = (
            "All cores begin within a second, and do the input and output of one task."
            if "demand" in document
            else f"{scenario['cores']} processes of {scenario['hosts']} host(s) begin together."
        )
        sections.append(
            (
                "Repetition and pacing when all begin together",
                text,
                *_together_table(document["together"], document.get("parts", 1)),
            )
        )
    if "faults" in document:
        faults = "; ".join(
            f"{one['kind']}:{one['number']} after {one['at_seconds']:g} s, for {one['for_seconds']:g} s"
            for one in scenario["faults"]
        )
        sections.append(("While something goes wrong", f"{faults}.", *_fault_table(document["faults"])))
    return sections


def _saturation_text(one: Mapping[str, Any]) -> str:
    if one["saturated"] is None:
        return f"{one['client']}: not up to {one['good']:g} times the cores."
    return (
        f"{one['client']}: between {one['good']:g} and {one['saturated']:g} times the cores; "
        f"{RESOURCES[one['because']]}: {100 * one['utilisation']:.0f} %."
    )


def _origin(document: Mapping[str, Any]) -> list[str]:
    times = document["service_times"]
    whose = "" if times["is_dcache"] else " They are not dCache's."
    notes = "".join(f" ({note})" for note in times["notes"])
    unsteady = sum(
        not run["is_steady"]
        for part in ("demand", "load")
        for one in document.get(part, [])
        for run in one["runs"]
    )
    texts = [
        "This is a simulation: no server was asked, and no figure is that of a dCache.",
        f"Service times: {times['title']}; {times['source']}.{whose}{notes}",
        f"Figures are means over the seeds {', '.join(map(str, document['seeds']))}, "
        "± half of the 95 % interval.",
    ]
    if unsteady:
        texts.append(
            f"{unsteady} runs had no steady state: more waited at their end than at their beginning, as they "
            "do beyond saturation."
        )
    return texts


def summary(document: Mapping[str, Any]) -> str:
    """Return the report in Markdown.

    Parameters
    ----------
    document : `dict`
        What `~.study.study` returned.
    """
    lines = [f"# {document['scenario']['title']}", ""]
    lines += [f"- {text}" for text in _origin(document)]
    for title, text, head, rows in _sections(document):
        lines += ["", f"## {title}", "", text, "", "| " + " | ".join(head) + " |"]
        lines.append("| --- |" + " --: |" * (len(head) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# -- plots


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
            "Beyond saturation: what comes out, by policy",
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
            (("seconds until all is done", "seconds", 1.0), ("refused requests", "refused in all", parts)),
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
            values = [_mean(run, name) for _, name in names]
            places = [place + (number - 0.5) * 0.36 for place in range(len(names))]
            axes.barh(places, values, 0.34, color=_COLOURS[run["client"]], label=run["client"])
            for place, value in zip(places, values, strict=True):
                axes.text(
                    value, place, f" {_number(value)}", va="center", fontsize=9, color=_COLOURS[run["client"]]
                )
        axes.set_yticks(range(len(names)), [title for title, _ in names])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("per second")
        axes.margins(x=0.12)
        axes.legend(loc="lower right", frameon=False)

    words = "; ".join(
        f"{title}: " + ", ".join(f"{run['client']} {_number(_mean(run, name))}" for run in runs)
        for title, name in names
    )
    return draw((_WIDTH, 270), (165, 20, 10, 40), "What it asks of doors and pools", words, paint)


def _load_plot(document: Mapping[str, Any]) -> Drawing:
    runs = document["load"]
    clients = list(dict.fromkeys(run["client"] for run in runs))

    def paint(files: Any, waiting: Any) -> None:
        first = _mean(runs[0], "written files") / runs[0]["cores"]
        most = max(run["cores"] for run in runs)
        files.plot([0, most], [0, most * first], color="#56626e", linestyle=":", linewidth=1.2)
        for axes, name, factor in ((files, "written files", 1.0), (waiting, "share waiting", 100.0)):
            ends = []
            for client in clients:
                own = [run for run in runs if run["client"] == client]
                xs = [run["cores"] for run in own]
                ys = [_mean(run, name) * factor for run in own]
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
        " ".join(_saturation_text(one) for one in document["saturation"]) + " Dotted: if nothing were full."
    )
    return draw((_WIDTH, 250), (48, 62, 26, 40), "More and more cores at the same site", words, paint, 2)


def _utilisation_plot(document: Mapping[str, Any]) -> Drawing:
    runs = document["load"]
    clients = list(dict.fromkeys(run["client"] for run in runs))
    shown = [name for name in RESOURCES if any(_mean(run, name) > 0.05 for run in runs)]

    def paint(*panels: Any) -> None:
        for axes, client in zip(panels, clients, strict=True):
            own = [run for run in runs if run["client"] == client]
            ends = []
            for name, colour in zip(RESOURCES, _RESOURCE_COLOURS, strict=True):
                if name not in shown:
                    continue
                xs = [run["cores"] for run in own]
                ys = [min(100.0, 100 * _mean(run, name)) for run in own]
                axes.plot(xs, ys, color=colour, marker="o")
                short = RESOURCES[name].replace(" of the ", "\n")
                ends.append((xs[-1], ys[-1], short.split("\n")[0], colour))
            axes.set_title(client)
            axes.set_xlabel("cores")
            axes.set_ylim(0, 105)
            axes.set_ylabel("in use, %")
            label_ends(axes, ends)

    words = "; ".join(
        f"{run['client']} with {run['cores']:,} cores: "
        + ", ".join(f"{RESOURCES[name]} {100 * _mean(run, name):.0f} %" for name in shown)
        for run in (runs[0], runs[-1])
    )
    return draw((_WIDTH, 270), (52, 76, 26, 40), "What is full", words, paint, len(clients))


def _bars(title: str, runs: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, str, float]]) -> Drawing:
    names = [run["client"] for run in runs]

    def paint(*all_axes: Any) -> None:
        for number, (axes, (heading, name, factor)) in enumerate(zip(all_axes, panels, strict=True)):
            values = [_mean(run, name) * factor for run in runs]
            axes.barh(range(len(runs)), values, 0.6, color=[_COLOURS[one] for one in names])
            for place, value in enumerate(values):
                axes.text(value, place, f" {_number(value)}", va="center", fontsize=9)
            axes.set_yticks(range(len(runs)), names if number == 0 else [""] * len(runs))
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_xlim(0, max(values) * 1.2 or 1.0)
            axes.set_title(heading)

    words = "; ".join(
        f"{heading}: " + ", ".join(f"{run['client']} {_number(_mean(run, name) * factor)}" for run in runs)
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
    shown = [run for run in runs if "series" in run and any(run["series"][name])]

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
        "; ".join(f"{run['client']}: at most {_number(max(run['series'][name]))} {unit}" for run in shown)
        + "; the others none"
    )
    return draw((_WIDTH, 260), (56, 190, 10, 40), title, words if shown else "none", paint)


# -- files


def _table_html(head: Sequence[str], rows: _Rows) -> str:
    cells = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


_PLOTS_OF = {
    "What it asks of doors and pools": ("demand",),
    "Where it saturates": ("saturation", "utilisation"),
    "Repetition and pacing beyond saturation": ("overload",),
    "Repetition and pacing when all begin together": ("together", "let-through"),
    "While something goes wrong": ("waiting", "failing"),
}


def _page(document: Mapping[str, Any], plots: Mapping[str, Drawing]) -> str:
    title = escape(document["scenario"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style_sheet()}{_STYLE}</style></head><body><main><h1>{title}</h1>",
        '<div class="stand-in">' + "".join(f"<p>{escape(text)}</p>" for text in _origin(document)) + "</div>",
    ]
    for heading, text, head, rows in _sections(document):
        parts.append(f"<h2>{escape(heading)}</h2><p>{escape(text)}</p>")
        for name in _PLOTS_OF[heading]:
            if name in plots:
                plot = plots[name]
                parts.append(
                    f"<figure>{plot.svg}<figcaption>{escape(plot.title)}. {escape(plot.description)}"
                    "</figcaption></figure>"
                )
        parts.append(_table_html(head, rows))
    setting = json.dumps(
        {"scenario": document["scenario"], "service_times": document["service_times"]}, indent=1
    )
    parts.append(f"<h2>What was simulated</h2><pre>{escape(setting)}</pre></main></body></html>")
    return "\n".join(parts) + "\n"


def write(document: Mapping[str, Any], out: Path) -> None:
    """Write all files.

    Parameters
    ----------
    document : `dict`
        What `~.study.study` returned.
    out : `~pathlib.Path`
        Folder; made if it is missing.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, Callable[[], str]] = {
        "simulation.json": lambda: json.dumps(document, indent=1) + "\n",
        "summary.md": lambda: summary(document),
        "report.html": lambda: _page(document, drawings(document)),
    }
    for name, make in texts.items():
        # Whole or not at all: the disk may be full.
        partial = out / f".{name}.part"
        try:
            partial.write_text(make())
            os.replace(partial, out / name)
        finally:
            partial.unlink(missing_ok=True)
