"""``overwrite=False``: of several writers one is told success, and the name holds what that one wrote."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.store.exclusion import Exclusion
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.webdav.addresses import lock_name
from racing import WRITERS, assert_one_winner, race, writers
from request_counter import counted
from test_store_webdav import endpoint


def small(number: int) -> bytes:
    return b"writer %d" % number


def large(number: int) -> bytes:
    return b"writer %d" % number * 10000


@pytest.mark.parametrize(("content", "races"), [(small, 80), (large, 20)], ids=["small", "large"])
def test_races_with_a_macaroon(
    dcache: Any, base_url: str, content: Callable[[int], bytes], races: int
) -> None:
    stores = writers(base_url)
    for number in range(races):
        url = f"{base_url}{number}"
        outcomes = race(stores, lambda store, who, url=url: store.write(url, content(who), overwrite=False))  # type: ignore[misc]
        assert_one_winner(stores[0], url, outcomes, content)
    assert len(stores[0].list_directory(base_url)) == races


def test_races_of_equal_content(dcache: Any, base_url: str) -> None:
    """A loser is not fooled by a file that looks like its own."""
    stores = writers(base_url)
    for number in range(10):
        url = f"{base_url}{number}"
        outcomes = race(stores, lambda store, who, url=url: store.write(url, b"same", overwrite=False))  # type: ignore[misc]
        assert_one_winner(stores[0], url, outcomes, lambda who: b"same")


def test_races_of_renames(dcache: Any, base_url: str) -> None:
    stores = writers(base_url)
    for number in range(10):
        for who, store in enumerate(stores):
            store.write(f"{base_url}{number}-from-{who}", small(who))
        url = f"{base_url}{number}"
        outcomes = race(stores, lambda store, who, url=url: store.move(f"{url}-from-{who}", url))  # type: ignore[misc]
        assert_one_winner(stores[0], url, outcomes, small)


def test_races_under_a_lock(tmp_path: Path) -> None:
    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path) as store:
        stores = writers(server.url)
        for number in range(20):
            url = f"{server.url}races/{number}"
            outcomes = race(stores, lambda one, who, url=url: one.write(url, small(who), overwrite=False))  # type: ignore[misc]
            assert_one_winner(store, url, outcomes, small)
        assert len(store.list_directory(server.url + "races/")) == 20


def test_replacing_writers_all_succeed(dcache: Any, base_url: str) -> None:
    stores = writers(base_url)
    for number in range(10):
        url = f"{base_url}{number}"
        outcomes = race(stores, lambda store, who, url=url: store.write(url, large(who)))  # type: ignore[misc]
        assert [one for one in outcomes if one is not None] == []
        assert stores[0].read(url) in [large(who) for who in range(WRITERS)]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Any, Store]]:
    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path) as store:
        yield server, store


def test_lock_that_somebody_holds(plain: tuple[Any, WebdavStore]) -> None:
    server, store = plain
    url = server.url + "file"
    lock = lock_name(url)
    store.make_directory(lock)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            store.remove(lock)

    store._publisher._exclusion = Exclusion(store._door, store._rights, sleep)
    store.write(url, b"mine", overwrite=False)
    assert len(waits) == 3
    assert store.read(url) == b"mine"
    assert store.exists(lock) is False


def test_lock_that_is_never_given_back(
    plain: tuple[Any, WebdavStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, store = plain
    monkeypatch.setattr("lsst.daf.butler_dcache.store.exclusion._LOCK_WAIT_SECONDS", 0.02)
    url = server.url + "file"
    store.make_directory(lock_name(url))
    with pytest.raises(errors.ServerBusyError, match=r"holds the lock.*remove the empty directory"):
        store.write(url, b"mine", overwrite=False)
    assert [entry.url for entry in store.list_directory(server.url)] == [lock_name(url) + "/"]


def test_loser_under_a_lock_does_not_wait(plain: tuple[Any, WebdavStore]) -> None:
    server, store = plain
    url = server.url + "file"
    store.write(url, b"theirs")
    store.make_directory(lock_name(url))
    with pytest.raises(FileExistsError):
        store.write(url, b"mine", overwrite=False)


@pytest.mark.parametrize("status", [403, 412, 500])
def test_a_loser_is_one_only_after_looking(embedded: Any, status: int) -> None:
    """The refusal of a rename has other causes too."""
    store = WebdavStore(settings_for(embedded.url))
    url = f"{embedded.url}{uuid.uuid4().hex}"
    embedded.faults.add(Fault("status", method="MOVE", status=status, reason="Refused", times=None))
    with pytest.raises(errors.DcacheError) as caught:
        store.write(url, b"mine", overwrite=False)
    embedded.faults.clear()
    assert status == 412 or not isinstance(caught.value, FileExistsError)
    assert store.exists(url) is False


def test_lost_answer_of_the_winner(embedded: Any) -> None:
    store = WebdavStore(settings_for(embedded.url))
    url = f"{embedded.url}{uuid.uuid4().hex}"
    embedded.faults.add(Fault("lose_answer", method="MOVE"))
    assert store.write(url, b"mine", overwrite=False).size == 4
    assert store.read(url) == b"mine"


def test_server_that_cannot(embedded: Any, tmp_path: Path) -> None:
    url = f"{embedded.url}{uuid.uuid4().hex}"
    with endpoint(embedded, tmp_path, dcache={"dialect": "generic"}) as store:
        with (
            counted(embedded) as counter,
            pytest.raises(errors.UnsupportedError, match="exclusive: best_effort"),
        ):
            store.write(url, b"x", overwrite=False)
        assert counter.records == []
    with endpoint(embedded, tmp_path, dcache={"dialect": "generic", "exclusive": "best_effort"}) as store:
        store.write(url, b"x", overwrite=False)
        with pytest.raises(FileExistsError):
            store.write(url, b"y", overwrite=False)
        assert store.read(url) == b"x"


def test_rename_of_nothing_that_is_refused(embedded: Any) -> None:
    """That the source is gone and the target there does not make a refusal a success."""
    store = WebdavStore(settings_for(embedded.url))
    url = f"{embedded.url}{uuid.uuid4().hex}"
    store.write(url, b"theirs")
    embedded.faults.add(Fault("status", method="MOVE", status=403))
    with pytest.raises(FileExistsError):
        store.move(url + "-missing", url)
    embedded.faults.clear()
    assert store.read(url) == b"theirs"
