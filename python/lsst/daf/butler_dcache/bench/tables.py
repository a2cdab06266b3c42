"""The tables of a report, the same for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .document import Client, Document, Result
from .findings import missed_text
from .quantities import bytes_text, number_text, rate_text, ratio_text, seconds_text

__all__ = ("FIGURES", "MEASURED", "Cells", "environment", "figures", "measured", "notes", "skipped", "source")

MEASURED = (
    "work",
    "client",
    "n",
    "throughput",
    "operations/s",
    "p50",
    "p99",
    "longest",
    "client CPU",
    "server CPU",
    "requests door + pool",
    "connections",
    "peak memory",
    "ratio of wall times",
)
FIGURES = ("figure", "work", "target", "measured", "limit", "reached")


_LARGE_BYTES = 1_000_000
"""Of an operation: then its bytes take the CPU time, not its requests."""
_UNITS = {"peak": bytes_text} | dict.fromkeys(
    ("wall", "cpu", "cpu_each", "server_cpu", "p50", "p90", "p99", "p999", "max", "first_byte"), seconds_text
)


@dataclass(frozen=True)
class Cells:
    """A line of a table.

    Parameters
    ----------
    texts : `tuple` [`str`, ...]
        Its cells.
    client : `str`
        Whose figures they are; empty if it is nobody's.
    is_bad : `bool`
        Whether it is something that should not be.
    """

    texts: tuple[str, ...]
    client: str = ""
    is_bad: bool = False


def measured(results: Sequence[Result]) -> list[Cells]:
    """Return what was measured: a line for each row and client, as `MEASURED` names the columns.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`~.document.Result`]
        Of one target.
    """
    return [_measured(result, client) for result in results for client in result.clients]


def _measured(result: Result, client: Client) -> Cells:
    requests = client.requests()
    ratio = result.ratios("wall").get(client.name)
    failed = sum(client.errors.values())
    texts = (
        result.title,
        client.name,
        str(len(client.samples)),
        rate_text(client.get("throughput_bytes_per_second")),
        number_text(client.get("operations_per_second")),
        seconds_text(client.get("p50_seconds")),
        seconds_text(client.get("p99_seconds")),
        seconds_text(client.get("max_seconds")),
        _cpu(client, ""),
        _cpu(client, "server_"),
        "–" if requests is None else f"{number_text(requests[0])} + {number_text(requests[1])}",
        number_text(client.total("connections")),
        bytes_text(client.get("peak_bytes")),
        "" if ratio is None else ratio_text(ratio),
    )
    if failed:
        texts = (*texts[:2], f"{texts[2]}, {number_text(failed)} operations failed", *texts[3:])
    return Cells(texts, client.name, bool(failed))


def _cpu(client: Client, whose: str) -> str:
    """Of a volume where there is one, else of an operation."""
    each = client.get(f"{whose}cpu_seconds_per_operation")
    volume = client.get(f"{whose}cpu_seconds_per_gib")
    moved, operations = client.samples[-1]["bytes_moved"], client.samples[-1]["operations"]
    if volume is not None and moved > _LARGE_BYTES * operations:
        return f"{number_text(volume)} s/GiB"
    return "–" if each is None else f"{seconds_text(each)}/op"


def figures(document: Document) -> list[Cells]:
    """Return what was to be reached, the missed ones first, as `FIGURES` names the columns.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """
    lines = []
    for result in document.results:
        for figure in result.figures:
            value, met = figure["measured"], bool(figure.get("met"))
            scattered = value["low"] != value["high"]
            show = number_text if figure.get("peer") else _UNITS.get(str(figure.get("quantity")), number_text)
            text = show(value["median"]) + (
                f" ({show(value['low'])}–{show(value['high'])})" if scattered else ""
            )
            reached = "yes" if met else f"no: {missed_text(figure)}"
            limit = f"{'≥' if figure.get('at_least') else '≤'} {show(figure['limit'])}"
            cells = (str(figure["claim"]), result.title, result.target, text, limit, reached)
            lines.append(Cells(cells, is_bad=not met))
    return sorted(lines, key=lambda line: not line.is_bad)


def skipped(document: Document) -> list[Cells]:
    """Return what was not measured: works, target, client, reason; a line for each reason.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """
    titles = {result.row: result.title for result in document.results}
    left_out = [
        (
            str(item.get("row") or "all"),
            str(item.get("target") or "all"),
            str(item.get("peer") or "all"),
            str(item.get("reason") or ""),
        )
        for item in document.skipped
    ]
    said = {one[:3] for one in left_out}
    left_out += [
        (result.row, result.target, client.name, "; ".join(client.notes) or "no figures")
        for result in document.results
        for client in result.absent
        if (result.row, result.target, client.name) not in said
    ]
    rows: dict[tuple[str, ...], list[str]] = {}
    for row, *where in left_out:
        rows.setdefault(tuple(where), []).append(row)
    return [
        Cells((titles.get(names[0], names[0]) if len(names) == 1 else ", ".join(names), *where))
        for where, names in rows.items()
    ]


def notes(document: Document) -> dict[str, list[str]]:
    """Return what is to be known of the clients' figures.

    Parameters
    ----------
    document : `~.document.Document`
        The results.

    Returns
    -------
    notes : `dict` [`str`, `list` [`str`]]
        By client: what it is first.
    """
    found: dict[str, dict[str, None]] = {}
    for result in document.results:
        for client in result.clients:
            said = found.setdefault(client.name, {client.title: None})
            said |= dict.fromkeys(client.notes)
    return {name: list(said) for name, said in found.items()}


def source(document: Document) -> str:
    """Return which state of this package's source was measured; empty if it is not known.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """
    state = document.environment.get("source") or {}
    if not state.get("commit"):
        return ""
    return f"source {state['commit'][:10]}{' with changes' if state.get('changed') else ''}"


def environment(document: Document) -> Iterable[tuple[str, str]]:
    """Yield the machine and the programs, as name and text.

    Parameters
    ----------
    document : `~.document.Document`
        The results.
    """
    for name, value in document.environment.items():
        if name.endswith("_bytes"):
            yield name.removesuffix("_bytes"), bytes_text(value)
        elif isinstance(value, dict):
            if words := ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, "")):
                yield name, words
        elif value not in (None, ""):
            yield name.replace("_", " "), str(value)
