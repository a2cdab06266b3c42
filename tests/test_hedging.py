"""Reads whose first bytes are late: asked for twice, within a budget, and never by one URL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from lsst.daf.butler_dcache.webdav.hedging import Begun, Hedger, Lane
from test_retry import Clock
from test_store_webdav import endpoint

LONG = 30.0
DATA = bytes(range(256)) * 40


class Answer:
    """An answer, as far as the race looks at it."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.closed: list[bool | None] = []

    def close(self, reuse: bool | None = None) -> None:
        self.closed.append(reuse)


def good() -> Any:
    return Begun(Answer(), True)  # type: ignore[arg-type]


def warm(hedger: Hedger, seconds: float = 0.0) -> None:
    """Let it see a hundred reads that took so long."""
    hedger._reads = 100
    hedger._seconds.extend([seconds] * 100)


def test_what_is_late() -> None:
    clock = Clock()
    hedger = Hedger(clock)

    def begin(seconds: float) -> None:
        def slowly(lane: Lane) -> Begun:
            clock.now += seconds
            return good()  # type: ignore[no-any-return]

        hedger.race(slowly)

    for _ in range(39):
        begin(0.01)
    assert hedger.patience == float("inf")
    for _ in range(58):
        begin(0.01)
    for _ in range(3):
        begin(7.0)
    assert hedger.patience == pytest.approx(0.01)
    for _ in range(3):
        begin(7.0)
    assert hedger.patience == pytest.approx(7.0)


@given(st.integers(0, 10_000))
def test_never_more_than_one_in_twenty(reads: int) -> None:
    hedger = Hedger()
    hedges = 0
    for _ in range(reads):
        hedger._reads += 1
        if hedger.has_budget:
            hedger._hedges += 1
            hedges += 1
        assert hedges <= hedger._reads / 20


def test_the_second_wins_and_the_first_is_closed() -> None:
    hedger = Hedger()
    warm(hedger)
    released, lanes = threading.Event(), []
    late = Answer()
    closed = threading.Event()

    def begin(lane: Lane) -> Begun:
        lanes.append(lane)
        if len(lanes) == 1:
            released.wait(LONG)
            late.close = lambda reuse=None: closed.set()  # type: ignore[method-assign]
            return Begun(late, True)  # type: ignore[arg-type]
        return good()  # type: ignore[no-any-return]

    begun = hedger.race(begin)
    assert begun.answer is not None
    assert begun.answer.closed == []  # type: ignore[attr-defined]
    assert lanes[0].has_lost
    released.set()
    assert closed.wait(LONG)


@pytest.mark.parametrize("kind", ["raises", "refused", "pool"])
def test_a_second_that_fails_leaves_the_first(kind: str) -> None:
    hedger = Hedger()
    warm(hedger)
    second = threading.Event()
    first: list[Lane] = []

    def begin(lane: Lane) -> Begun:
        if not first:
            first.append(lane)
            second.wait(LONG)
            return good()  # type: ignore[no-any-return]
        second.set()
        if kind == "raises":
            raise errors.ServerError("no")
        if kind == "refused":
            return Begun(Answer(500), True)  # type: ignore[arg-type]
        return Begun(None, True, errors.DoorUnavailableError("no"))

    begun = hedger.race(begin)
    assert begun.answer is not None
    assert begun.answer.status == 200


def test_errors_are_those_of_the_first() -> None:
    def begin(lane: Lane) -> Begun:
        raise errors.ResourceNotFoundError("nothing")

    with pytest.raises(errors.ResourceNotFoundError):
        Hedger().race(begin)


# With a server


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False) as dcache:
        yield dcache


@pytest.fixture
def records() -> Iterator[list[Exchange]]:
    seen: list[Exchange] = []
    add_observer(seen.append)
    yield seen
    remove_observer(seen.append)


@pytest.mark.parametrize("late", ["pool", "door"])
def test_a_late_read_is_asked_for_once_more(
    site: EmbeddedDcache, tmp_path: Path, records: list[Exchange], late: str
) -> None:
    with endpoint(site, tmp_path, dcache={"hedge": True}) as store:
        store.write(site.url + "file", DATA)
        assert store.read(site.url + "file") == DATA
        warm(store._downloads._hedger, 0.05)  # type: ignore[attr-defined]
        connections = site.open_connections()
        before = len(site.transcript())
        site.faults.add(Fault("stall", server=late, method="GET", seconds=LONG))
        records.clear()
        begun = time.monotonic()
        assert store.read(site.url + "file") == DATA
        assert time.monotonic() - begun < LONG / 2
        hedges = [one for one in records if one.is_hedge]
        assert [one.method for one in hedges] == ["GET", "GET"], "its own door request, and its own URL"
        asked = [one.server for one in site.transcript()[before:] if one.method == "GET"]
        assert asked.count("pool") == (2 if late == "pool" else 1)
        assert asked.count("door") == 2
        assert site.open_connections() <= connections + 2
        site.faults.stopping.set()  # the loser need not wait for its end
        site.faults.stopping.clear()
        assert store.read(site.url + "file") == DATA


def test_off_by_default(site: EmbeddedDcache, tmp_path: Path, records: list[Exchange]) -> None:
    with endpoint(site, tmp_path) as store:
        store.write(site.url + "file", DATA)
        assert store._downloads._hedger is None  # type: ignore[attr-defined]
        assert store.read(site.url + "file") == DATA
    assert not [one for one in records if one.is_hedge]
