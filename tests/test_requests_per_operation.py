"""How many requests each operation costs: the promise of the package, counted by the server.

Requests to doors and frontend are one currency (``d``), those to pools the other (``p``).
"""

from __future__ import annotations

import io
import time
import uuid
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import pytest
from lsst.daf.butler_dcache.errors import ResourceExistsError
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.store import size_cache
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from request_counter import Counter, counted
from test_store_webdav import endpoint, with_frontend

SMALL = b"x" * 1000
LARGE = bytes(range(256)) * 1200


@pytest.fixture(scope="module", params=["frontend", "macaroon"])
def site(
    request: pytest.FixtureRequest, embedded: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """The client with a frontend that renames, and without one."""
    changes = with_frontend(embedded) if request.param == "frontend" else {}
    with endpoint(embedded, tmp_path_factory.mktemp("config"), **changes) as store:
        store.exists(embedded.url)
        yield store


@pytest.fixture
def base(embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:12]}/"


def assert_cost(counter: Counter, door: int, pool: int = 0) -> None:
    assert (counter.at_door, counter.at_pool) == (door, pool), str(counter)
    assert not any(record["authorization"] for record in counter.records if record["server"] == "pool")


def test_looking(site: Store, embedded: Any, base: str) -> None:
    embedded.place(path_of(embedded, base + "file"), SMALL)
    for ask in (site.exists, site.size, site.info, site.stat):
        for url in (base + "file", base):
            with counted(embedded) as counter:
                ask(url)
            assert_cost(counter, 1)
    with counted(embedded) as counter:
        site.exists(base + "none")
    assert_cost(counter, 1)


def path_of(server: Any, url: str) -> str:
    """Path at the server of a URL, for `EmbeddedDcache.place`."""
    return unquote(urlsplit(url).path)


def test_size_of_what_was_just_written(site: Store, embedded: Any, base: str) -> None:
    site.write(base + "file", SMALL)
    with counted(embedded) as counter:
        assert site.size(base + "file") == len(SMALL)
        assert site.info(base + "file").size == len(SMALL)
    assert_cost(counter, 0)
    with counted(embedded) as counter:
        assert site.exists(base + "file")
    assert_cost(counter, 1)


def test_size_after_a_minute(site: Any, embedded: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(base + "file", SMALL)
    monkeypatch.setattr(site._sizes, "_clock", lambda: time.monotonic() + size_cache.LIFETIME_SECONDS + 1)
    with counted(embedded) as counter:
        site.size(base + "file")
    assert_cost(counter, 1)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_reading(site: Store, embedded: Any, base: str, data: bytes) -> None:
    site.write(base + "file", data)
    with counted(embedded) as counter:
        site.read(base + "file")
    assert_cost(counter, 1, 1)
    with counted(embedded) as counter:
        site.download(base + "file", io.BytesIO())
    assert_cost(counter, 1, 1)


def test_parts_of_a_file(site: Store, embedded: Any, base: str) -> None:
    site.write(base + "file", LARGE)
    with counted(embedded) as counter:
        reader = site.open_reader(base + "file")
        for at in range(0, 20000, 1000):
            reader.read_ranges([ByteRange(at, at + 100)])
        reader.close()
    assert_cost(counter, 1, 20)
    assert len({record["connection"] for record in counter.records if record["server"] == "pool"}) == 1
    with counted(embedded) as counter:
        site.read_ranges(base + "file", [ByteRange(at, at + 100) for at in range(0, 100000, 1000)])
    assert_cost(counter, 1, 1)
    with counted(embedded) as counter:
        reader = site.open_reader(base + "file")
        assert reader.info.size == len(LARGE)
        assert b"".join(reader.stream()) == LARGE
        reader.close()
    assert_cost(counter, 1, 2)


def test_writing(site: Store, embedded: Any, base: str) -> None:
    for _ in ("new", "replaced"):
        with counted(embedded) as counter:
            site.write(base + "large", LARGE)
        assert_cost(counter, 2, 1)
        for data in (SMALL, b""):
            with counted(embedded) as counter:
                site.write(base + "small", data)
            assert_cost(counter, 2)
    with counted(embedded) as counter:
        site.write(base + "file", io.BytesIO(LARGE))
    assert_cost(counter, 2, 1)
    writer = site.open_writer(base + "written")
    with counted(embedded) as counter:
        writer.write(LARGE)
        writer.commit()
    assert_cost(counter, 2, 1)


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_opening_by_fsspec(site: Any, embedded: Any, base: str, mode: str) -> None:
    """Two requests less than when ``fsspec.open`` has the directory made, which an upload makes itself."""
    with counted(embedded) as counter, fsspec.open(f"{base}new/directory/file", mode) as file:
        file.write("a" if mode == "w" else b"a")
    assert_cost(counter, 2)
    assert site.read(f"{base}new/directory/file") == b"a"
    fsspec.filesystem("davs").makedirs(f"{base}real", exist_ok=True)
    assert site.list_directory(f"{base}real/") == []


def test_reading_on_and_jumping(embedded: Any, site: Any, base: str) -> None:
    """Reads that follow one another are a stream; leaving it does not cost another question to the door."""
    content = bytes(range(256)) * 80_000
    site.write(base + "file", content)
    with counted(embedded) as count, RemoteFile(site.open_reader(base + "file"), "file") as file:
        for start in (0, 9_000_011, 3_000_007, 15_000_001):
            file.seek(start)
            assert file.read(70_000) + file.read(70_000) == content[start : start + 140_000]
    assert count.at_door == 1, count
    assert count.at_pool == 8, count
    assert len({record["connection"] for record in count.records if record["server"] == "pool"}) <= 4


def test_writing_in_place(embedded: Any, base: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, dcache={"publish": "in_place"}) as store:
        with counted(embedded) as counter:
            store.write(base + "large", LARGE)
        assert_cost(counter, 1, 1)
        with counted(embedded) as counter:
            store.write(base + "small", SMALL)
        assert_cost(counter, 1)
        assert store.read(base + "large") == LARGE


def test_creating(site: Store, embedded: Any, base: str) -> None:
    with counted(embedded) as counter:
        site.write(base + "large", LARGE, overwrite=False)
    assert_cost(counter, 2, 1)
    with counted(embedded) as counter:
        site.write(base + "small", SMALL, overwrite=False)
    assert_cost(counter, 2)


def test_creating_with_an_account(embedded: Any, base: str, tmp_path: Path) -> None:
    """A macaroon is asked for once."""
    account = {"user_name": embedded.user, "user_password": Path(embedded.password_file).read_text().strip()}
    with endpoint(embedded, tmp_path, token=None, **account) as store:
        for extra in (1, 0):
            with counted(embedded) as counter:
                store.write(f"{base}{extra}", SMALL, overwrite=False)
            assert_cost(counter, 2 + extra)


def test_creating_under_a_lock(tmp_path: Path) -> None:
    from lsst.daf.butler_dcache.embedded import EmbeddedDcache

    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path) as store:
        with counted(server) as counter:
            store.write(server.url + "a/large", LARGE, overwrite=False)
        assert_cost(counter, 4, 1)
        with counted(server) as counter, pytest.raises(ResourceExistsError):
            store.write(server.url + "a/large", LARGE, overwrite=False)
        assert [entry.name for entry in store.list_directory(server.url + "a/")] == ["large"]


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_making_directories(site: Store, embedded: Any, base: str, depth: int) -> None:
    with counted(embedded) as counter:
        site.make_directory(base + "d/" * depth)
    assert counter.at_door <= 2, str(counter)
    with counted(embedded) as counter:
        site.make_directory(base + "d/" * depth)
    assert counter.at_door <= 2, str(counter)
    with counted(embedded) as counter:
        site.make_directory(base + "d/" * depth + "next/")
    assert_cost(counter, 1)


def test_asking_for_many(site: Store, embedded: Any, base: str) -> None:
    urls = [f"{base}{number % 10}/{number}" for number in range(1000)]
    for url in urls:
        embedded.place(path_of(embedded, url), b"x")
    with counted(embedded) as counter:
        assert all(site.exists_many(urls).values())
    assert_cost(counter, 10)
    with counted(embedded) as counter:
        found = site.exists_many(
            [*urls, base + "0/none", base + "1/none", *(f"{base}none/{n}" for n in range(50))]
        )
    assert sum(found.values()) == 1000
    assert_cost(counter, 13)


def test_removing(site: Store, embedded: Any, base: str) -> None:
    urls = [f"{base}{number % 10}/{number}" for number in range(301)]
    for url in urls:
        embedded.place(path_of(embedded, url), b"x")
    with counted(embedded) as counter:
        site.remove(urls[0])
    assert_cost(counter, 1)
    with counted(embedded) as counter:
        assert set(site.remove_many(urls[1:]).values()) == {None}
    assert_cost(counter, 300)


def test_removing_without_a_macaroon(tmp_path: Path) -> None:
    """One listing for each directory takes the place of a look at each name."""
    from lsst.daf.butler_dcache.embedded import EmbeddedDcache

    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path) as store:
        urls = [f"{server.url}{number % 3}/{number}" for number in range(60)]
        for url in urls:
            server.place(path_of(server, url), b"x")
        store.exists(server.url)
        with counted(server) as counter:
            assert set(store.remove_many(urls).values()) == {None}
        assert_cost(counter, 63)


def test_listing(site: Store, embedded: Any, base: str) -> None:
    site.write(base + "full/file", SMALL)
    site.make_directory(base + "empty/")
    with counted(embedded) as counter:
        site.list_directory(base + "full/")
    assert_cost(counter, 1)
    with counted(embedded) as counter:
        site.list_directory(base + "empty/")
    assert_cost(counter, 2)


def test_renaming(site: Store, embedded: Any, base: str) -> None:
    site.write(base + "a", SMALL)
    for target, overwrite in (("b", False), ("c", True)):
        with counted(embedded) as counter:
            site.move(base + ("a" if target == "b" else "b"), base + target, overwrite=overwrite)
        assert_cost(counter, 1)


def test_signing(site: Store, embedded: Any, base: str) -> None:
    with counted(embedded) as counter:
        site.presign(base + "file", "GET", 60)
        site.presign(base + "file", "PUT", 60)
    assert_cost(counter, 0)


@pytest.mark.parametrize("operation", ["exists", "size", "read"])
def test_connections_are_kept(site: Store, embedded: Any, base: str, operation: str) -> None:
    embedded.place(path_of(embedded, base + "file"), LARGE)
    getattr(site, operation)(base + "file")
    with counted(embedded) as counter:
        for _ in range(100):
            getattr(site, operation)(base + "file")
    connections = Tally((record["server"], record["connection"]) for record in counter.records)
    assert sum(server == "door" for server, _ in connections) == 1
    assert sum(server == "pool" for server, _ in connections) <= 4  # pools of the embedded dCache


def test_no_store_but_one(embedded: Any) -> None:
    assert store_for(embedded.url) is store_for(embedded.url + "a/b")
