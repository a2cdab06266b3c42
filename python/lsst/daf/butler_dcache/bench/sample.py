"""One peer's figures of one repetition, and the quantities that they hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from .histogram import Histogram
from .target import Counts
from .work import Work

__all__ = ("Sample", "quantity")

_GIB = 1024**3
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


@dataclass(frozen=True)
class Sample:
    """One peer's figures of one repetition.

    Parameters
    ----------
    repetition : `int`
        Which one; peers are compared within it.
    wall_seconds, cpu_seconds : `float`
        Of the client, without its start; user and system CPU together.
    peak_bytes : `int` or `None`
        Resident memory over the one before the work; `None` where it is not known.
    server_cpu_seconds : `float`
        Of all processes of the server.
    operations, bytes_moved : `int`
        What was done.
    counts : `~.target.Counts` or `None`
        What the server counted meanwhile.
    errors : `dict` [`str`, `int`]
        Operations that failed, by class of error.
    histograms : `dict` [`str`, `str`]
        Encoded `~.histogram.Histogram`: ``operation``, ``first_byte`` and others.
    counted : `dict` [`str`, `int`]
        What the client counted itself, if it is this package and was observed.
    workers : `int`
        How many did all this, each of them; what is above is of all together, and wall time until the last
        had done.
    first_done_seconds : `float` or `None`
        Wall time until the first had done, where there are several.
    first : `bool`
        Whether it was the first job of its process.
    """

    repetition: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int | None = None
    server_cpu_seconds: float = 0.0
    operations: int = 1
    bytes_moved: int = 0
    counts: Counts | None = None
    errors: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    workers: int = 1
    first_done_seconds: float | None = None
    first: bool = False


def quantity(name: str, sample: Sample, work: Work) -> float | None:
    """Return one figure of a sample; where several workers did the work, what each needed on average.

    Parameters
    ----------
    name : `str`
        A key of `~.row.QUANTITIES`.
    sample : `Sample`
        All figures.
    work : `~.work.Work`
        What was done.

    Returns
    -------
    value : `float` or `None`
        `None` if it was not taken.
    """
    counts = sample.counts
    if name in _PERCENTILES or name == "first_byte":
        coded = sample.histograms.get("first_byte" if name == "first_byte" else "operation")
        return Histogram.decode(coded).percentile(_PERCENTILES.get(name, 50.0)) if coded else None
    match name:
        case "wall":
            return sample.wall_seconds
        case "cpu":
            return sample.cpu_seconds / sample.workers
        case "cpu_excess":
            return sample.cpu_seconds / sample.workers / (work.total_bytes / _GIB)
        case "cpu_each":
            return sample.cpu_seconds / sample.operations if sample.operations else None
        case "server_cpu":
            return sample.server_cpu_seconds / sample.workers
        case "peak":
            return sample.peak_bytes
        case "operations":
            return sample.operations / sample.wall_seconds if sample.wall_seconds else None
        case "errors":
            return sum(sample.errors.values())
        case "retries":
            return sample.counted.get("retries")
    return None if counts is None else _counted(name, counts, sample, work)


def _counted(name: str, counts: Counts, sample: Sample, work: Work) -> float | None:
    match name:
        case "door":
            return counts.door_requests / sample.workers
        case "pool":
            return counts.pool_requests / sample.workers
        case "requests":
            return (counts.door_requests + counts.pool_requests) / sample.workers
        case "connections":
            return counts.pool_connections / sample.workers
        case "handshakes":
            known = min(counts.door_handshakes, counts.pool_handshakes) >= 0
            handshakes = counts.door_handshakes + counts.pool_handshakes
            return handshakes / sample.workers if known else None
        case "bytes":
            known = counts.sent_bytes >= 0
            return counts.sent_bytes / sample.workers / work.total_bytes if known else None
        case "rate":
            if counts.refused < 0:
                return None
            return (counts.door_requests - counts.refused) / sample.wall_seconds
        case "refused":
            return None if counts.refused < 0 else counts.refused
    raise ValueError(f"no quantity is called {name}")
