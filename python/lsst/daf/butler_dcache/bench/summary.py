"""A report in Markdown that can be read as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import tables
from .document import Document
from .findings import findings
from .tables import Cells

__all__ = ("markdown",)


def markdown(document: Document) -> str:
    """Return a summary of the results.

    Parameters
    ----------
    document : `~.document.Document`
        The results.

    Returns
    -------
    text : `str`
        In Markdown, with tables that are aligned.
    """
    lines = ["# Benchmark", ""]
    if not document.complete:
        lines += [f"**This run is not complete: {document.reason}.**", ""]
    for target in document.targets.values():
        lines += [f"## Target {target.name}: {target.title}", ""]
        lines += [f"- {name}: {text}" for name, text in target.facts()]
        lines.append("")
    lines += ["## Findings", ""]
    several = len(document.targets) > 1
    for finding in findings(document):
        where = f" ({finding.target})" if several and finding.target else ""
        lines.append(" ".join(f"- **{finding.headline}**{where}. {finding.detail} {finding.advice}".split()))
        lines += [f"  - {point}" for point in finding.points]
    lines += [f"- **Problem**: {problem}" for problem in document.problems]
    judged = tables.figures(document)
    if judged:
        lines += ["", "## Figures to reach", "", *_table(tables.FIGURES, judged)]
    for name in document.targets:
        for group in document.groups:
            results = document.of_target(name, group)
            if results:
                lines += ["", f"## {group.capitalize()}, {name}", ""]
                lines += _table(tables.MEASURED, tables.measured(results))
    if left_out := tables.skipped(document):
        lines += ["", "## Not measured", "", *_table(("work", "target", "client", "why"), left_out)]
    lines += ["", "## Clients", ""]
    lines += [f"- {name}: {'; '.join(words)}" for name, words in tables.notes(document).items()]
    lines += ["", "## Machine and programs", ""]
    lines += [f"- {name}: {text}" for name, text in tables.environment(document)]
    return "\n".join(lines).strip() + "\n"


def _table(header: Sequence[str], rows: Iterable[Cells]) -> list[str]:
    full = [tuple(header), *(tuple(_cell(text) for text in row.texts) for row in rows)]
    widths = [max(len(row[column]) for row in full) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in full
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
