"""What this process remembers of its own writes, and when it does not."""

from __future__ import annotations

import dataclasses
import os
import threading

import pytest
from lsst.daf.butler_dcache.model import EntryKind, FileInfo
from lsst.daf.butler_dcache.store.size_cache import LIFETIME_SECONDS, SizeCache

URL = "davs://door:2880/a/b%2Bc"


def info(size: int) -> FileInfo:
    return FileInfo(url=URL, kind=EntryKind.FILE, size=size)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> SizeCache:
    return SizeCache(clock)


def write(cache: SizeCache, size: int, url: str = URL) -> None:
    with cache.change(url) as change:
        change.done(info(size))


def test_own_write_is_remembered_for_a_while(cache: SizeCache, clock: Clock) -> None:
    assert cache.get(URL) is None
    write(cache, 5)
    assert cache.get(URL) == info(5)
    assert cache.get("https://DOOR:2880/a//b+c") == info(5)
    assert cache.get("davs://door/a/b%2Bc") is None
    clock.now += LIFETIME_SECONDS + 1
    assert cache.get(URL) is None


def test_names_of_one_server(cache: SizeCache) -> None:
    alias, second, third = (f"https://{name}:2880/a/b%2Bc" for name in ("alias", "second", "third"))
    write(cache, 5, second)
    assert cache.get(alias) is None
    # In whichever order it becomes known.
    cache.join([URL, second])
    cache.join([third, alias])
    cache.join([alias, URL])
    for name in (alias, second, third, URL):
        write(cache, 7, name)
        for other in (alias, second, third, URL):
            assert cache.get(other) == dataclasses.replace(info(7), url=other)
        with cache.change(URL):
            assert cache.get(third) is None
    write(cache, 5, "https://other:2880/a/b%2Bc")
    assert cache.get(URL) is None


def test_change_without_result_forgets(cache: SizeCache) -> None:
    write(cache, 5)
    with cache.change(URL):
        assert cache.get(URL) is None
    assert cache.get(URL) is None


def test_failed_change_forgets(cache: SizeCache) -> None:
    write(cache, 5)
    with pytest.raises(OSError, match="no"), cache.change(URL):
        raise OSError("no")
    assert cache.get(URL) is None


def test_overlapping_changes_leave_nothing(cache: SizeCache) -> None:
    """Nobody here knows which of them was the last at the server."""
    with cache.change(URL) as first:
        with cache.change(URL) as second:
            second.done(info(2))
        assert cache.get(URL) is None
        first.done(info(1))
    assert cache.get(URL) is None
    write(cache, 3)
    assert cache.get(URL) == info(3)


def test_third_change_does_not_clear_the_overlap(cache: SizeCache) -> None:
    first = cache.change(URL)
    began = first.__enter__()
    write(cache, 2)
    write(cache, 3)
    assert cache.get(URL) is None
    began.done(info(1))
    first.__exit__(None, None, None)
    assert cache.get(URL) is None


def test_directory_takes_what_is_below(cache: SizeCache) -> None:
    write(cache, 5)
    write(cache, 5, "davs://door:2880/ab/c")
    with cache.change("davs://door:2880/a/", below=True):
        pass
    assert cache.get(URL) is None
    assert cache.get("davs://door:2880/ab/c") is not None


def test_it_does_not_grow_for_ever(cache: SizeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsst.daf.butler_dcache.store.size_cache._MOST_ENTRIES", 10)
    for number in range(25):
        write(cache, number, f"davs://door/{number}")
    assert [cache.get(f"davs://door/{number}") is not None for number in range(25)] == [False] * 15 + [
        True
    ] * 10


def test_child_knows_nothing(cache: SizeCache) -> None:
    write(cache, 5)
    held = threading.Lock()
    with held, cache.change("davs://door/other"):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if cache.get(URL) is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert cache.get(URL) == info(5)
