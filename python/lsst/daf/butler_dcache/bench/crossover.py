"""From where on one request for many names is cheaper than one for each, for the settings below ``bulk``.

The ways are those that the client has, timed in turn, in an order that is drawn anew for each round. What
counts is the median of the rounds. Through the times of each way a line is laid (its beginning, and what each
name adds), and a crossover is where two lines meet.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ..auth.sources import source_for
from ..config.loading import settings_for
from ..config.settings import BulkSettings, EndpointSettings
from ..errors import UnsupportedError
from ..rest.api import Api
from ..store.bulk import at_once
from ..store.webdav_store import WebdavStore
from ..transport.control import ControlPlane
from ..transport.deadline import Deadline
from ..transport.pacing import pacer_for
from .borrowed import Borrowed
from .quantities import seconds_text

__all__ = ("Crossover", "Point", "measure_crossover")

_NEVER = 10**9
_ENTRIES = (10, 100, 1000)
_NAMES = (1, 5, 20, 100)
_REMOVED = (5, 20, 100, 300, 1000)
_DATA = b"x"

Place = Callable[[Sequence[str]], object]
"""Puts a file at each of some URLs."""


@dataclasses.dataclass(frozen=True)
class Point:
    """What one way takes for so many names.

    Parameters
    ----------
    way : `str`
        The way.
    count : `int`
        Names, or entries of the directory.
    seconds : `float`
        Median of all rounds.
    """

    way: str
    count: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Crossover:
    """What was measured.

    Parameters
    ----------
    points : `tuple` [ `Point`, ... ]
        The times.
    rounds : `int`
        How often each was taken.
    missing : `tuple` [ `str`, ... ]
        Ways that the server does not have, and why.
    """

    points: tuple[Point, ...]
    rounds: int
    missing: tuple[str, ...] = ()

    def line(self, way: str) -> tuple[float, float] | None:
        """Return the beginning and what each name adds (seconds), `None` for a way that was not taken."""
        points = [point for point in self.points if point.way == way]
        if len(points) < 2:
            return None
        fit = statistics.linear_regression(
            [float(point.count) for point in points], [point.seconds for point in points]
        )
        return fit.intercept, fit.slope

    def meeting(self, single: str, together: str) -> float | None:
        """Return the count from which on one way is faster than another, `None` if it never is."""
        one, other = self.line(single), self.line(together)
        if one is None or other is None or one[1] <= other[1]:
            return None
        return max(1.0, (other[0] - one[0]) / (one[1] - other[1]))

    @property
    def settings(self) -> dict[str, float]:
        """The keys that follow, without those for which no crossover was found."""
        found: dict[str, float] = {}
        looks, listing = self.line("look"), self.line("list")
        # Times that do not grow with the number are noise, and nothing follows from them.
        if looks is not None and listing is not None and looks[1] > 0:
            smallest = listing[0] + listing[1] * _ENTRIES[0]
            found["list_from_names"] = max(2, round((smallest - looks[0]) / looks[1]))
            if listing[1] > 0:
                found["entries_per_question"] = max(0.1, round(looks[1] / listing[1], 1))
        for key, single, together in (
            ("delete_from_files", "remove singly", "remove in bulk"),
            ("archive_info_from_names", "look", "archiveinfo"),
        ):
            meeting = self.meeting(single, together)
            if meeting is not None:
                found[key] = max(2, round(meeting))
        return found

    def text(self) -> str:
        """Return tables and keys for people."""
        lines = [f"Medians of {self.rounds} rounds", ""]
        for way in dict.fromkeys(point.way for point in self.points):
            points = [point for point in self.points if point.way == way]
            cells = ", ".join(f"{point.count}: {seconds_text(point.seconds)}" for point in points)
            line = self.line(way)
            law = "" if line is None else f"  [{seconds_text(line[0])} + {seconds_text(line[1])} each]"
            lines.append(f"{way}:  {cells}{law}")
        lines += [*(f"not measured: {text}" for text in self.missing), "", "dcache:", "  bulk:"]
        for field in dataclasses.fields(BulkSettings):
            value = self.settings.get(field.name)
            why = "" if value is not None else "  # the default: no crossover was seen"
            lines.append(f"    {field.name}: {field.default if value is None else value:g}{why}")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON can hold it."""
        return {**dataclasses.asdict(self), "settings": self.settings}


def measure_crossover(
    url: str,
    *,
    rounds: int = 3,
    seed: int = 1,
    place: Place | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Crossover:
    """Measure the ways to look for, to list and to remove many names.

    Parameters
    ----------
    url : `str`
        A ``davs`` or ``dav`` directory, with trailing slash; a directory of our own is made in it, and
        removed.
    rounds : `int`, optional
        How often each way is taken; the median counts.
    seed : `int`, optional
        Of the order.
    place : `~collections.abc.Callable`, optional
        Puts files there without the client, where somebody can.
    tell : `~collections.abc.Callable`, optional
        Is told what is being done.

    Returns
    -------
    crossover : `Crossover`
        Times, and the settings that follow.
    """
    borrowed = Borrowed(url)
    borrowed.sign()
    try:
        measurement = _Measurement(borrowed.url, random.Random(seed), place, tell)
        return measurement.measure(rounds)
    finally:
        tell("removing what was made")
        borrowed.give_back(lambda count: None)


class _Measurement:
    def __init__(
        self, url: str, draw: random.Random, place: Place | None, tell: Callable[[str], object]
    ) -> None:
        self._url = url
        self._draw = draw
        self._tell = tell
        settings = dataclasses.replace(settings_for(url), publish="in_place")
        self._store = WebdavStore(settings)
        self._singly = self._removing_from(settings, _NEVER)
        self._in_bulk = self._removing_from(settings, 1)
        self._place = self._write if place is None else place
        self._api = None
        if settings.frontend_url is not None:
            pacer = pacer_for(settings, settings.frontend_url)
            control = ControlPlane(settings, source_for(settings), pacer)
            self._api = Api(f"{settings.frontend_url}api/v1", control)
        self._times: dict[tuple[str, int], list[float]] = {}
        self._missing: dict[str, None] = {}

    @staticmethod
    def _removing_from(settings: EndpointSettings, files: int) -> WebdavStore:
        bulk = dataclasses.replace(settings.bulk, delete_from_files=files)
        return WebdavStore(dataclasses.replace(settings, bulk=bulk))

    def measure(self, rounds: int) -> Crossover:
        urls = {size: [f"{self._url}{size}/{number}" for number in range(size)] for size in _ENTRIES}
        for size, names in urls.items():
            self._tell(f"making {size} files")
            self._place(names)
        names = urls[_ENTRIES[-1]]
        # The first request of each kind is another one: connections, macaroons, the frontend, its proof.
        warm = [f"{self._url}warm/{number}" for number in range(4)]
        for store in (self._singly, self._in_bulk):
            self._place(warm)
            store.remove_many(warm)
        for number in range(rounds):
            self._tell(f"round {number + 1} of {rounds}: looking")
            turns: list[Callable[[], None]] = []
            for size in _ENTRIES:
                turns.append(lambda size=size: self._list(size))  # type: ignore[misc]
            for count in _NAMES:
                turns.append(lambda count=count: self._look(names[:count]))  # type: ignore[misc]
                turns.append(lambda count=count: self._archive_info(names[:count]))  # type: ignore[misc]
            self._draw.shuffle(turns)
            for turn in turns:
                turn()
            self._tell(f"round {number + 1} of {rounds}: removing")
            ways = [(count, way) for count in _REMOVED for way in (self._singly, self._in_bulk)]
            self._draw.shuffle(ways)
            for count, store in ways:
                self._remove(count, store)
        points = (
            Point(way, count, statistics.median(times)) for (way, count), times in sorted(self._times.items())
        )
        return Crossover(tuple(points), rounds, tuple(self._missing))

    @contextmanager
    def _timed(self, way: str, count: int) -> Any:
        begun = time.perf_counter()
        yield
        self._times.setdefault((way, count), []).append(time.perf_counter() - begun)

    def _list(self, size: int) -> None:
        directory = f"{self._url}{size}/"
        with self._timed("list", size):
            self._store.list_directory(directory)
        if self._api is None:
            self._missing["REST listing: no frontend_url is configured"] = None
            return
        with self._timed("list by REST", size):
            self._api.ask(
                "GET",
                "/namespace" + urlsplit(directory).path,
                operation="list",
                url=directory,
                deadline=Deadline(600),
                query={"children": "true", "checksum": "true", "locality": "true"},
            )

    def _look(self, urls: Sequence[str]) -> None:
        with self._timed("look", len(urls)):
            at_once(self._store.exists, urls)

    def _archive_info(self, urls: Sequence[str]) -> None:
        try:
            tape = self._store.tape()
        except UnsupportedError as error:
            self._missing[f"archiveinfo: {error}"] = None
            return
        with self._timed("archiveinfo", len(urls)):
            tape.localities(urls)

    def _remove(self, count: int, store: WebdavStore) -> None:
        urls = [f"{self._url}removed/{number}" for number in range(count)]
        self._place(urls)
        with self._timed("remove in bulk" if store is self._in_bulk else "remove singly", count):
            for error in store.remove_many(urls).values():
                if error is not None:
                    raise error

    def _write(self, urls: Sequence[str]) -> None:
        at_once(lambda url: self._store.write(url, _DATA), urls)
