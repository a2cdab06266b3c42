"""What a simulation showed: ``simulation.json``, ``summary.md`` and ``report.html`` with its plots."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..drawing import Drawing
from ..theme import style_sheet
from .figures import interval_text, mean, number_text, saturation_text
from .plots import drawings
from .study import RESOURCES

__all__ = ("summary", "write")

_STYLE = """
:root{--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--font)}
main{max-width:1000px;margin:0 auto;padding:2rem 1.5rem 4rem}
h2{margin:2.6rem 0 .6rem;padding-top:.8rem;border-top:2px solid var(--grid)}
p,li{max-width:48rem}
.stand-in{border-left:.3rem solid var(--orange);padding:.1rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
td{white-space:nowrap}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left}
figure{margin:1rem 0 1.6rem}figure svg{display:block;width:100%;height:auto}
figcaption{color:var(--muted);font-size:.9rem}
"""

_Rows = Sequence[Sequence[str]]


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
        [title, *(interval_text(run, name, factor) for run in runs)] for title, name, factor in _DEMAND
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
                interval_text(run, "written files"),
                number_text(mean(run, "failed tasks")),
                number_text(100 * mean(run, "share waiting")),
                number_text(mean(run, "refused")),
                *(f"{100 * mean(run, name):.0f} %" for name in RESOURCES),
            ]
        )
    return head, rows


_POLICY = {
    "files written per second": "written files",
    "tasks that fail per second": "failed tasks",
    "requests let through per second": "door requests",
    "refused": "refused",
    "repeated": "requests repeated",
    "a write, s (median)": "write p50",
    "99 %": "write p99",
}


def _policy_table(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    return ["client", *_POLICY], [
        [run["client"], *(interval_text(run, name) for name in _POLICY.values())] for run in runs
    ]


def _together_table(runs: Sequence[Mapping[str, Any]], parts: int) -> tuple[list[str], list[list[str]]]:
    head = [
        "client",
        "all over after, s",
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
                interval_text(run, "seconds"),
                interval_text(run, "door requests"),
                *(
                    interval_text(run, f"{name} in all", parts)
                    for name in ("refused", "requests repeated", "failed tasks")
                ),
                interval_text(run, "task p50"),
                interval_text(run, "task p99"),
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
    return head, [[run["client"], *(interval_text(run, name) for name in names)] for run in runs]


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
                " ".join(saturation_text(one) for one in document["saturation"])
                + " The site stays as it is; a site of which everything was divided by "
                f"{document['parts']} was simulated, and figures multiplied.",
                *_load_table(document),
            )
        )
    if "overload" in document:
        over = document["overload"]
        sections.append(
            (
                "Repetition and pacing when the limiter is full",
                f"One door with the processors of all, and {over['cores']:,} cores: they ask for "
                f"{over['too_much']:g} times what its limiter lets through.",
                *_policy_table(over["runs"]),
            )
        )
    if "together" in document:
        text = (
            "All cores begin within a second, and do the input and output of one task."
            if "demand" in document
            else f"{scenario['cores']} processes begin together; hosts: {scenario['hosts']}."
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


# -- files


def _table_html(head: Sequence[str], rows: _Rows) -> str:
    cells = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


_PLOTS_OF = {
    "What it asks of doors and pools": ("demand",),
    "Where it saturates": ("saturation", "utilisation"),
    "Repetition and pacing when the limiter is full": ("overload",),
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


def _alone(plot: Drawing) -> str:
    """Return a plot as a file of its own: with the colours and the font of the page, on paper."""
    head, _, rest = plot.svg.partition(">")
    style = f"{style_sheet()}svg{{background:var(--paper);font-family:sans-serif;--font:sans-serif}}"
    return f"{head}><style>{style}</style>{rest}\n"


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
    plots = drawings(document)
    texts = {
        "simulation.json": json.dumps(document, indent=1) + "\n",
        "summary.md": summary(document),
        "report.html": _page(document, plots),
        **{f"{name}.svg": _alone(plot) for name, plot in plots.items()},
    }
    for name, text in texts.items():
        # Whole or not at all: the disk may be full.
        partial = out / f".{name}.part"
        try:
            partial.write_text(text)
            os.replace(partial, out / name)
        finally:
            partial.unlink(missing_ok=True)
