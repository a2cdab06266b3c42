"""Listings as they arrive: whole or an error, in memory that does not grow with the directory."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from fresh_interpreter import run
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.errors import (
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    ProtocolError,
    ResourceIsFileError,
)
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.webdav.propfind import parse_multistatus
from request_counter import counted
from test_store_webdav import endpoint

MANY = 10_000
ODD_NAMES = [
    "a#b",
    "100%",
    "a%20b",
    "a+b",
    "a;b=c",
    "blank ",
    " x",
    "\N{PILE OF POO}",
    "R&D",
    "two\nlines",
    "é",
    "?",
    "[1]",
]


@pytest.fixture(params=["propfind", "rest"])
def store(request: pytest.FixtureRequest, embedded: Any, tmp_path: Path) -> Iterator[Store]:
    """A client that lists by the door, and one that lists by the frontend."""
    dcache = {"listing": request.param, "frontend_url": embedded.frontend_url}
    with endpoint(embedded, tmp_path, dcache=dcache) as store:
        store.list_directory(embedded.url)  # proves the frontend
        yield store


@pytest.fixture
def question(store: Any) -> str:
    """What a listing asks for."""
    return "frontend GET" if store.settings.listing == "rest" else "door PROPFIND"


@pytest.fixture
def base(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:12]}/"


def place(server: Any, base: str, count: int) -> list[str]:
    """Place small files and return their URLs."""
    urls = [f"{base}{number:05}" for number in range(count)]
    for url in urls:
        server.place(unquote(urlsplit(url).path), b"x")
    return urls


def document(count: int) -> Iterator[bytes]:
    """Yield a listing in pieces, as dCache writes it."""
    yield (
        b'<?xml version="1.0" encoding="utf-8" ?>\n<D:multistatus xmlns:D="DAV:">'
        b"<D:response><D:href>/data/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/>"
        b"</D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    )
    for start in range(0, count, 50):
        yield b"".join(
            b"<D:response><D:href>/data/f%d</D:href><D:propstat><D:prop><D:getcontentlength>%d"
            b"</D:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
            % (number, number)
            for number in range(start, min(start + 50, count))
        )
    yield b"</D:multistatus>"


def test_memory_does_not_grow_with_the_listing() -> None:
    peaks = []
    for count in (1000, 10_000):
        tracemalloc.start()
        try:
            total = sum(
                entry.size or 0 for entry in parse_multistatus(document(count), "davs://door:2880/data/")
            )
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert total == count * (count - 1) // 2
    assert peaks[1] < peaks[0] + 100_000, peaks


def test_entries_arrive_one_by_one() -> None:
    """Nothing is held back until the end: the first entries are there before the rest was asked for."""
    taken = []

    def pieces() -> Iterator[bytes]:
        for number, piece in enumerate(document(1000)):
            taken.append(number)
            yield piece

    entries = parse_multistatus(pieces(), "davs://door:2880/data/")
    assert [next(entries).name for _ in range(3)] == ["data", "f0", "f1"]
    assert len(taken) == 2


@pytest.mark.parametrize("at", [1, 5, 100, 1000, 5000])
def test_pieces_of_any_size(at: int) -> None:
    whole = b"".join(document(100))
    pieces = (whole[start : start + at] for start in range(0, len(whole), at))
    assert [entry.size for entry in parse_multistatus(pieces, "davs://h/data/")] == [None, *range(100)]


def test_cut_document_is_an_error() -> None:
    whole = b"".join(document(20))
    for length in (len(whole) - 1, len(whole) - 18, len(whole) // 2, 100):
        with pytest.raises(ProtocolError):
            list(parse_multistatus([whole[:length]], "davs://h/data/"))


def test_entry_without_end() -> None:
    def pieces() -> Iterator[bytes]:
        yield next(document(1))
        yield b"<D:response><D:href>/data/"
        for _ in range(10_000):
            yield b"a" * 10_000

    with pytest.raises(ProtocolError, match="without end"):
        list(parse_multistatus(pieces(), "davs://h/data/"))


@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_connection_that_breaks(store: Store, embedded: Any, base: str, question: str, where: str) -> None:
    """A list is asked for again; a stream too, as long as nobody has seen anything of it."""
    urls = place(embedded, base, 500)
    at_byte = {"begin": 100, "middle": 130_000, "end": 10**6}[where]
    server, method = question.split()
    with counted(embedded) as counter:
        store.list_directory(base)
    assert counter.methods() == [question]
    if where == "end":
        at_byte = sum(record["sent"] for record in counter.records) - 1
    fault = embedded.faults.add(Fault("cut_download", server=server, method=method, at_byte=at_byte))
    assert sorted(entry.url for entry in store.list_directory(base)) == urls
    assert fault.hits == 1
    fault = embedded.faults.add(Fault("cut_download", server=server, method=method, at_byte=at_byte))
    if where == "begin":
        assert sorted(entry.url for entry in store.iter_directory(base)) == urls
    else:
        with pytest.raises(DoorUnavailableError):
            list(store.iter_directory(base))
    assert fault.hits == 1


@pytest.mark.parametrize("how", ["propfind", "rest"])
def test_long_silence(embedded: Any, base: str, tmp_path: Path, how: str) -> None:
    """A server is silent until it has the whole listing: that is for its own time limit, and no pool's."""
    urls = place(embedded, base, 5)
    server = "frontend" if how == "rest" else "door"
    dcache = {"listing": how, "frontend_url": embedded.frontend_url, "idle_timeout_seconds": 0.2}
    for limit, is_enough in ((30, True), (0.2, False)):
        with endpoint(embedded, tmp_path, dcache=dcache, timeout_read=limit) as store:
            assert list(store.iter_directory(embedded.url))
            fault = embedded.faults.add(Fault("stall", server=server, path=f"*{base[-13:-1]}*", seconds=0.5))
            if is_enough or how == "rest":  # of which the door takes over
                assert sorted(entry.url for entry in store.iter_directory(base)) == urls
            else:
                with pytest.raises(DeadlineError):
                    list(store.iter_directory(base))
            assert fault.hits == 1
            embedded.faults.clear()


def test_listing_that_nobody_reads_to_its_end(store: Store, embedded: Any, base: str) -> None:
    place(embedded, base, 2000)
    entries = store.iter_directory(base)
    next(entries)
    del entries
    assert len(store.list_directory(base)) == 2000


def test_what_is_no_directory(store: Store, embedded: Any, base: str) -> None:
    (url,) = place(embedded, base, 1)
    with pytest.raises(ResourceIsFileError):
        list(store.iter_directory(url))
    with pytest.raises(FileNotFoundError):
        list(store.iter_directory(base + "none/"))
    embedded.faults.add(Fault("unlistable"))
    assert [entry.url for entry in store.iter_directory(base)] == [url]
    embedded.faults.add(Fault("unlistable", times=None))
    with pytest.raises(DcacheError):
        list(store.iter_directory(base))
    embedded.faults.clear()


def test_odd_names(store: Store, embedded: Any, base: str) -> None:
    for name in ODD_NAMES:
        embedded.place(unquote(urlsplit(base).path) + name, b"x")
    found = [unquote(entry.name) for entry in store.iter_directory(base)]
    assert sorted(found) == sorted(ODD_NAMES)
    urls = [base + quote(name, safe="") for name in ODD_NAMES]
    assert store.exists_many(urls) == dict.fromkeys(urls, True)


def test_large_directory(tmp_path: Path) -> None:
    """10,000 files: one request, and less than 32 MiB as a list; far less as a stream."""
    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path):
        place(server, server.url + "large/", MANY)
        code = """
import sys, tracemalloc
from lsst.daf.butler_dcache.store.registry import store_for
url, count = sys.argv[1], int(sys.argv[2])
store = store_for(url)
store.exists(url)
for read, most in ((store.iter_directory, 2 << 20), (store.list_directory, 32 << 20)):
    tracemalloc.start()
    entries = read(url)
    assert sum(1 for entry in entries if entry.size == 1 and entry.checksums) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most, peak
"""
        with counted(server) as counter:
            run(
                f"import sys; sys.argv = ['', {server.url + 'large/'!r}, '{MANY}']" + code,
                **server.environment,
            )
        assert counter.methods() == ["door PROPFIND"] * 3
