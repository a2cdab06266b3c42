"""What a run found, in words: where the time goes, and what an operator could change."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .document import NOTHING, Client, Document, Result, verdict
from .peers.registry import OURS
from .quantities import number_text, percent_text, seconds_text
from .vocabulary import PHASE_NAMES, PHASE_WORDS

__all__ = ("Finding", "findings", "missed_text")

_ADVICE = {
    "queue": "Operations arrive faster than they are done. Look at the phase behind this one, or spread them "
    "over more processes.",
    "turn": "The client waits because the door limits each host to a number of requests per second. Raise "
    "the door's limit for the nodes of the farm, give the endpoint more doors "
    "(frontend_base_urls), or read fewer, larger files.",
    "name": "The resolver answers slowly. Run a caching resolver on the nodes.",
    "tcp": "Connections are opened too often, or the round trip is long. Let doors, pools and whatever "
    "stands before them keep idle connections for longer, and place the work nearer to the pools.",
    "tls": "Let servers resume sessions, use ECDSA certificates, and keep idle connections for longer; "
    "where the site's policy allows it, let pools speak http (http_pools).",
    "door": "The door itself is slow to answer: look at the name space's database and at the door's CPU, "
    "and add doors (frontend_base_urls).",
    "mover": "Requests queue at the pools: raise the number of movers that may be active there, spread "
    "what is read most over more pools, and look whether files have to be staged first.",
    "first_byte": "The mover runs and the disk is slow to begin: look at the pools' disks and at what else "
    "uses "
    "them.",
    "transfer": "This is the work itself. Look at the network and the pools' disks; where the client's "
    "CPU is "
    "the limit, more processes help, more threads do not.",
    "commit": "The pool has all bytes and takes its time to call them safe: checksums, slow disks, or a "
    "flush to tape in the way.",
    "publish": "Files are published by a rename in the name space: look at its database.",
    "rest": "The client itself takes this time. More processes, or nodes with faster cores, help; servers "
    "do not.",
}
_KNEE = 0.9
"""Of the highest throughput: where more at a time hardly brings more."""
_KEPT_UP = 0.95
_TAIL = 5.0
"""A tail so many times as long as at rest means that operations queue."""
_BUSY = 0.85
"""Of a core: then a process of Python is at its limit."""
_SHOWN = 5
"""Of the figures that are missed."""
_LIMITED = 250.0
"""Requests per second that a dCache from 11.2 on takes from a host (protocol page, section 1.2)."""


@dataclass(frozen=True)
class Finding:
    """Something that an operator or developer should know.

    Parameters
    ----------
    headline : `str`
        In one line.
    detail : `str`
        With the figures.
    points : `tuple` [`str`, ...], optional
        More figures, one line each.
    advice : `str`, optional
        What to change.
    target : `str`, optional
        Where it was found; empty for all.
    """

    headline: str
    detail: str
    points: tuple[str, ...] = ()
    advice: str = ""
    target: str = ""


def findings(document: Document) -> list[Finding]:
    """Return what a run found.

    Parameters
    ----------
    document : `~.document.Document`
        The results.

    Returns
    -------
    findings : `list` [`Finding`]
        The most important first, target by target.
    """
    found: list[Finding] = []
    for name in document.targets:
        results = document.of_target(name)
        for look in (_where_time_goes, _concurrency, _arrivals, _busy, _peers, _requests, _failures):
            found += [dataclasses.replace(finding, target=name) for finding in look(results)]
    return found + _figures(document.results)


def missed_text(figure: dict[str, Any]) -> str:
    """Return by how much a figure was missed.

    Parameters
    ----------
    figure : `dict`
        Of a document.

    Returns
    -------
    text : `str`
        Empty if it was reached.
    """
    if figure.get("met"):
        return ""
    median, limit = float(figure["measured"]["median"]), float(figure["limit"])
    if figure.get("quantity") == "cpu_excess":
        return f"{median - limit:.2f} s/GiB more"
    if limit == 0:
        return f"{number_text(median)} too many"
    return f"{median / limit:.2f} × the limit"


def _where_time_goes(results: Sequence[Result]) -> Iterable[Finding]:
    stacks: dict[str, list[dict[str, float]]] = {}
    for result in results:
        own = result.own
        if own is not None and own.phases:
            stacks.setdefault(_kind(result), []).append(own.phases)
    longest: dict[str, list[tuple[str, dict[str, float]]]] = {}
    for kind, phases in stacks.items():
        shares = {
            name: statistics.fmean(stack.get(name, 0) / sum(stack.values()) for stack in phases)
            for name in PHASE_NAMES
        }
        longest.setdefault(max(shares, key=shares.__getitem__), []).append((kind, shares))
    for phase, kinds in sorted(longest.items(), key=lambda item: -len(item[1])):
        headline = ", ".join(f"{kind} ({percent_text(shares[phase])})" for kind, shares in kinds)
        yield Finding(
            f"“{PHASE_NAMES[phase].capitalize()}” takes the largest share of the time of {headline}",
            f"That is: {PHASE_WORDS[phase][1]}.",
            tuple(
                f"{kind}: behind it {' and '.join(others)}"
                for kind, shares in kinds
                if (others := _behind(shares, phase))
            ),
            _ADVICE[phase],
        )


def _behind(shares: dict[str, float], phase: str) -> list[str]:
    """The two phases that come next, if they matter."""
    others = sorted((share, name) for name, share in shares.items() if name != phase and share > 0.1)
    return [f"{PHASE_NAMES[name]} {percent_text(share)}" for share, name in reversed(others[-2:])]


def _kind(result: Result) -> str:
    if result.group == "whole files":
        return f"{'writing' if result.work.get('operation') == 'put' else 'reading'} whole files"
    return result.group


def _families(results: Iterable[Result]) -> list[list[Result]]:
    """Rows that differ only in how many operations run or arrive at a time, of two or more."""
    families: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        families.setdefault(result.alike, []).append(result)
    return [family for family in families.values() if len(family) > 1]


def _own(family: Sequence[Result]) -> list[tuple[Result, Client]]:
    return [(result, own) for result in family if (own := result.own) and own.get("operations_per_second")]


def _rate(client: Client) -> float:
    return client.get("operations_per_second") or 0.0


def _concurrency(results: Sequence[Result]) -> Iterable[Finding]:
    for family in _families(r for r in results if not r.rate and r.group == "concurrency"):
        points = sorted(_own(family), key=lambda point: point[0].at_once)
        if len(points) < 2 or points[0][0].at_once == points[-1][0].at_once:
            continue
        best = max(_rate(client) for _, client in points)
        knee, client = next(point for point in points if _rate(point[1]) >= _KNEE * best)
        last, most = points[-1]
        if knee is last:
            yield Finding(
                f"Throughput still grows at {last.at_once} operations at a time",
                f"{number_text(_rate(most))} operations per second there, {number_text(_rate(points[0][1]))} "
                f"with {points[0][0].at_once}.",
                advice="The limit was not found: measure with more at a time before anything is sized by it.",
            )
            continue
        tails = [c.get("p99_seconds") for c in (client, most)]
        tail = (
            f"; 99 % are done within {seconds_text(tails[0])} there and {seconds_text(tails[1])} at the end"
        )
        yield Finding(
            f"Throughput stops growing at {knee.at_once} operations at a time"
            if knee.at_once > 1
            else "More than one operation at a time brings hardly more throughput",
            f"{number_text(_rate(client))} operations per second with {knee.at_once}, "
            f"{number_text(_rate(most))} with {last.at_once}{tail}.",
            advice=f"Let no more than {knee.at_once} run at a time from one client: others only wait; "
            "for more throughput something behind must grow: doors, movers, disks, or the client's cores.",
        )


def _arrivals(results: Sequence[Result]) -> Iterable[Finding]:
    for family in _families(r for r in results if r.rate):
        points = sorted(_own(family), key=lambda point: point[0].rate)
        rest = points[0][1].get("p99_seconds") if points else None
        if len(points) < 2 or not rest:
            continue
        held = [
            point
            for point in points
            if _rate(point[1]) >= _KEPT_UP * point[0].rate
            and (point[1].get("p99_seconds") or 0) <= _TAIL * rest
        ]
        if not held:
            yield Finding(
                f"Not even {number_text(points[0][0].rate)} arrivals per second are kept up with",
                f"{number_text(_rate(points[0][1]))} operations per second are done there.",
            )
            continue
        result, client = held[-1]
        beyond = next((point for point in points if point[0].rate > result.rate), None)
        yield Finding(
            f"Up to {number_text(result.rate)} arrivals per second are served without a queue",
            f"99 % are done within {seconds_text(client.get('p99_seconds'))} then"
            + (
                f", within {seconds_text(beyond[1].get('p99_seconds'))} at {number_text(beyond[0].rate)}."
                if beyond
                else "; no higher rate was tried."
            ),
            advice="Plan for rates below this one. A closed loop does not show such queues."
            if beyond
            else "",
        )


def _busy(results: Sequence[Result]) -> Iterable[Finding]:
    busy = []
    for result in results:
        for sample in result.own.samples[-1:] if result.own and not result.rate else ():
            share = sample["cpu_seconds"] / sample["wall_seconds"] / int(result.work.get("processes") or 1)
            if share >= _BUSY and sample["wall_seconds"] > 0.2:
                busy.append((share, result.title))
    if busy:
        share, title = max(busy)
        yield Finding(
            f"The client's own CPU is the limit in {len(busy)} of {len(results)} rows",
            f"It keeps up to {percent_text(share)} of a core busy ({title}).",
            advice="There, changes at doors and pools will not be seen. Several processes share the work; "
            "threads of "
            "one process do not.",
        )


def _peers(results: Sequence[Result]) -> Iterable[Finding]:
    ratios: dict[str, list[tuple[str, Any]]] = {}
    for result in results:
        for peer, ratio in result.ratios("wall").items():
            ratios.setdefault(peer, []).append((result.title, ratio))
    if not ratios:
        return
    points = []
    for peer, compared in ratios.items():
        mean = math.exp(statistics.fmean(math.log(ratio.ratio) for _, ratio in compared))
        worst = max(compared, key=lambda item: item[1].ratio)
        where = (
            f", the geometric mean of {len(compared)} rows, at worst {worst[1].ratio:.2f} × ({worst[0]})"
            if len(compared) > 1
            else f" ({worst[0]})"
        )
        points.append(f"{peer}: {mean:.2f} × its time{where}")
    every = [ratio for compared in ratios.values() for _, ratio in compared]
    known = [ratio for ratio in every if ratio.low is not None]
    if not known:
        less = sum(ratio.ratio < 1 for ratio in every)
        yield Finding(
            f"This package took less time in {less} of {len(every)} comparisons, each of one repetition",
            "What was done once says nothing of how it scatters.",
            tuple(points),
            "Give the run a larger --budget.",
        )
        return
    faster, slower = (sum(verdict(ratio) == side for ratio in known) for side in (-1, 1))
    undecided = len(every) - faster - slower
    yield Finding(
        f"This package is faster in {faster}, slower in {slower} of {len(every)} comparisons of wall time",
        f"In {undecided} the repetitions do not tell."
        if undecided
        else "The repetitions tell in each of them.",
        tuple(points),
    )


def _requests(results: Sequence[Result]) -> Iterable[Finding]:
    for operation, words in (("get", "reads"), ("put", "writes")):
        doors: dict[str, list[float]] = {}
        opened: dict[str, float] = {}
        done: dict[str, float] = {}
        for result in (r for r in results if r.work.get("operation") == operation):
            for client in result.clients:
                found, connections = client.requests(), client.total("connections")
                if found is None or connections is None or client.name == NOTHING:
                    continue
                doors.setdefault(client.name, []).append(found[0])
                opened[client.name] = opened.get(client.name, 0) + connections
                done[client.name] = done.get(client.name, 0) + client.samples[-1]["operations"]
        mean = {name: statistics.fmean(values) for name, values in doors.items()}
        own = next((name for name in mean if name in OURS), "")
        if not mean.get(own) or len(mean) < 2:
            continue
        most = max(mean, key=mean.__getitem__)
        limited = (
            f"A dCache that takes {_LIMITED:.0f} requests a second from a host lets it {words[:-1]} "
            f"{number_text(_LIMITED / mean[own])} files a second with this package"
        )
        yield Finding(
            f"A file that this package {words} costs the door {_requests_text(mean[own])}",
            limited
            + (f", {number_text(_LIMITED / mean[most])} with {most}." if mean[most] > mean[own] else "."),
            tuple(
                f"{name}: {_requests_text(mean[name])} and {number_text(opened[name] / done[name])} new "
                "connections for a file"
                for name in (own, *sorted((name for name in mean if name != own), key=lambda n: mean[n]))
            ),
        )


def _requests_text(number: float) -> str:
    return f"{number_text(number)} request{'' if number == 1 else 's'}"


def _failures(results: Sequence[Result]) -> Iterable[Finding]:
    failed: dict[str, Counter[str]] = {}
    refused: Counter[str] = Counter()
    for result in results:
        for client in result.clients:
            if client.errors:
                failed.setdefault(client.name, Counter()).update(client.errors)
            refused[client.name] += round(client.get("refused") or 0)
    if failed:
        yield Finding(
            f"{number_text(sum(kinds.total() for kinds in failed.values()))} operations failed",
            "Their times are kept apart from those of the others.",
            tuple(
                f"{name}: {', '.join(f'{kind} {number_text(count)} times' for kind, count in kinds.items())}"
                for name, kinds in failed.items()
            ),
        )
    if refused.total():
        words = ", ".join(f"{name} {number_text(count)}" for name, count in refused.items() if count)
        yield Finding(
            f"The door refused {number_text(refused.total())} requests since there were too many",
            f"In one repetition of each row: {words}.",
            advice="They are asked again and cost the door twice: pace the clients, or raise its limit.",
        )


def _figures(results: Sequence[Result]) -> list[Finding]:
    judged = [(result, figure) for result in results for figure in result.figures]
    missed = [(result, figure) for result, figure in judged if not figure.get("met")]
    if not judged:
        return []
    points = [
        f"{figure['claim']} in “{result.title}” on {result.target}: {missed_text(figure)}"
        for result, figure in missed[:_SHOWN]
    ]
    more = f"{len(missed) - _SHOWN} more are missed, see the table." if len(missed) > _SHOWN else ""
    return [
        Finding(
            f"{len(judged) - len(missed)} of {len(judged)} figures that this package shall reach are reached",
            more if missed else "None is missed.",
            tuple(points),
        )
    ]
