"""A document of results (``results.json``, schema 2) as those who write reports want to read it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .histogram import Histogram
from .observation import PHASES
from .peers.registry import OURS
from .statistics import Ratio

__all__ = ("NOTHING", "Client", "Document", "Result", "Target", "verdict")

NOTHING = "nothing"
"""The client that does nothing, which shows what measuring costs."""


@dataclass(frozen=True)
class Client:
    """One client's part in a row.

    Parameters
    ----------
    name : `str`
        As in `~.peers.registry.PEERS`.
    record : `~collections.abc.Mapping`
        As the document has it.
    """

    name: str
    record: Mapping[str, Any]

    @property
    def ours(self) -> bool:
        """Whether it is this package."""
        return self.name in OURS

    @property
    def title(self) -> str:
        """What it is."""
        return str(self.record.get("title") or self.name)

    @property
    def level(self) -> str:
        """What its caller deals with: ``store``, ``path``, ``butler``, ``program``."""
        return str(self.record.get("level") or "")

    @property
    def notes(self) -> list[str]:
        """What is to be known of its figures."""
        return list(self.record.get("notes") or ())

    @property
    def samples(self) -> list[dict[str, Any]]:
        """One for each repetition."""
        return list(self.record.get("samples") or ())

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the samples come to."""
        summary: Mapping[str, Any] = self.record.get("summary") or {}
        return summary

    @property
    def phases(self) -> dict[str, float]:
        """Mean seconds of an operation in each phase of its requests; empty where nobody looked.

        What is in none of them is the client's own, ``rest``; where operations arrive at a given rate, the
        time until one of them could begin is ``queue``.
        """
        found = self.summary.get("phases") or {}
        phases = {name: float(found[name]) for name in PHASES if found.get(name)}
        observed = (self.record.get("observed") or {}).get("histograms") or {}
        if phases and "operation" in observed:
            whole = _merged((observed["operation"],)).mean
            served = _merged((observed["service"],)).mean if "service" in observed else whole
            others = {"queue": whole - served, "rest": served - sum(phases.values())}
            phases |= {name: seconds for name, seconds in others.items() if seconds > 0}
        return phases

    @property
    def errors(self) -> dict[str, int]:
        """How many operations failed, by class of error."""
        total: dict[str, int] = {}
        for sample in self.samples:
            for name, count in (sample.get("errors") or {}).items():
                total[name] = total.get(name, 0) + count
        return total

    def get(self, name: str) -> float | None:
        """Return a figure of the summary.

        Parameters
        ----------
        name : `str`
            Its key.

        Returns
        -------
        value : `float` or `None`
            `None` if it was not measured.
        """
        value = self.summary.get(name)
        return None if value is None else float(value)

    def requests(self) -> tuple[float, float] | None:
        """Return the requests of an operation at door and at pools; `None` where nobody counts them."""
        counted = self.summary.get("requests_per_operation")
        if not counted or counted.get("door") is None:
            return None
        return float(counted["door"]), float(counted.get("pool") or 0)

    def total(self, name: str) -> float | None:
        """Return what door and pools together counted in one repetition.

        Parameters
        ----------
        name : `str`
            ``connections`` or ``handshakes``.
        """
        counted = self.summary.get(name)
        return None if counted is None else float(sum(counted.values()))

    def histogram(self, name: str) -> Histogram | None:
        """Return the times of all repetitions together.

        Parameters
        ----------
        name : `str`
            Such as ``operation`` or ``first_byte``.

        Returns
        -------
        histogram : `~.histogram.Histogram` or `None`
            `None` if they were not taken.
        """
        coded = tuple(
            sample["histograms"][name] for sample in self.samples if name in (sample.get("histograms") or {})
        )
        return _merged(coded) if coded else None


@functools.lru_cache(maxsize=4096)
def _merged(coded: tuple[str, ...]) -> Histogram:
    merged = Histogram.decode(coded[0])
    for other in coded[1:]:
        merged.add(Histogram.decode(other))
    return merged


@dataclass(frozen=True)
class Result:
    """One row against one target.

    Parameters
    ----------
    record : `~collections.abc.Mapping`
        As the document has it.
    """

    record: Mapping[str, Any]

    @property
    def row(self) -> str:
        """Name of the row."""
        return str(self.record["row"])

    @property
    def title(self) -> str:
        """What the row is."""
        return str(self.record.get("title") or self.row)

    @property
    def group(self) -> str:
        """Which kind of work it is."""
        return str(self.record.get("group") or "other work")

    @property
    def target(self) -> str:
        """Against which server."""
        return str(self.record["target"])

    @property
    def work(self) -> Mapping[str, Any]:
        """What every client was given to do."""
        work: Mapping[str, Any] = self.record.get("work") or {}
        return work

    @property
    def at_once(self) -> int:
        """How many operations at a time."""
        return int(self.work.get("threads") or 1) * int(self.work.get("processes") or 1)

    @property
    def rate(self) -> float:
        """Operations that arrive in a second; 0 if each waits for the one before."""
        return float(self.work.get("rate") or 0.0)

    @property
    def clients(self) -> list[Client]:
        """Those that have figures, in the order of the row."""
        everybody = (Client(name, record) for name, record in (self.record.get("peers") or {}).items())
        return [client for client in everybody if client.samples]

    @property
    def absent(self) -> list[Client]:
        """Those without figures; their notes say why."""
        everybody = (Client(name, record) for name, record in (self.record.get("peers") or {}).items())
        return [client for client in everybody if not client.samples]

    @property
    def own(self) -> Client | None:
        """The client whose figures the ratios are about."""
        return next((client for client in self.clients if client.name == self.record.get("client")), None)

    @property
    def figures(self) -> list[dict[str, Any]]:
        """What was to be reached, and what was."""
        return list(self.record.get("figures") or ())

    def ratios(self, quantity: str) -> dict[str, Ratio]:
        """Return what this package needs over what each peer needs, in the same repetitions.

        Parameters
        ----------
        quantity : `str`
            ``wall``, ``cpu`` or ``requests``.

        Returns
        -------
        ratios : `dict` [`str`, `~.statistics.Ratio`]
            By peer. Left out are the client that does nothing, and wall times of operations that arrive at a
            given rate, which is what takes their time.
        """
        if self.rate and quantity == "wall":
            return {}
        found = (self.record.get("ratios") or {}).get(quantity) or {}
        return {
            peer: Ratio(float(item["ratio"]), item.get("low"), item.get("high"), int(item.get("pairs") or 1))
            for peer, item in found.items()
            if peer != NOTHING
        }

    @property
    def alike(self) -> tuple[Any, ...]:
        """What rows have in common that differ only in how many operations run or arrive at a time."""
        work = self.work
        return (
            self.target,
            self.group,
            *(str(work.get(k)) for k in ("operation", "size_bytes", "sink", "batch")),
        )


@dataclass(frozen=True)
class Target:
    """A server that was measured against.

    Parameters
    ----------
    name : `str`
        As on the command line.
    record : `~collections.abc.Mapping`
        As the document has it.
    """

    name: str
    record: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What it is; a stand-in for dCache says that it is none."""
        title = str(self.record.get("title") or self.name)
        return title if self.is_dcache or "not dCache" in title else f"{title} (not dCache)"

    @property
    def is_dcache(self) -> bool:
        """Whether it is a dCache."""
        return bool(self.record.get("is_dcache"))

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield what a reader wants to know of it, as name and text."""
        record = self.record
        yield (
            "a dCache",
            "yes" if self.is_dcache else "no: a stand-in, started for this run or named by its URL",
        )
        for key, name in (("version", "version"), ("server_header", "Server header"), ("kind", "protocol")):
            if record.get(key):
                yield name, str(record[key])
        yield "TLS", "yes" if record.get("tls") else "no"
        for where, milliseconds in (record.get("rtt_ms") or {}).items():
            if milliseconds is not None:
                yield f"round trip to {where}", f"{milliseconds:.3g} ms"
        link = record.get("link") or {}
        if link.get("rtt_ms"):
            yield "delay added", f"{link['rtt_ms']:g} ms of round trip"
        if link.get("loss"):
            yield "loss added", f"{link['loss']:g} % of packets"
        if link.get("bandwidth_mbit"):
            yield "bandwidth limited to", f"{link['bandwidth_mbit']:g} Mbit/s"
        if record.get("limiter") is not None:
            yield "request limiter", "on" if record["limiter"] else "off"


def verdict(ratio: Ratio) -> int:
    """Return -1 for certainly less than the peer, 1 for certainly more, 0 if it cannot be told.

    Parameters
    ----------
    ratio : `~.statistics.Ratio`
        With its interval.
    """
    if ratio.low is None or ratio.high is None:
        return 0
    return -1 if ratio.high < 1 else 1 if ratio.low > 1 else 0


@dataclass(frozen=True)
class Document:
    """Everything that a run wrote down.

    Parameters
    ----------
    record : `~collections.abc.Mapping`
        Schema 2, as `~.results.read` returns it.
    targets : `dict` [`str`, `Target`]
        By name.
    results : `list` [`Result`]
        In the order in which they were measured.
    """

    record: Mapping[str, Any]
    targets: dict[str, Target] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Return the document.

        Parameters
        ----------
        record : `~collections.abc.Mapping`
            Schema 2.
        """
        targets = {name: Target(name, about) for name, about in (record.get("targets") or {}).items()}
        results = [Result(item) for item in record.get("results") or ()]
        for result in results:
            targets.setdefault(result.target, Target(result.target, {}))
        return cls(record, targets, results)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.record.get("complete"))

    @property
    def reason(self) -> str:
        """Why it did not."""
        return str(self.record.get("reason") or "it was stopped")

    @property
    def environment(self) -> Mapping[str, Any]:
        """The machine and the programs."""
        environment: Mapping[str, Any] = self.record.get("environment") or {}
        return environment

    @property
    def arguments(self) -> Mapping[str, Any]:
        """How it was asked for."""
        arguments: Mapping[str, Any] = self.record.get("arguments") or {}
        return arguments

    @property
    def problems(self) -> list[str]:
        """What went wrong."""
        return [str(problem) for problem in self.record.get("problems") or ()]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """What was not measured, and why."""
        return list(self.record.get("skipped") or ())

    @property
    def groups(self) -> list[str]:
        """The kinds of work, in the order in which they were measured."""
        return list(dict.fromkeys(result.group for result in self.results))

    def of_target(self, target: str, group: str = "") -> list[Result]:
        """Return the rows of a target.

        Parameters
        ----------
        target : `str`
            Its name.
        group : `str`, optional
            Only those of this kind of work.
        """
        return [r for r in self.results if r.target == target and (not group or r.group == group)]

    @property
    def client_names(self) -> list[str]:
        """All clients with figures, this package first."""
        names = dict.fromkeys(client.name for result in self.results for client in result.clients)
        return sorted(names, key=lambda name: name not in OURS)
