"""Results as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .measure import Result, Spread, spread
from .row import Claim
from .servers import TARGETS

__all__ = ("SCHEMA_VERSION", "document", "markdown", "verdict")

SCHEMA_VERSION = 1
_MIB = 1024**2
_WORDS = {
    "wall": "wall time",
    "cpu": "CPU time",
    "cpu_excess": "CPU s/GiB",
    "server_cpu": "server's CPU time",
    "peak": "peak memory, MiB",
    "each": "one read, ms",
    "door": "door requests",
    "pool": "pool requests",
    "requests": "requests",
    "connections": "pool connections",
    "bytes": "bytes sent / bytes needed",
    "rate": "door requests per second",
    "refused": "door requests refused (429)",
}
_UNITS = {"peak": 1 / _MIB, "each": 1000.0}


def document(
    results: Sequence[Result], environment: dict[str, Any], problems: Sequence[str], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return everything as JSON can hold it.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`~.measure.Result`]
        What was measured.
    environment : `dict`
        By whom and where; see `~.environment.describe`.
    problems : `~collections.abc.Sequence` [`str`]
        What was not.
    arguments : `dict`
        How it was asked for.

    Returns
    -------
    document : `dict`
        With ``schema_version``.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": environment,
        "arguments": arguments,
        "problems": list(problems),
        "results": [
            {
                **result.to_json(),
                "figures": [
                    {"claim": _name(claim), "limit": claim.limit, "met": met, "measured": measured.__dict__}
                    for claim, measured, met in verdict(result)
                ],
            }
            for result in results
        ],
    }


def verdict(result: Result) -> list[tuple[Claim, Spread, bool]]:
    """Return what became of each claim that could be judged.

    Parameters
    ----------
    result : `~.measure.Result`
        Of one row and server.

    Returns
    -------
    verdict : `list` [`tuple`]
        Claim, median with range, and whether the median keeps to the limit.
    """
    judged = []
    for claim in result.row.claims:
        values = result.values(claim)
        if values:
            measured = spread(values)
            met = measured.median >= claim.limit if claim.at_least else measured.median <= claim.limit
            judged.append((claim, measured, met))
    return judged


def markdown(results: Sequence[Result], problems: Sequence[str] = ()) -> str:
    """Return the results as two tables.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`~.measure.Result`]
        What was measured.
    problems : `~collections.abc.Sequence` [`str`], optional
        What was not.

    Returns
    -------
    text : `str`
        In Markdown that can be read as it is.
    """
    lines = _table(
        ["work", "server", "client", "n", "wall s", "CPU s", "server CPU s", "door + pool requests",
         "connections", "peak MiB"],
        [cells for result in results for cells in _measured(result)],
    )  # fmt: skip
    claims = [cells for result in results for cells in _judged(result)]
    if claims:
        lines += ["", *_table(["work", "server", "figure", "measured", "limit", "reached"], claims)]
    notes = [
        f"* {result.row.title}, {result.target}, {peer}: {'; '.join(notes)}"
        for result in results
        for peer, notes in result.notes.items()
        if notes
    ]
    lines += ["", *dict.fromkeys(notes), *(f"* not measured: {problem}" for problem in problems)]
    used = dict.fromkeys(result.target for result in results)
    lines += ["", *(f"* {name}: {TARGETS[name]}" for name in used)]
    if results:
        loads = [load for result in results for load in result.load]
        lines.append(f"* load average of the machine meanwhile, this work included: up to {max(loads):.1f}")
    return "\n".join(lines).strip() + "\n"


def _name(claim: Claim) -> str:
    whose = "" if claim.client == "ours" else f" of {claim.client}"
    name = f"{_WORDS[claim.quantity]}{whose}"
    if not claim.peer:
        return name
    return f"{name} {'over' if claim.quantity == 'cpu_excess' else '/'} {claim.peer}"


def _measured(result: Result) -> list[list[str]]:
    rows = []
    for peer in result.row.peers:
        samples = result.samples.get(peer)
        if not samples:
            rows.append([result.row.title, result.target, peer, "0"])
            continue
        last = samples[-1].counts
        peaks = [sample.peak_bytes / _MIB for sample in samples if sample.peak_bytes is not None]
        rows.append(
            [
                result.row.title,
                result.target,
                peer,
                str(len(samples)),
                _show(spread([sample.wall_seconds for sample in samples])),
                _show(spread([sample.cpu_seconds for sample in samples])),
                _show(spread([sample.server_cpu_seconds for sample in samples])),
                "" if last is None else f"{last.door_requests} + {last.pool_requests}",
                "" if last is None else f"{last.door_connections} + {last.pool_connections}",
                f"{max(peaks):.0f}" if peaks else "",
            ]
        )
    return rows


def _judged(result: Result) -> list[list[str]]:
    rows = []
    for claim, measured, met in verdict(result):
        unit = _UNITS.get(claim.quantity, 1.0)
        shown = Spread(measured.median * unit, measured.low * unit, measured.high * unit)
        limit = f"{'>=' if claim.at_least else '<='} {claim.limit * unit:.3g}"
        missed = "yes" if met else f"no, {_missed(claim, measured)}"
        rows.append([result.row.title, result.target, _name(claim), _show(shown), limit, missed])
    return rows


def _missed(claim: Claim, measured: Spread) -> str:
    if claim.quantity == "cpu_excess":
        return f"{measured.median - claim.limit:.2f} s/GiB more"
    if claim.limit == 0:
        return f"{measured.median:g} too many"
    return f"{measured.median / claim.limit:.2f} x the limit"


def _show(value: Spread) -> str:
    if value.low == value.high:
        return f"{value.median:.3g}"
    return f"{value.median:.3g} ({value.low:.3g}-{value.high:.3g})"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    full = [header, *([*row, *[""] * (len(header) - len(row))] for row in rows)]
    widths = [max(len(row[column]) for row in full) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in full
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
