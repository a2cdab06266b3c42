"""What it costs that something may go wrong: the same work with all precautions and without any.

The figure is a ratio of a few per cent, so each way has a process of its own, and they work turn by turn:
what slows the machine for a while slows all. Three ways are compared with the *bare* one, in which the
counting of repetitions, the turns of the pacing, the watch on slow transfers, the health of doors and the
memory of a full store are replaced by nothing:

`as it is`
    The client with its defaults, at a server that limits nobody and has one door.
`all at work`
    Also what is idle by default: requests are counted by the bucket that all processes of the host share,
    against a ceiling that is never reached, and go to one of two doors, which are the same one.
`bare again`
    The bare one once more: how well the figures are known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Self
from unittest import mock

from ..config.loading import settings_for
from ..store import directories, exclusion, publication, removal
from ..store.space import Space
from ..store.webdav_store import WebdavStore
from ..transport import control, data
from ..transport.pacing import Pacer
from ..webdav import door, download, reader, session
from .servers import start
from .target import Target
from .work import contents

__all__ = ("GuardsReport", "measure_guards", "median_interval")

_LIMIT = 1.03
_SIZE_BYTES = 100_000
_GETS, _PUTS = 200, 100
_PARTS = 10
"""Of a turn, in which the ways follow one another: what slows the machine for a second slows all of them."""
_TURNS_OF_A_PROCESS = 5
"""Then there are new ones: how its memory happens to be laid out makes a process faster or slower."""
_NEVER_REACHED = 100_000.0
"""Requests per second."""
_BARE = "bare"
_WAYS = ("as it is", "all at work", "bare again", _BARE)


class _Nothing:
    """Takes the place of a turn and of a count of repetitions."""

    def __init__(self, *_: object, **__: object) -> None:
        self.attempts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answered(self, *_: object) -> None:
        pass

    def next_wait(self, *_: object) -> None:
        return None


def _once(*_: object) -> tuple[bool]:
    return (True,)


@contextlib.contextmanager
def _without_guards() -> Iterator[None]:
    """Take away what there is for the case of a failure; what is not there any more raises."""
    nothing = _Nothing()

    def no_turn(*_: object) -> _Nothing:
        return nothing

    def forget(*_: object) -> None:
        pass

    with contextlib.ExitStack() as stack:
        for module in (door, download, reader, session, directories, exclusion, publication, removal):
            stack.enter_context(mock.patch.object(module, "rounds", _once))
        for plane in (control, data):
            stack.enter_context(mock.patch.object(plane, "Repetition", _Nothing))
        stack.enter_context(mock.patch.object(Pacer, "slot", no_turn))
        stack.enter_context(mock.patch.object(Space, "check", forget))
        stack.enter_context(mock.patch.object(Space, "accepted", forget))
        yield


def median_interval(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval that holds the true median, by the sign test: nothing is assumed of the values.

    Parameters
    ----------
    values : `list` [`float`]
        Independent measurements; fewer than six say too little for 95 %, and give their range.
    confidence : `float`, optional
        How probably at least.

    Returns
    -------
    low, high : `float`
        Two of the values.
    """
    ordered = sorted(values)
    count = len(ordered)
    rank, outside = 0, 2 * 0.5**count
    while rank + 1 < count / 2:
        outside += 2 * math.comb(count, rank + 1) * 0.5**count
        if outside > 1 - confidence:
            break
        rank += 1
    return ordered[rank], ordered[-1 - rank]


@dataclasses.dataclass
class GuardsReport:
    """What was measured.

    Parameters
    ----------
    pairs : `int`
        How often each way was measured.
    cpu_seconds : `dict` [`str`, `list` [`float`]]
        By way, of this process, one for each turn.
    requests : `dict` [`str`, `list` [`int`]]
        By way, that the servers got in each turn.
    """

    pairs: int
    cpu_seconds: dict[str, list[float]]
    requests: dict[str, list[int]]

    def ratios(self, way: str) -> list[float]:
        """Return the CPU time of a way over that of the bare one, turn by turn.

        Parameters
        ----------
        way : `str`
            Which one.
        """
        return [a / b for a, b in zip(self.cpu_seconds[way], self.cpu_seconds[_BARE], strict=True)]

    @property
    def extra_requests(self) -> int:
        """How many more requests than the bare one any way made in any turn."""
        least = min(self.requests[_BARE])
        return max(max(counts) for counts in self.requests.values()) - least

    @property
    def is_within_limit(self) -> bool:
        """Whether the figures can be those of a client that keeps the limit."""
        lows = [median_interval(self.ratios(way))[0] for way in _WAYS if way != _BARE]
        return max(lows) <= _LIMIT and self.extra_requests <= 0

    def text(self) -> str:
        """Return a table for people, in Markdown."""
        lines = [
            f"{_GETS} GET and {_PUTS} PUT of {_SIZE_BYTES // 1000} kB, one thread, {self.pairs} turns of "
            f"each way; at most {_LIMIT} times the bare way's CPU time is wanted, and no more requests.",
            "",
            "| client | CPU s | CPU time / bare: median | 95 % interval | requests |",
            "| --- | ---: | ---: | --- | ---: |",
        ]
        for way in _WAYS:
            ratios = self.ratios(way)
            low, high = median_interval(ratios)
            counts = sorted(set(self.requests[way]))
            lines.append(
                f"| {way} | {statistics.median(self.cpu_seconds[way]):.4f} | {statistics.median(ratios):.3f} "
                f"| {low:.3f} to {high:.3f} | {' or '.join(map(str, counts))} |"
            )
        return "\n".join([*lines, "", f"{self.extra_requests} extra requests."]) + "\n"


def measure_guards(
    *,
    pairs: int,
    seed: int = 1,
    server: str = "door",
    share: float = 1.0,
    tell: Callable[[str], object] = lambda text: None,
) -> GuardsReport:
    """Do the same work in all ways, turn by turn.

    Parameters
    ----------
    pairs : `int`
        How often.
    seed : `int`, optional
        Of the order.
    server : `str`, optional
        A key of `~.servers.TARGETS` that limits nobody.
    share : `float`, optional
        Of the work; less than all of it is a trial.
    tell : `~collections.abc.Callable`, optional
        Is told what is going on.

    Returns
    -------
    report : `GuardsReport`
        All figures.
    """
    report = GuardsReport(pairs, {way: [] for way in _WAYS}, {way: [] for way in _WAYS})
    draw = random.Random(seed)
    with start(server) as target, mock.patch.dict("os.environ", target.access.environment):
        work = _Work(target, share)
        for begin in range(0, pairs, _TURNS_OF_A_PROCESS):
            with contextlib.ExitStack() as stack:
                clients = {way: stack.enter_context(_client(way, target.access.root)) for way in _WAYS}
                for way in _WAYS:
                    work.do(clients[way], 0)  # first contact, connections, and what an interpreter learns
                for pair in range(begin, min(pairs, begin + _TURNS_OF_A_PROCESS)):
                    for way in _WAYS:
                        report.cpu_seconds[way].append(0.0)
                        report.requests[way].append(0)
                    for part in range(_PARTS):
                        for way in draw.sample(_WAYS, len(_WAYS)):
                            seconds, requests = work.do(clients[way], part)
                            report.cpu_seconds[way][-1] += seconds
                            report.requests[way][-1] += requests
                    tell(f"{pair + 1}/{pairs}")
    return report


class _Work:
    """What a client is given to do."""

    def __init__(self, target: Target, share: float) -> None:
        self._target = target
        self._to_read = [
            target.access.root + target.provide(f"guards/{number:05d}", _SIZE_BYTES)
            for number in range(max(_PARTS, round(_GETS * share)))
        ]
        self._puts = max(1, round(_PUTS * share) // _PARTS)
        self._step = 0

    def do(self, client: Connection, part: int) -> tuple[float, int]:
        """Return CPU seconds of the client, and how many requests the servers got, for a part of a turn."""
        self._step += 1
        fresh = f"guards-new-{self._step}"
        to_write = [
            self._target.access.root + self._target.new_name(f"{fresh}/{number:05d}", _SIZE_BYTES)
            for number in range(self._puts)
        ]
        before = self._requests()
        client.send((self._to_read[part::_PARTS], to_write))
        seconds = client.recv()
        requests = self._requests() - before
        self._target.clear(fresh)
        return seconds, requests

    def _requests(self) -> int:
        counts = self._target.counts()
        if counts is None:
            raise ValueError(f"{self._target.name} does not count its requests")
        return counts.door_requests + counts.pool_requests


@contextlib.contextmanager
def _client(way: str, base_url: str) -> Iterator[Connection]:
    """Run a client in a process of its own: an interpreter is slower after what it runs was exchanged."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(way, base_url, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join()


def _serve(way: str, base_url: str, questions: Connection) -> None:
    settings = settings_for(base_url)
    data = contents(_SIZE_BYTES)
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        if way.startswith(_BARE):
            stack.enter_context(_without_guards())
            settings = dataclasses.replace(settings, requests_per_second=0, stall_bytes_per_second=0)
        elif way == "all at work":
            doors = (settings.base_url, settings.base_url)
            settings = dataclasses.replace(settings, requests_per_second=_NEVER_REACHED, door_urls=doors)
        store = WebdavStore(settings)
        while True:
            to_read, to_write = questions.recv()
            gc.collect()
            begun = time.process_time()
            for url in to_read:
                store.read(url)
            for url in to_write:
                store.write(url, data)
            questions.send(time.process_time() - begun)
