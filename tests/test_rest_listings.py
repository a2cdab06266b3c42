"""Listings by the frontend: the same as by the door, or the door's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.errors import DcacheError, ProtocolError, ResourceIsFileError
from lsst.daf.butler_dcache.rest.listing import parse_children
from lsst.daf.butler_dcache.store.protocol import Store
from request_counter import counted
from test_listings import ODD_NAMES, place
from test_store_webdav import endpoint

URL = "davs://door:2880/data/d/"


@pytest.fixture
def base(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:12]}/"


@contextlib.contextmanager
def client(embedded: Any, folder: Path, listing: str, **dcache: Any) -> Iterator[Store]:
    changes = {"listing": listing, "frontend_url": embedded.frontend_url, **dcache}
    with endpoint(embedded, folder, dcache=changes) as store:
        store.list_directory(embedded.url)
        yield store


def answer(rows: list[Any], **fields: Any) -> bytes:
    own = {"fileType": "DIR", "mtime": 1, "pnfsId": "00AB", **fields}
    return json.dumps({"labels": [], "children": rows, **own}, indent=1, ensure_ascii=False).encode()


def read(body: bytes, size: int = 1 << 20) -> list[Any]:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return list(parse_children(pieces, URL, "list"))


ROWS = [
    {"fileName": f"{name} {number}", "fileType": "REGULAR", "size": number, "mtime": 1_790_000_000_123}
    for number, name in enumerate(ODD_NAMES)
    if "/" not in name
]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000])
def test_pieces_of_any_size(size: int) -> None:
    entries = read(answer(ROWS), size)
    assert [(unquote(entry.name), entry.size) for entry in entries] == [
        (row["fileName"], row["size"]) for row in ROWS
    ]
    assert {entry.modified.microsecond for entry in entries} == {123_000}


def test_fields() -> None:
    row = {
        "fileName": "a", "fileType": "REGULAR", "size": 5, "mtime": 1_764_000_000_456, "pnfsId": "0000AB",
        "fileLocality": "ONLINE_AND_NEARLINE", "labels": ["x"], "other": {"deep": [None]},
        "checksums": [{"type": "ADLER32", "value": "62C0215"}, {"type": "MD5_TYPE", "value": "5d41"}],
    }  # fmt: skip
    (entry,) = read(answer([row]))
    assert entry.checksums == {"adler32": "062c0215", "md5": "5d41"}
    assert entry.locality.value == "ONLINE_AND_NEARLINE"
    assert entry.etag.startswith('"0000AB_')
    (bare,) = read(answer([{"fileName": "a", "fileType": "REGULAR", "size": None, "checksums": None}]))
    assert (bare.size, bare.modified, bare.etag, dict(bare.checksums)) == (None, None, "", {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html/>",
        answer(ROWS)[:-2],
        answer(ROWS)[:300],
        answer(ROWS) + b"{}",
        answer(ROWS).replace(b'"children": [', b'"children": {'),
        answer([{"fileName": "a/b"}]),
        answer([{"fileName": ".."}]),
        answer([{"fileName": 5}]),
        answer([None]),
        b'{"children": [{"fileName": "\\ud800"}]}',
        answer([]).replace(b'"children": []', b'"children": null'),
        b'{"fileType": "DIR"}',
        b'{"children": [' + b"[" * 100_000,
        b'{"children": [{"fileName": "' + b"a" * 3_000_000,
        b'{"children": [{"fileName": "\xff"}]}',
    ],
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(body, 64 * 1024)


def test_file() -> None:
    with pytest.raises(ResourceIsFileError):
        read(b'{"fileType": "REGULAR", "size": 5, "mtime": 7}')


def test_memory_does_not_grow_with_the_listing() -> None:
    peaks = []
    for count in (1000, 10_000):

        def pieces(count: int = count) -> Iterator[bytes]:
            yield b'{"children": ['
            for number in range(0, count, 100):
                yield b",".join(
                    b'{"fileName": "f%d", "fileType": "REGULAR", "size": %d}' % (one, one)
                    for one in range(number, number + 100)
                ) + (b"," if number + 100 < count else b"")
            yield b'], "fileType": "DIR"}'

        tracemalloc.start()
        try:
            assert sum(1 for _ in parse_children(pieces(), URL, "list")) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000, peaks


def test_same_as_by_the_door(embedded: Any, base: str, tmp_path: Path) -> None:
    path = unquote(urlsplit(base).path)
    for number, name in enumerate(ODD_NAMES):
        embedded.place(path + name, b"x" * number)
        embedded.place(f"{path}dir {number}/file", b"x")
    embedded.site.namespace.find(path + ODD_NAMES[0]).size = None
    listings = []
    for how in ("propfind", "rest"):
        with client(embedded, tmp_path, how) as store, counted(embedded) as counter:
            # The door tells full seconds.
            listings.append(
                {
                    dataclasses.replace(
                        entry,
                        modified=entry.modified.replace(microsecond=0),
                        checksums=tuple(entry.checksums.items()),
                    )
                    for entry in store.list_directory(base)
                }
            )
        assert counter.methods() == ["door PROPFIND" if how == "propfind" else "frontend GET"]
    assert listings[0] == listings[1]
    assert len(listings[0]) == 2 * len(ODD_NAMES)


def test_proven_by_the_way(embedded: Any, base: str, tmp_path: Path) -> None:
    """By itself the client asks the frontend only once something has proven it."""
    urls = place(embedded, base, 50)
    with client(embedded, tmp_path, "auto") as store:
        with counted(embedded) as counter:
            assert all(store.exists_many(urls).values())
        assert counter.methods() == ["door PROPFIND"]
        store.write(base + "new", b"x" * 10)
        with counted(embedded) as counter:
            assert all(store.exists_many(urls).values())
            assert len(store.list_directory(base)) == 51
        assert counter.methods() == ["frontend GET"] * 2


def test_directory_that_may_not_be_listed(embedded: Any, base: str, tmp_path: Path) -> None:
    urls = place(embedded, base, 5)
    with client(embedded, tmp_path, "rest") as store:
        fault = embedded.faults.add(Fault("unlistable", times=None))
        try:
            for read_directory in (store.list_directory, lambda url: list(store.iter_directory(url))):
                with pytest.raises(PermissionError):
                    read_directory(base)
            assert store.exists_many([*urls, base + "none"]) == dict.fromkeys(urls, True) | {
                base + "none": False
            }
        finally:
            embedded.faults.remove([fault])
        with pytest.raises(FileNotFoundError):
            store.list_directory(base + "none/")
        with pytest.raises(ResourceIsFileError):
            store.list_directory(urls[0])


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", server="frontend", status=500, times=None),
        Fault("status", server="frontend", status=200, body="<html/>", times=None),
        Fault("drop", server="frontend", times=None),
        Fault("cut_download", server="frontend", at_byte=50, times=None),
        Fault("pnfs_timeout", server="frontend", times=None),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_frontend_that_fails(
    embedded: Any, base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """The door is asked, it is said once, and the frontend is left alone for a while."""
    urls = place(embedded, base, 20)
    with client(embedded, tmp_path, "rest") as store:
        embedded.faults.add(fault)
        try:
            assert sorted(entry.url for entry in store.iter_directory(base)) == urls
            with counted(embedded) as counter:
                assert len(store.list_directory(base)) == 20
                assert all(store.exists_many(urls).values())
        finally:
            embedded.faults.remove([fault])
    assert counter.methods() == ["door PROPFIND"] * 2
    assert caplog.text.count("the door is asked alone") == 1


def test_pages(embedded: Any, base: str, tmp_path: Path) -> None:
    urls = place(embedded, base, 50)
    with client(embedded, tmp_path, "rest", listing_page_entries=20) as store:
        for read_directory in (store.list_directory, store.iter_directory):
            with counted(embedded) as counter:
                assert sorted(entry.url for entry in read_directory(base)) == urls
            assert counter.methods() == ["frontend GET"] * 3


def test_pages_that_do_not_fit_together(embedded: Any, base: str, tmp_path: Path) -> None:
    """Of a list the door is asked; of what is handed on as it comes, an error."""
    urls = place(embedded, base, 50)
    with client(embedded, tmp_path, "rest", listing_page_entries=20) as store:
        fault = embedded.faults.add(Fault("shuffle_listing", times=None))
        with pytest.raises(ProtocolError, match="twice"):
            list(store.iter_directory(base))
        assert sorted(entry.url for entry in store.list_directory(base)) == urls
        embedded.faults.remove([fault])
    with client(embedded, tmp_path, "rest", listing_page_entries=20) as store:
        entries = store.iter_directory(base)
        seen = {next(entries).url for _ in range(10)}
        # One of the first page goes, and what follows moves up: it would be missed.
        store.remove(next(iter(seen)))
        with pytest.raises(DcacheError, match="changed"):
            list(entries)


def test_names_in_the_path(embedded: Any, base: str, tmp_path: Path) -> None:
    for name in ODD_NAMES:
        embedded.place(f"{unquote(urlsplit(base).path)}{name}/file", b"x")
    with client(embedded, tmp_path, "rest") as store:
        for name in ODD_NAMES:
            url = f"{base}{quote(name, safe=';+')}/"
            with counted(embedded) as counter:
                assert [entry.name for entry in store.list_directory(url)] == ["file"]
            (record,) = counter.records
            assert record["server"] == "frontend"
