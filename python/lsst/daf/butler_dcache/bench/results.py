"""What was measured, as one document of JSON: what it holds, and how it is read again."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .histogram import Histogram
from .peers.registry import OURS, PEERS
from .result import Result, verdict
from .sample import Sample

__all__ = ("SCHEMA", "SCHEMA_VERSION", "ResultsError", "document", "read")

SCHEMA = "dcache-butler-bench"
SCHEMA_VERSION = 2
_GIB = 1024**3
_MIB = 1024**2
_RATIOS = ("wall", "cpu", "requests")
_PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0))


class ResultsError(Exception):
    """A file does not hold results, or those of another version; the text says what to do."""


def document(
    results: Sequence[Result],
    *,
    environment: Mapping[str, Any],
    arguments: Mapping[str, Any],
    targets: Mapping[str, Any],
    problems: Sequence[str] = (),
    skipped: Sequence[Mapping[str, str]] = (),
    reason: str = "",
) -> dict[str, Any]:
    """Return everything as JSON can hold it.

    Parameters
    ----------
    results : `~collections.abc.Sequence` [`Result`]
        What was measured.
    environment : `~collections.abc.Mapping`
        By whom and where; see `~.environment.describe`.
    arguments : `~collections.abc.Mapping`
        How it was asked for.
    targets : `~collections.abc.Mapping`
        The servers by name.
    problems : `~collections.abc.Sequence` [`str`], optional
        What went wrong.
    skipped : `~collections.abc.Sequence`, optional
        What was not measured, and why: ``row``, ``target``, ``peer``, ``reason``.
    reason : `str`, optional
        Why it is not complete; empty if it is.

    Returns
    -------
    document : `dict`
        With ``schema_version``.
    """
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "complete": not reason,
        "reason": reason,
        "environment": dict(environment),
        "arguments": dict(arguments),
        "targets": dict(targets),
        "problems": list(problems),
        "skipped": [dict(one) for one in skipped],
        "results": [_record(result) for result in results],
    }


def read(path: Path) -> dict[str, Any]:
    """Return a document that was written before.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file, or the directory that holds ``results.json``.

    Returns
    -------
    document : `dict`
        As `document` made it.

    Raises
    ------
    ResultsError
        If it cannot be read, or is of another version.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict) or "schema_version" not in record:
        raise ResultsError(f"{path} holds no results of dcache-butler bench")
    version = record["schema_version"]
    if record.get("schema", SCHEMA) != SCHEMA or version != SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has results of schema version {version}, and this program reads version "
            f"{SCHEMA_VERSION} only: measure again with dcache-butler bench run, or read it with the release "
            "that wrote it"
        )
    return record


def _record(result: Result) -> dict[str, Any]:
    row = result.row
    others = [peer for peer in row.peers if peer not in OURS and result.samples.get(peer)]
    ratios = {name: {peer: result.ratio(name, peer) for peer in others} for name in _RATIOS}
    return {
        "row": row.name,
        "title": row.title,
        "group": row.group,
        "target": result.target,
        "work": dataclasses.asdict(row.work),
        "client": result.client,
        "load": list(result.load),
        "peers": {peer: _peer(result, peer) for peer in row.peers},
        "ratios": {
            name: {peer: dataclasses.asdict(ratio) for peer, ratio in table.items() if ratio is not None}
            for name, table in ratios.items()
        },
        "figures": [
            {
                "claim": claim.text,
                **dataclasses.asdict(claim),
                "measured": dataclasses.asdict(measured),
                "met": met,
                "counted": claim.is_counted,
            }
            for claim, measured, met in verdict(result)
        ],
    }


def _peer(result: Result, peer: str) -> dict[str, Any]:
    samples = result.timed(peer)
    observed = result.observed.get(peer)
    return {
        "level": PEERS[peer].level,
        "title": PEERS[peer].title,
        "notes": result.notes.get(peer, []),
        "samples": [dataclasses.asdict(sample) for sample in samples],
        "observed": None if observed is None else dataclasses.asdict(observed),
        "summary": dict(_summary(samples, observed)) if samples else {},
    }


def _summary(samples: Sequence[Sample], observed: Sample | None) -> Iterator[tuple[str, Any]]:
    """Medians of the repetitions, percentiles of all their operations together."""
    yield "repetitions", len(samples)
    moved = [(s.bytes_moved, s.wall_seconds) for s in samples]
    if samples[0].bytes_moved:
        yield "throughput_bytes_per_second", _median_of_quotients(moved)
    yield "operations_per_second", _median_of_quotients([(s.operations, s.wall_seconds) for s in samples])
    for name, values in (
        ("cpu_seconds", [s.cpu_seconds for s in samples]),
        ("server_cpu_seconds", [s.server_cpu_seconds for s in samples]),
    ):
        if not any(values):
            continue  # of a server elsewhere, or too little to be seen: processes are measured in ticks
        if samples[0].bytes_moved >= _MIB:
            gibibytes = [s.bytes_moved / _GIB for s in samples]
            yield f"{name}_per_gib", _median_of_quotients(list(zip(values, gibibytes, strict=True)))
        operations = [s.operations for s in samples]
        yield f"{name}_per_operation", _median_of_quotients(list(zip(values, operations, strict=True)))
    peaks = [s.peak_bytes for s in samples if s.peak_bytes is not None]
    yield "peak_bytes", max(peaks, default=None)
    yield from _counts(samples)
    yield from _times(samples)
    errors: dict[str, int] = {}
    for sample in samples:
        for kind, count in sample.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    yield "errors", errors
    if observed is not None:
        yield "phases", _phases(observed)
        yield "retries", observed.counted.get("retries")


def _median_of_quotients(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Where nothing is left of a time when the program's start is taken off, nothing can be said."""
    quotients = [a / b for a, b in pairs if b > 0]
    return statistics.median(quotients) if quotients else None


def _counts(samples: Sequence[Sample]) -> Iterator[tuple[str, Any]]:
    counted = [(s.counts, max(s.operations, 1)) for s in samples if s.counts is not None]
    if not counted:
        return
    yield (
        "requests_per_operation",
        {
            "door": statistics.median(counts.door_requests / each for counts, each in counted),
            "pool": statistics.median(counts.pool_requests / each for counts, each in counted),
        },
    )
    last = counted[-1][0]
    yield "connections", {"door": last.door_connections, "pool": last.pool_connections}
    if min(last.door_handshakes, last.pool_handshakes) >= 0:
        yield "handshakes", {"door": last.door_handshakes, "pool": last.pool_handshakes}
    if last.resumed >= 0:
        yield "resumed", last.resumed
    if last.sent_bytes >= 0:
        yield "sent_bytes", last.sent_bytes
    if last.refused >= 0:
        yield "refused", statistics.median(counts.refused for counts, _ in counted)


def _times(samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    for name, prefix in (("operation", ""), ("first_byte", "first_byte_"), ("service", "service_")):
        coded = [sample.histograms[name] for sample in samples if name in sample.histograms]
        if coded:
            merged = Histogram()
            for one in coded:
                merged.add(Histogram.decode(one))
            for word, percent in _PERCENTILES:
                yield f"{prefix}{word}_seconds", merged.percentile(percent)


def _phases(observed: Sample) -> dict[str, float]:
    """Mean seconds of an operation in each phase of its requests."""
    phases = {}
    for name, coded in observed.histograms.items():
        kind, _, phase = name.partition(".")
        if kind == "phase":
            histogram = Histogram.decode(coded)
            phases[phase] = histogram.mean * histogram.count / max(observed.operations, 1)
    return phases
