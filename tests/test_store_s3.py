"""The S3 store on a real server, judged by the suite of all stores."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from typing import Any
from urllib.parse import quote

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.s3 import s3_settings_for
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.s3 import copying, part_copies
from lsst.daf.butler_dcache.s3.address import parse
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from lsst.daf.butler_dcache.store.s3_store import S3Store
from racing import WRITERS, assert_one_winner, race
from store_conformance import LARGE, SMALL, StoreConformance

BEYOND_ONE_PUT = bytes(range(256)) * 70_000
"""More than what is sent with one request where nothing is said of its being created."""


@pytest.fixture
def base(s3_url: str) -> str:
    return s3_url


@pytest.fixture
def store(s3: str) -> Store:
    return store_for(s3)


class TestS3(StoreConformance):
    """All of it."""

    is_tree = False
    tells_what_was_missing = False
    pieces_of_a_stream = 60
    checksum_of_copies = "md5"


def writers(url: str) -> list[S3Store]:
    """As many clients as there would be processes, each with connections of its own."""
    address = parse(url)
    return [S3Store(s3_settings_for(address.profile, address.bucket)) for _ in range(WRITERS)]


def test_races_of_small_files(s3: str, base: str) -> None:
    stores = writers(s3)
    for number in range(20):
        url = f"{base}{number}"
        outcomes = race(
            stores,
            lambda store, who, url=url: store.write(url, b"writer %d" % who, overwrite=False),  # type: ignore[misc]
        )
        assert_one_winner(stores[0], url, outcomes, lambda who: b"writer %d" % who)


def test_races_of_large_files(s3: str, base: str) -> None:
    stores = writers(s3)
    for number in range(3):
        url = f"{base}{number}"
        outcomes = race(
            stores,
            lambda store, who, url=url: store.write(url, BEYOND_ONE_PUT + b"%d" % who, overwrite=False),  # type: ignore[misc]
        )
        assert_one_winner(stores[0], url, outcomes, lambda who: BEYOND_ONE_PUT + b"%d" % who)


def test_races_of_every_kind(s3: str, base: str) -> None:
    """One wins, whatever the others do: write, stream, copy or rename."""
    stores = writers(s3)
    for number in range(8):
        url = f"{base}{number}"
        stores[2].write(f"{url}-2", b"2" * 1000)
        stores[3].write(f"{url}-3", b"3" * 1000)

        def create(store: S3Store, who: int, url: str = url) -> None:
            if who == 0:
                store.write(url, b"0" * 1000, overwrite=False)
            elif who == 1:
                writer = store.open_writer(url, overwrite=False)
                writer.write(b"1" * 1000)
                writer.commit()
            elif who == 2:
                store.copy(f"{url}-2", url)
            else:
                store.move(f"{url}-3", url)

        outcomes = race(stores, create)
        assert_one_winner(stores[0], url, outcomes, lambda who: b"%d" % who * 1000)
        assert stores[0].exists(f"{url}-3") is (outcomes[3] is not None)


def test_streams_that_must_not_replace(store: Store, base: str) -> None:
    for _ in range(2):
        writer = store.open_writer(f"{base}file", overwrite=False)
        for at in range(0, len(BEYOND_ONE_PUT), 1 << 20):
            writer.write(BEYOND_ONE_PUT[at : at + (1 << 20)])
        if _:
            with pytest.raises(errors.ResourceExistsError):
                writer.commit()
        else:
            assert writer.commit().size == len(BEYOND_ONE_PUT)
    assert store.read(f"{base}file") == BEYOND_ONE_PUT
    assert {entry.name for entry in store.list_directory(base)} == {"file"}
    assert list(store.unfinished_uploads(base)) == []


def test_creating_replaces_nothing_that_is_large(store: Store, base: str) -> None:
    store.write(f"{base}a", BEYOND_ONE_PUT)
    assert store.copy(f"{base}a", f"{base}b").size == len(BEYOND_ONE_PUT)
    store.move(f"{base}b", f"{base}c")
    assert not store.exists(f"{base}b")
    assert store.read(f"{base}c") == BEYOND_ONE_PUT
    for act in (store.copy, store.move):
        with pytest.raises(errors.ResourceExistsError):
            act(f"{base}a", f"{base}c")
    assert store.read(f"{base}a") == BEYOND_ONE_PUT


KEYS = [
    "hash#and?question",
    "per%cent%2Fsign",
    "d\N{LATIN SMALL LETTER E WITH ACUTE}j\N{LATIN SMALL LETTER A WITH GRAVE} \N{SNOWMAN}",
    "plus+and space&<>\"'",
    "tab\there",
]


@pytest.mark.parametrize("key", KEYS)
def test_unusual_keys(store: Store, base: str, key: str) -> None:
    url = base + quote(key)
    assert store.exists(url) is False
    store.write(url, SMALL)
    assert store.stat(url).url == url
    assert store.read(url) == SMALL
    store.copy(url, url + "-copy")
    assert store.exists_many([url, url + "-copy", url + "-none"]) == {
        url: True,
        url + "-copy": True,
        url + "-none": False,
    }
    assert store.remove_many([url, url + "-none"]) == {url: None, url + "-none": None}
    assert store.exists(url) is False
    store.remove(url + "-copy")
    assert store.exists(url + "-copy") is False


def test_keys_of_the_greatest_length(store: Store, base: str) -> None:
    room = 1024 - len(parse(base).key.encode())
    name = "".join("d/" if place % 200 == 0 else "n" for place in range(room))[: room - 1] + "e"
    url = base + name[:room]
    assert len(parse(url).key.encode()) == 1024
    store.write(url, SMALL)
    assert store.read(url) == SMALL
    store.write(url, LARGE)
    with pytest.raises(errors.ResourceExistsError):
        store.write(url, SMALL, overwrite=False)
    assert store.remove_many([url]) == {url: None}
    assert not store.exists(url)


def test_keys_that_are_too_long(store: Store, base: str) -> None:
    url = base + "n" * (1025 - len(parse(base).key.encode()))
    for ask in (store.exists, store.stat, store.read, store.remove, store.make_directory, store.open_reader):
        with pytest.raises(errors.UnsupportedError, match="1024"):
            ask(url)
    for act in (
        lambda: store.write(url, b""),
        lambda: store.open_writer(url),
        lambda: store.exists_many([url]),
        lambda: store.remove_many([url]),
        lambda: store.presign(url, "GET", 60),
        lambda: store.copy(base + "a", url),
        lambda: store.move(url, base + "a"),
    ):
        with pytest.raises(errors.UnsupportedError, match="1024"):
            act()


def test_directories_are_not_opened(store: Store, base: str) -> None:
    store.write(f"{base}sub/file", SMALL)
    for url in (f"{base}sub", f"{base}sub/"):
        with pytest.raises(errors.ResourceIsDirectoryError):
            store.open_reader(url)
        with pytest.raises(errors.ResourceIsDirectoryError):
            store.read_ranges(url, [ByteRange(0, 1)])


def test_missing_bucket(s3: str) -> None:
    address = parse(s3)
    where = f"{address.profile}@" if address.profile else ""
    url = f"s3://{where}there-is-no-such-bucket/a"
    store = store_for(url)
    for ask in (store.stat, store.read, store.remove, lambda one: store.list_directory(one + "/")):
        with pytest.raises(errors.ResourceNotFoundError, match="bucket"):
            ask(url)
    assert store.exists(url) is False
    assert set(store.exists_many([f"{url}{number}" for number in range(5)]).values()) == {False}
    (error,) = store.remove_many([url]).values()
    assert isinstance(error, errors.ResourceNotFoundError)


def test_no_credentials_for_others(store: Store, base: str) -> None:
    with pytest.raises(errors.UnsupportedError, match="presign"):
        store.delegate(base, activities=(), lifetime_seconds=60)
    with pytest.raises(errors.UnsupportedError, match="presign"):
        store.mint(base)


def test_one_store_for_each_bucket_and_account(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_for(s3)
    assert store_for(s3 + "a/b#fragment") is store
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert store_for(s3) is not store
    monkeypatch.undo()
    assert store_for(s3) is store
    reset_stores()
    assert store_for(s3) is not store


def test_sizes_by_whatever_profile(seaweed: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two profiles may lead to one bucket: what one of them writes the other one must not know otherwise."""
    place = seaweed.url.removeprefix("http://")
    monkeypatch.setenv(
        "LSST_RESOURCES_S3_PROFILE_second", f"http://{seaweed.access_key}:{seaweed.secret_key}@{place}"
    )
    other = base.replace("s3://", "s3://second@", 1)
    store_for(base).write(f"{base}file", b"1")
    assert store_for(other).info(f"{other}file").url == f"{other}file"
    store_for(other).write(f"{other}file", b"22")
    assert store_for(base).size(f"{base}file") == 2


def test_webdav_does_without_boto() -> None:
    code = (
        "import sys; from lsst.daf.butler_dcache.store.registry import store_for;"
        "store_for('davs://localhost:2880/'); print([name for name in ('boto3', 'botocore', 'awscrt')"
        " if name in sys.modules])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LSST_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_listing_while_it_changes(store: Store, base: str) -> None:
    """What is there all the time is listed, whatever comes and goes meanwhile."""
    stay = [f"{base}stay-{number:04}" for number in range(1200)]
    come_and_go = {f"{base}a-{number:02}" for number in range(50)}
    for url in stay:
        store.write(url, b"")
    done = threading.Event()

    def disturb() -> None:
        number = 0
        while not done.is_set():
            store.write(f"{base}a-{number % 50:02}", b"")
            store.remove_many([f"{base}a-{(number + 25) % 50:02}"])
            number += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            entries = [entry.url for entry in store.list_directory(base)]
            assert len(entries) == len(set(entries))
            assert set(stay) <= set(entries) <= {*stay, *come_and_go}
            assert all(store.exists_many(stay).values())
    finally:
        done.set()
        thread.join()


def test_move_of_what_changes_meanwhile(store: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is removed only if it is still what was copied."""
    store.write(f"{base}a", b"older")
    compare = store._copies._compare

    def write_meanwhile(*args: Any) -> None:
        compare(*args)
        store.write(f"{base}a", b"newer")

    monkeypatch.setattr(store._copies, "_compare", write_meanwhile)
    with pytest.raises(errors.UploadDisplacedError):
        store.move(f"{base}a", f"{base}b", overwrite=True)
    assert store.read(f"{base}a") == b"newer"
    assert store.read(f"{base}b") == b"older"


def test_copy_in_parts(store: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above 5 GiB, where no single request copies an object."""
    monkeypatch.setattr(copying, "_MOST_BY_COPY_OBJECT", 1 << 20)
    monkeypatch.setattr(part_copies, "_PART_BYTES", 6 << 20)
    content = os.urandom(1 << 20) * 17 + b"end"
    store.write(f"{base}a", io.BytesIO(content))
    assert store.copy(f"{base}a", f"{base}b", overwrite=True).size == len(content)
    assert store.read(f"{base}b") == content
    store.move(f"{base}b", f"{base}c", overwrite=True)
    assert store.read(f"{base}c") == content
    assert not store.exists(f"{base}b")
    assert list(store.unfinished_uploads(base)) == []
