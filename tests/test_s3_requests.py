"""How many requests each operation costs on an S3 endpoint, as the transport records them."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from seaweed_server import external_url

SMALL = b"x" * 1000
LARGE = bytes(range(256)) * 80_000  # more than one request brings


@pytest.fixture
def base(s3_url: str) -> str:
    return s3_url


@pytest.fixture
def store(s3: str, s3_url: str) -> Store:
    store = store_for(s3)
    # What is found out once is found out: how checksums are verified, and whether conditions are kept.
    store.write(f"{s3}warm-up", b"")
    with contextlib.suppress(errors.ResourceExistsError):
        store.write(f"{s3}warm-up", b"", overwrite=False)
    return store


class Requests(Counter[str]):
    """Requests by method."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {method}" for method, count in sorted(self.items()))


@contextlib.contextmanager
def counted() -> Iterator[Requests]:
    requests = Requests()

    def note(exchange: Exchange) -> None:
        requests[exchange.method] += 1

    add_observer(note)
    try:
        yield requests
    finally:
        remove_observer(note)


def test_looking(store: Store, base: str) -> None:
    store.write(f"{base}a/file", SMALL)
    for ask in (store.exists, store.stat):
        with counted() as requests:
            ask(f"{base}a/file")
        assert str(requests) == "1 HEAD"
        with counted() as requests:
            ask(f"{base}a/")
        assert str(requests) == "1 GET"
        with counted() as requests:
            ask(f"{base}a")
        assert str(requests) == "1 GET, 1 HEAD"
    with counted() as requests:
        assert not store.exists(f"{base}none")
    assert str(requests) == "1 GET, 1 HEAD"


def test_size_of_what_was_just_written(store: Store, base: str) -> None:
    for data in (SMALL, b""):
        store.write(f"{base}file", data)
        with counted() as requests:
            assert store.size(f"{base}file") == store.info(f"{base}file").size == len(data)
        assert str(requests) == ""
    store.remove_many([f"{base}file"])
    with counted() as requests, pytest.raises(errors.ResourceNotFoundError):
        store.size(f"{base}file")
    assert str(requests) == "1 GET, 1 HEAD"


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_reading(store: Store, base: str, data: bytes) -> None:
    store.write(f"{base}file", data)
    with counted() as requests:
        assert store.read(f"{base}file") == data
    assert str(requests) == "1 GET"
    with counted() as requests:
        store.download(f"{base}file", io.BytesIO())
    assert str(requests) == "1 GET"


def test_parts_of_a_file(store: Store, base: str) -> None:
    store.write(f"{base}file", LARGE)
    with counted() as requests:
        reader = store.open_reader(f"{base}file")
        assert reader.info.size == len(LARGE)
        assert reader.read_ranges([ByteRange(0, 5000)]) == [LARGE[:5000]]
        reader.close()
    assert str(requests) == "1 GET"
    with counted() as requests:
        store.read_ranges(f"{base}file", [ByteRange(at, at + 100) for at in range(0, 100_000, 1000)])
    assert str(requests) == "1 GET"


def test_writing(store: Store, base: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(SMALL)
    for _ in ("new", "replaced"):
        for data in (SMALL, b""):
            with counted() as requests:
                store.write(f"{base}file", data)
            assert str(requests) == "1 PUT"
        with counted() as requests, path.open("rb") as file:
            store.write(f"{base}file", file)
        assert str(requests) == "1 PUT"
    with counted() as requests:
        store.write(f"{base}large", LARGE)
    if external_url() is not None:
        # radosgw 16 does not tell the entity tag of an upload that is completed.
        assert requests.pop("HEAD", 0) <= 1
    assert str(requests) == "2 POST, 2 PUT"
    with counted() as requests:
        writer = store.open_writer(f"{base}written")
        writer.write(SMALL)
        writer.commit()
    assert str(requests) == "1 PUT"
    with counted() as requests:
        store.make_directory(f"{base}directory/")
    assert str(requests) == "1 HEAD, 1 PUT"


def test_creating(store: Store, base: str) -> None:
    with counted() as requests:
        store.write(f"{base}file", SMALL, overwrite=False)
    assert str(requests) == "1 PUT"
    with counted() as requests, pytest.raises(errors.ResourceExistsError):
        store.write(f"{base}file", SMALL, overwrite=False)
    # What is there could be its own, by a request of which the answer was lost.
    assert str(requests) == "1 HEAD, 1 PUT"


def test_listing(store: Store, base: str) -> None:
    with counted() as requests, pytest.raises(errors.ResourceNotFoundError):
        store.list_directory(f"{base}none/")
    assert str(requests) == "1 GET, 1 HEAD"
    store.make_directory(f"{base}empty/")
    with counted() as requests:
        assert store.list_directory(f"{base}empty/") == []
    assert str(requests) == "1 GET"


def test_removing(store: Store, base: str) -> None:
    store.write(f"{base}file", SMALL)
    with counted() as requests:
        store.remove(f"{base}file")
    assert str(requests) == "1 DELETE, 1 HEAD"
    with counted() as requests, pytest.raises(errors.ResourceNotFoundError):
        store.remove(f"{base}file")
    assert str(requests) == "1 GET, 1 HEAD"


def test_renaming_and_copying(store: Store, base: str) -> None:
    store.write(f"{base}a", SMALL)
    with counted() as requests:
        store.copy(f"{base}a", f"{base}b", overwrite=True)
    assert str(requests) == "2 HEAD, 1 PUT"
    with counted() as requests:
        store.move(f"{base}b", f"{base}c", overwrite=True)
    assert str(requests) == "1 DELETE, 3 HEAD, 1 PUT"


def test_signing(store: Store, base: str) -> None:
    with counted() as requests:
        assert store.presign(f"{base}file", "GET", 60)
        assert store.presign(f"{base}file", "PUT", 60)
    assert str(requests) == ""


@pytest.fixture(scope="module")
def crowd(s3: str) -> list[str]:
    """URLs of many files: 1,500 in one directory, 500 in 100 directories of a tree."""
    store = store_for(s3)
    flat = [f"{s3}crowd/flat/file-{number:05}" for number in range(1500)]
    deep = [f"{s3}crowd/deep/{number % 10}/{number // 10 % 10}/{number}" for number in range(500)]
    for url in [*flat, *deep]:
        store.write(url, b"")
    return [*flat, *deep]


def test_listing_many(store: Store, s3: str, crowd: list[str]) -> None:
    with counted() as requests:
        assert len(store.list_directory(f"{s3}crowd/flat/")) == 1500
    assert str(requests) == "2 GET"


def test_asking_for_many_in_one_directory(store: Store, crowd: list[str]) -> None:
    there = crowd[250:1250]
    missing = [f"{url}-none" for url in crowd[:500]]
    with counted() as requests:
        found = store.exists_many([*there, *missing])
    assert [found[url] for url in (*there, *missing)] == [True] * 1000 + [False] * 500
    assert requests["HEAD"] == 0
    assert requests["GET"] == 2


def test_asking_for_many_in_a_tree(store: Store, s3: str, crowd: list[str]) -> None:
    deep = crowd[1500:]
    asked = [*deep, f"{s3}crowd/deep/1", f"{s3}crowd/deep/1/", f"{s3}crowd/deep/11", f"{s3}crowd/deep/11/"]
    with counted() as requests:
        found = store.exists_many(asked)
    assert [found[url] for url in asked] == [True] * 502 + [False] * 2
    assert str(requests) == "1 GET"


def test_what_many_are(store: Any, s3: str, crowd: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of a thousand by two pages, and a directory is told from a file."""
    monkeypatch.setattr(store._sizes, "get", lambda url: None)
    asked = [*crowd[250:1250], f"{crowd[0]}-none"]
    with counted() as requests:
        infos = store.info_many(asked)
    assert requests["HEAD"] == 0
    assert requests["GET"] == 2
    assert [info and info.size for info in infos.values()] == [0] * 1000 + [None]
    assert infos[crowd[250]].url == crowd[250]
    with counted() as requests:
        infos = store.info_many([f"{s3}crowd/deep/1", f"{s3}crowd/deep/1/0/1", *crowd[1500:]])
    assert str(requests) == "1 GET"
    assert [info.is_directory for info in infos.values()] == [True] + [False] * 500
    entries = store.iter_directory(f"{s3}crowd/flat/")
    with counted() as requests:
        next(entries)
    assert str(requests) == "1 GET"


def test_asking_for_few_among_many(store: Store, crowd: list[str]) -> None:
    """A directory that is large beside the names that are asked for is not listed to its end."""
    asked = crowd[:1500:150]
    with counted() as requests:
        found = store.exists_many([*asked, *(f"{url}-none" for url in asked)])
    assert [found[url] for url in asked] == [True] * len(asked)
    assert sum(found.values()) == len(asked)
    assert requests.total() < 3 * len(asked)
    with counted() as requests:
        assert store.exists_many(crowd[:2]) == dict.fromkeys(crowd[:2], True)
    assert str(requests) == "2 HEAD"


def test_removing_many(store: Store, base: str) -> None:
    """A thousand by each request; most of them are not there, which is the same to the server."""
    there = [f"{base}{number}" for number in range(0, 2500, 100)]
    for url in there:
        store.write(url, b"")
    with counted() as requests:
        results = store.remove_many(f"{base}{number}" for number in range(2500))
    assert str(requests) == "3 POST"
    assert len(results) == 2500
    assert set(results.values()) == {None}
    assert not any(store.exists_many(there).values())


def test_not_a_request_for_nothing(store: Store) -> None:
    with counted() as requests:
        assert store.exists_many([]) == {}
        assert store.remove_many([]) == {}
    assert str(requests) == ""
