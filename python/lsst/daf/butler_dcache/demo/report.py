"""What the demo did and found, as one table."""

from __future__ import annotations

__all__ = ("Check", "Phase", "Report", "Requests")

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_HEADER = (
    "phase",
    "s",
    "written",
    "read",
    "removed",
    "MB in",
    "MB out",
    "door",
    "pool",
    "door/ds",
    "pool/ds",
)
_LEGEND = """written, read, removed: datasets. MB in, out: bodies at door and pool, or of the written
files where nobody counts. door, pool: requests; door/ds, pool/ds: the same per dataset."""


@dataclass(frozen=True)
class Requests:
    """Requests that the server has counted.

    Parameters
    ----------
    door, pool : `int`
        Requests at each kind of server; what a frontend was asked counts as a door's.
    received, sent : `int`
        Bytes of bodies.
    """

    door: int = 0
    pool: int = 0
    received: int = 0
    sent: int = 0

    def __add__(self, other: Requests) -> Requests:
        return Requests(
            self.door + other.door,
            self.pool + other.pool,
            self.received + other.received,
            self.sent + other.sent,
        )

    def __sub__(self, earlier: Requests) -> Requests:
        return Requests(
            self.door - earlier.door,
            self.pool - earlier.pool,
            self.received - earlier.received,
            self.sent - earlier.sent,
        )


@dataclass
class Phase:
    """One step of the demo.

    Parameters
    ----------
    name : `str`
        What was done.
    seconds : `float`
        How long it took.
    written, read, removed : `int`
        Datasets.
    bytes_written : `int`
        Their size.
    requests : `Requests` or `None`
        What the server counted meanwhile, `None` where nobody counts.
    """

    name: str
    seconds: float = 0.0
    written: int = 0
    read: int = 0
    removed: int = 0
    bytes_written: int = 0
    requests: Requests | None = None


@dataclass(frozen=True)
class Check:
    """One comparison of what is with what should be.

    Parameters
    ----------
    name : `str`
        What was compared.
    measured, expected : `str`
        In words.
    passed : `bool`
        Whether they agree.
    """

    name: str
    measured: str
    expected: str
    passed: bool


@dataclass
class Report:
    """Everything that is printed at the end.

    Parameters
    ----------
    title : `str`
        Where it ran.
    phases : `list` [ `Phase` ]
        What was done.
    checks : `list` [ `Check` ]
        What was compared.
    """

    title: str
    phases: list[Phase] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def failures(self) -> list[Check]:
        """The comparisons that failed (`list` [ `Check` ])."""
        return [check for check in self.checks if not check.passed]

    def render(self) -> str:
        """Lay out both tables.

        Returns
        -------
        text : `str`
            Lines of text.
        """
        total = Phase("all", seconds=sum(phase.seconds for phase in self.phases))
        for phase in self.phases:
            total.written += phase.written
            total.read += phase.read
            total.removed += phase.removed
            total.bytes_written += phase.bytes_written
            if phase.requests is not None:
                total.requests = (total.requests or Requests()) + phase.requests
        checks = [
            ("ok" if check.passed else "FAILED", check.name, check.measured, check.expected)
            for check in self.checks
        ]
        return "\n".join(
            [
                self.title,
                "",
                *_table(_HEADER, [_phase_row(phase) for phase in self.phases], _phase_row(total)),
                _LEGEND,
                "",
                *_table(("", "check", "found", "expected"), checks, left=True),
            ]
        )


def _phase_row(phase: Phase) -> tuple[str, ...]:
    datasets = phase.written + phase.read + phase.removed
    requests = phase.requests
    counts = [str(number) if number else "-" for number in (phase.written, phase.read, phase.removed)]
    if requests is None:
        size = f"{phase.bytes_written / 1e6:.1f}" if phase.bytes_written else "-"
        return (phase.name, f"{phase.seconds:.1f}", *counts, size, "-", "-", "-", "-", "-")
    ratios = [f"{number / datasets:.2f}" if datasets else "-" for number in (requests.door, requests.pool)]
    sizes = [f"{number / 1e6:.1f}" for number in (requests.received, requests.sent)]
    servers = [str(requests.door), str(requests.pool)]
    return (phase.name, f"{phase.seconds:.1f}", *counts, *sizes, *servers, *ratios)


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    last: Sequence[str] | None = None,
    left: bool = False,
) -> list[str]:
    body = list(rows)
    everything = [header, *body, *([last] if last else [])]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if left or column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(header), rule, *map(line, body), *([rule, line(last)] if last else [])]
