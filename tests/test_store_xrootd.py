"""The WebDAV store on a real XRootD, judged by the suite of all stores: a redirector and its data servers."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from racing import assert_one_winner, race, writers
from store_conformance import StoreConformance


@pytest.fixture
def base(xrootd: Any) -> str:
    return f"{xrootd.url}{uuid.uuid4().hex[:12]}/"


class TestXrootd(StoreConformance):
    """All of it."""

    unusual_names = False  # XRootD takes a quoted question mark for the start of a query

    @pytest.fixture
    def store(self, xrootd: Any) -> Store:
        return store_for(xrootd.url)


def test_races(xrootd: Any, base: str) -> None:
    stores = writers(xrootd.url)
    for number in range(20):
        url = f"{base}{number}"
        outcomes = race(
            stores,
            lambda store, who, url=url: store.write(url, b"writer %d" % who, overwrite=False),  # type: ignore[misc]
        )
        assert_one_winner(stores[0], url, outcomes, lambda who: b"writer %d" % who)


def test_checksums_that_are_not_stored(xrootd: Any, base: str) -> None:
    # XRootD that computes several checksums at once loses some of the questions, and puts others off by 30 s.
    store = store_for(xrootd.url)
    store.write(f"{base}first", b"first")
    name = base.removeprefix(xrootd.url)
    folder = xrootd.folder / "data" / "rw" / name
    contents = {f"{number:03}": bytes([number % 251]) * 100_000 for number in range(240)}
    for key, content in contents.items():
        path = folder / key
        path.write_bytes(content)
        path.chmod(0o644)
    exchanges: list[Exchange] = []
    add_observer(exchanges.append)
    try:
        with ThreadPoolExecutor(16) as threads:
            read = list(threads.map(lambda key: store.read(base + key), contents))
    finally:
        remove_observer(exchanges.append)
    assert read == list(contents.values())
    assert max(exchange.seconds for exchange in exchanges) < 5


def test_requests_of_a_small_write(xrootd: Any, base: str) -> None:
    store = store_for(xrootd.url)
    store.write(f"{base}first", b"first")
    exchanges: list[Exchange] = []
    add_observer(exchanges.append)
    try:
        store.write(f"{base}second", b"x" * 100_000)
        store.write(f"{base}second", b"y" * 100_000)
    finally:
        remove_observer(exchanges.append)
    assert [(each.method, each.status) for each in exchanges] == [
        ("PUT", 307),
        ("PUT", 201),
        ("MOVE", 201),
    ] * 2
    assert store.read(f"{base}second") == b"y" * 100_000


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_opening_by_fsspec_in_a_new_directory(xrootd: Any, base: str, size: int) -> None:
    """An upload makes the directories above it here, too, so that nothing has to be made for it."""
    store = store_for(xrootd.url)
    store.exists(base)
    assert store.makes_parents
    with fsspec.open(f"{base}new/directory/{size}", "wb") as file:
        file.write(bytes(size))
    assert store.read(f"{base}new/directory/{size}") == bytes(size)


def test_name_that_would_become_another(xrootd: Any, base: str) -> None:
    store = store_for(base)
    store.write(base + "a", b"theirs")
    with pytest.raises(errors.UnsupportedError, match="question mark"):
        store.write(base + "a%3Fb", b"mine")
    assert store.read(base + "a") == b"theirs"
    assert [entry.url for entry in store.list_directory(base)] == [base + "a"]
