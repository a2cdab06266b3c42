"""Results as comma-separated values: a line for each row, target, client and repetition."""

from __future__ import annotations

import csv
import io
from typing import Any

from .document import Client, Document, Result
from .histogram import Histogram

__all__ = ("COLUMNS", "csv_text")

_PERCENTILES = {
    "p50_seconds": 50.0,
    "p90_seconds": 90.0,
    "p99_seconds": 99.0,
    "p999_seconds": 99.9,
    "max_seconds": 100.0,
}
_COUNTS = (
    "door_requests",
    "pool_requests",
    "door_connections",
    "pool_connections",
    "door_handshakes",
    "pool_handshakes",
    "resumed",
    "sent_bytes",
    "refused",
)
COLUMNS = (
    "row",
    "group",
    "target",
    "is_dcache",
    "peer",
    "level",
    "repetition",
    "operation",
    "size_bytes",
    "at_once",
    "arrivals_per_second",
    "operations",
    "bytes_moved",
    "wall_seconds",
    "cpu_seconds",
    "server_cpu_seconds",
    "peak_bytes",
    *_PERCENTILES,
    "first_byte_p50_seconds",
    *_COUNTS,
    "failed_operations",
)
"""Names of the columns, with their units; what was not measured is empty."""


def csv_text(document: Document) -> str:
    """Return all samples.

    Parameters
    ----------
    document : `~.document.Document`
        The results.

    Returns
    -------
    text : `str`
        With a line of names first.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for result in document.results:
        for client in result.clients:
            for number, sample in enumerate(client.samples):
                writer.writerow(_line(document, result, client, number, sample))
    return out.getvalue()


def _line(
    document: Document, result: Result, client: Client, number: int, sample: dict[str, Any]
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "row": result.row,
        "group": result.group,
        "target": result.target,
        "is_dcache": "yes" if document.targets[result.target].is_dcache else "no",
        "peer": client.name,
        "level": client.level,
        "repetition": sample.get("repetition", number),
        "operation": result.work.get("operation"),
        "size_bytes": result.work.get("size_bytes"),
        "at_once": result.at_once,
        "arrivals_per_second": result.rate or None,
        "failed_operations": sum((sample.get("errors") or {}).values()),
    }
    for name in (
        "operations", "bytes_moved", "wall_seconds", "cpu_seconds", "server_cpu_seconds", "peak_bytes"
    ):  # fmt: skip
        line[name] = sample.get(name)
    counts = sample.get("counts") or {}
    line |= {name: counts[name] for name in _COUNTS if counts.get(name, -1) >= 0}
    histograms = sample.get("histograms") or {}
    if "operation" in histograms:
        times = Histogram.decode(histograms["operation"])
        line |= zip(_PERCENTILES, times.percentiles(_PERCENTILES.values()), strict=True)
    if "first_byte" in histograms:
        line["first_byte_p50_seconds"] = Histogram.decode(histograms["first_byte"]).percentile(50)
    return {name: "" if value is None else value for name, value in line.items()}
