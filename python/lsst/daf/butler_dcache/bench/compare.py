"""What became better or worse from one run to another.

Theory of operation
-------------------
Each client's figures of each row and target are compared with themselves in the other run. A figure that
counts (requests, connections, handshakes, failures) has no noise of its own: it changed if the ranges of its
repetitions do not touch. A figure that takes time has noise, so two things are asked of a change: that it is
larger than the threshold, which is what the reader cares about, and that repetitions which scatter as these
do would hardly show it by chance. The second is Welch's test on logarithms (half as long and twice as long
are equally far from equal, and the runs may scatter differently). Hundreds of figures are tested at once, of
which one in twenty would fail such a test without any change; Benjamini and Hochberg's procedure keeps the
chance of *any* false alarm between two equal runs at one in twenty.

A figure that was measured once has no scatter of its own; it is taken to scatter as figures of its kind do
elsewhere in the two runs.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .document import NOTHING, Client, Document, Result
from .histogram import Histogram
from .noise import chance, quantile, welch
from .peers.registry import OURS
from .quantities import bytes_text, number_text, rate_text, seconds_text

__all__ = ("Change", "Comparison", "compare")

_FALSE_ALARMS = 0.05
_ASSUMED_SCATTER = 0.25
"""Of logarithms, where nothing was repeated in either run."""
_TAIL_OPERATIONS = 100
"""There is no 99th percentile of fewer."""
_MIB = 1024**2

Sample = dict[str, Any]


@dataclass(frozen=True)
class _Timed:
    """A figure that scatters."""

    title: str
    of: Callable[[Sample], float | None]
    show: Callable[[float | None], str]
    least: float
    """Smaller differences do not matter, or cannot be measured."""
    is_larger_better: bool = False


def _percentile(percent: float, least_count: int = 1) -> Callable[[Sample], float | None]:
    def of(sample: Sample) -> float | None:
        coded = (sample.get("histograms") or {}).get("operation")
        times = Histogram.decode(coded) if coded else None
        return times.percentile(percent) if times is not None and times.count >= least_count else None

    return of


def _each(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name] / sample["operations"] if sample.get("operations") else None


_THROUGHPUT = _Timed(
    "throughput", lambda s: s["bytes_moved"] / s["wall_seconds"], rate_text, 0.0, is_larger_better=True
)
_SPEED = _Timed(
    "operations/s", lambda s: s["operations"] / s["wall_seconds"], number_text, 0.0, is_larger_better=True
)
# An operation's overhead in the harness is up to 50 µs.
_LATENCIES = (
    _Timed("p50", _percentile(50), seconds_text, 50e-6),
    _Timed("p99", _percentile(99, _TAIL_OPERATIONS), seconds_text, 50e-6),
)
_CPU = _Timed("CPU time per operation", _each("cpu_seconds"), seconds_text, 20e-6)
_PEAK = _Timed("peak memory", lambda s: s.get("peak_bytes"), bytes_text, 4.0 * _MIB)


def _counts(*names: str) -> Callable[[Sample], float | None]:
    def of(sample: Sample) -> float | None:
        counts = sample.get("counts") or {}
        found = [counts.get(name, -1) for name in names]
        return None if min(found) < 0 else float(sum(found))

    return of


def _requests(name: str) -> Callable[[Sample], float | None]:
    counted = _counts(name)

    def of(sample: Sample) -> float | None:
        total = counted(sample)
        if total is None:
            return None
        # How many the door refuses since there are too many is chance; they are asked again.
        refused = max(0, sample["counts"].get("refused", 0)) if name == "door_requests" else 0
        return (total - refused) / max(1.0, float(sample["operations"]))

    return of


_COUNTED: dict[str, Callable[[Sample], float | None]] = {
    "door requests per operation": _requests("door_requests"),
    "pool requests per operation": _requests("pool_requests"),
    "connections": _counts("door_connections", "pool_connections"),
    "TLS handshakes": _counts("door_handshakes", "pool_handshakes"),
    "failed operations": lambda sample: float(sum((sample.get("errors") or {}).values())),
}
_CHANCE = 2.0
"""Connections more or less, as threads happen to meet."""
_EXACT = ("door requests per operation", "pool requests per operation", "failed operations")
"""Any change of these matters; others depend on how threads happen to meet."""


@dataclass(frozen=True)
class Change:
    """A figure in two runs.

    Parameters
    ----------
    row, target, peer : `str`
        Whose figure.
    quantity : `str`
        Which.
    before, after : `str`
        In words.
    ratio : `float` or `None`
        After over before; `None` if it was nothing before.
    low, high : `float` or `None`
        The interval of 95 % of the ratio; `None` for what is counted.
    verdict : `str`
        ``worse``, ``better`` or ``same``.
    """

    row: str
    target: str
    peer: str
    quantity: str
    before: str
    after: str
    ratio: float | None
    low: float | None = None
    high: float | None = None
    verdict: str = "same"


@dataclass
class Comparison:
    """Two runs beside one another.

    Parameters
    ----------
    threshold : `float`
        What is less does not count.
    figures : `list` [`Change`]
        All that both runs have.
    remarks : `list` [`str`]
        In what the runs themselves differ, and what cannot be compared.
    """

    threshold: float
    figures: list[Change] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def of(self, verdict: str) -> list[Change]:
        """Return the figures that changed in one way.

        Parameters
        ----------
        verdict : `str`
            ``worse`` or ``better``.
        """
        return [figure for figure in self.figures if figure.verdict == verdict]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "schema": "dcache-butler-bench-comparison",
            "schema_version": 1,
            "threshold": self.threshold,
            "compared": len(self.figures),
            "worse": [dataclasses.asdict(figure) for figure in self.of("worse")],
            "better": [dataclasses.asdict(figure) for figure in self.of("better")],
            "remarks": self.remarks,
        }


@dataclass(frozen=True)
class _Test:
    """A timed figure whose change is to be judged."""

    change: Change
    quantity: _Timed
    before: list[float]
    after: list[float]

    def scatter(self) -> tuple[float, int]:
        """Sum of squares of the logarithms about their means, and its degrees of freedom."""
        groups = [_logs(values) for values in (self.before, self.after) if len(values) > 1]
        total = sum(statistics.variance(logs) * (len(logs) - 1) for logs in groups)
        return total, sum(len(logs) - 1 for logs in groups)


def compare(before: Document, after: Document, threshold: float = 0.1) -> Comparison:
    """Compare two runs.

    Parameters
    ----------
    before, after : `~.document.Document`
        The earlier and the later one.
    threshold : `float`, optional
        Changes of times, throughputs, memory and connections up to this share do not count.

    Returns
    -------
    comparison : `Comparison`
        Without figures if the runs have nothing in common.
    """
    comparison = Comparison(threshold, remarks=list(_differences(before, after)))
    earlier = {(result.row, result.target): result for result in before.results}
    later = {(result.row, result.target): result for result in after.results}
    for names, there in ((earlier.keys() - later.keys(), "first"), (later.keys() - earlier.keys(), "second")):
        if names:
            listed = ", ".join(f"{row} on {target}" for row, target in sorted(names))
            comparison.remarks.append(f"only in the {there}: {listed}")
    tests: list[_Test] = []
    for key in earlier.keys() & later.keys():
        old, new = earlier[key], later[key]
        if changed := _other_work(old, new):
            comparison.remarks.append(f"{old.row} on {old.target} is other work now: {changed}")
            continue
        clients = {client.name: client for client in new.clients}
        for client in old.clients:
            if client.name in clients:
                comparison.figures += _count(old, client, clients[client.name], threshold)
                tests += _tests(old, client, clients[client.name])
            elif client.name != NOTHING:
                comparison.figures += _lost(new, client.name)
    comparison.figures += _judge(tests, threshold)
    comparison.figures.sort(key=lambda f: (f.verdict != "worse", f.target, f.row, f.peer, f.quantity))
    comparison.remarks += _others(comparison.figures)
    return comparison


def _differences(before: Document, after: Document) -> Iterator[str]:
    for document, name in ((before, "first"), (after, "second")):
        if not document.complete:
            yield f"the {name} run is partial: {document.reason}"
    for target in before.targets.keys() & after.targets.keys():
        old, new = before.targets[target].record, after.targets[target].record
        for key in sorted((old.keys() | new.keys()) - {"rtt_ms"}):
            if old.get(key) != new.get(key):
                yield f"target {target}, {key}: {old.get(key)} then, {new.get(key)} now"
    yield from _unlike("", before.environment, after.environment)


def _unlike(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _unlike(f"{where}{key} ", old, new)
        elif old != new and key not in ("time", "memory_bytes"):
            yield f"{where}{key}: {old} then, {new} now"


def _other_work(old: Result, new: Result) -> str:
    keys = sorted(old.work.keys() & new.work.keys())
    return ", ".join(
        f"{key} {old.work[key]} → {new.work[key]}" for key in keys if old.work[key] != new.work[key]
    )


def _figures(client: Client, of: Callable[[Sample], float | None]) -> list[float]:
    values = [of(sample) for sample in client.samples]
    return [value for value in values if value is not None]


def _count(result: Result, before: Client, after: Client, threshold: float) -> Iterator[Change]:
    for title, of in _COUNTED.items():
        old, new = _figures(before, of), _figures(after, of)
        if not old or not new:
            continue
        first, last = statistics.median(old), statistics.median(new)
        apart = min(new) > max(old) or max(new) < min(old)
        if title not in _EXACT:
            apart = apart and abs(last - first) > max(threshold * first, _CHANCE)
        verdict = "same" if not apart else "worse" if last > first else "better"
        texts = (number_text(first), number_text(last))
        if texts[0] == texts[1]:  # 1000 and 1001 requests of 1000 operations
            texts = (f"{first:g}", f"{last:g}")
        ratio = last / first if first else None
        yield Change(result.row, result.target, before.name, title, *texts, ratio, verdict=verdict)


def _lost(result: Result, name: str) -> Iterator[Change]:
    """A client that had figures and has none: worse if it failed, else it was not asked."""
    for client in result.absent:
        if client.name == name and any(note.startswith("failed") for note in client.notes):
            why = "; ".join(client.notes)
            yield Change(
                result.row, result.target, name, "all figures", "measured", why, None, verdict="worse"
            )


def _tests(result: Result, before: Client, after: Client) -> Iterator[_Test]:
    moved = before.samples[-1]["bytes_moved"] and after.samples[-1]["bytes_moved"]
    # Where operations arrive at a given rate, that rate is the throughput.
    speed = () if result.rate else (_THROUGHPUT,) if moved else (_SPEED,)
    for quantity in (*speed, *_LATENCIES, _CPU, _PEAK):
        old, new = _figures(before, quantity.of), _figures(after, quantity.of)
        if not old or not new:
            continue
        first, last = statistics.median(old), statistics.median(new)
        change = Change(
            result.row,
            result.target,
            before.name,
            quantity.title,
            quantity.show(first),
            quantity.show(last),
            last / first if first else None,
        )
        yield _Test(change, quantity, old, new)


def _judge(tests: list[_Test], threshold: float) -> Iterator[Change]:
    usual = _usual_scatter(tests)
    judged = []
    for test in tests:
        # What is too small to matter is neither tested nor shown with an interval.
        first, last = statistics.median(test.before), statistics.median(test.after)
        if abs(last - first) <= test.quantity.least or min(*test.before, *test.after) <= 0:
            yield test.change
            continue
        before, after = _logs(test.before), _logs(test.after)
        shift = statistics.fmean(after) - statistics.fmean(before)
        width, degrees = welch(before, after, usual[test.quantity.title])
        reach = width * quantile(degrees)
        change = dataclasses.replace(
            test.change, ratio=math.exp(shift), low=math.exp(shift - reach), high=math.exp(shift + reach)
        )
        judged.append((chance(shift / width, degrees), shift, test, change))
    judged.sort(key=lambda item: item[0])
    # All up to the last one that is rare enough for its place (Benjamini and Hochberg).
    rare = [n for n, (likely, *_) in enumerate(judged, 1) if likely <= _FALSE_ALARMS * n / len(judged)]
    for number, (_, shift, test, change) in enumerate(judged, 1):
        if number <= max(rare, default=0) and abs(shift) > math.log1p(threshold):
            worse = (shift < 0) is test.quantity.is_larger_better
            change = dataclasses.replace(change, verdict="worse" if worse else "better")
        yield change


def _logs(values: list[float]) -> list[float]:
    return [math.log(value) for value in values]


def _usual_scatter(tests: list[_Test]) -> dict[str, float]:
    """Variance of the logarithms by quantity, of all that was repeated."""
    usual = {}
    for title in {test.quantity.title for test in tests}:
        sums = [
            test.scatter()
            for test in tests
            if test.quantity.title == title and min(*test.before, *test.after) > 0
        ]
        degrees = sum(count for _, count in sums)
        usual[title] = sum(total for total, _ in sums) / degrees if degrees else _ASSUMED_SCATTER**2
    return usual


def _others(figures: list[Change]) -> Iterator[str]:
    """What the clients that are not this package say of the machine and the target."""
    logs = [
        math.log(figure.ratio)
        for figure in figures
        if figure.peer not in OURS and figure.ratio and figure.quantity in (_THROUGHPUT.title, _SPEED.title)
    ]
    if len(logs) > 1:
        mean = math.exp(statistics.fmean(logs))
        if abs(mean - 1) > 0.05 and abs(statistics.fmean(logs)) > 2 * statistics.stdev(logs) / math.sqrt(
            len(logs)
        ):
            yield (
                f"the throughput of the other clients is {mean:.2f} × that of the first run in the mean: the "
                "machine or the target is another, or does something else meanwhile"
            )
