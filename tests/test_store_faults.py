"""What the store does when something goes wrong: never wrong bytes, never a lost file, always the cause."""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from embedded_client import Client
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.auth.credential import refused
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.space import Space
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.tree import remove_tree
from request_counter import counted
from test_store_webdav import endpoint, with_frontend

OLD = b"what was there before"
SMALL = b"new content"
LARGE = bytes(range(256)) * 1200

# What the server says when a mover has ended (protocol page, section 2.5).
NO_LONGER_VALID = {"status": 307, "reason": "Request is no longer valid"}


@pytest.fixture(params=["frontend", "door"])
def store(request: pytest.FixtureRequest, embedded: Any, tmp_path: Path) -> Iterator[WebdavStore]:
    """The client, renaming by the frontend or by the door."""
    changes = with_frontend(embedded) if request.param == "frontend" else {}
    embedded.faults.clear()
    with endpoint(embedded, tmp_path, **changes) as made:
        yield made  # type: ignore[misc]
    embedded.faults.clear()


@pytest.fixture
def base(store: WebdavStore, embedded: Any) -> str:
    return f"{embedded.url}{uuid.uuid4().hex[:12]}/"


@pytest.fixture
def url(store: WebdavStore, base: str) -> str:
    """A file that exists, beside which nothing must stay."""
    store.write(base + "file", OLD)
    return base + "file"


def assert_untouched(store: WebdavStore, url: str) -> None:
    assert store.read(url) == OLD
    assert [entry.url for entry in store.list_directory(url.rpartition("/")[0] + "/")] == [url]


# Reading


def test_download_that_breaks_off_is_read_anew(store: WebdavStore, embedded: Any, base: str) -> None:
    store.write(base + "file", LARGE)
    fault = embedded.faults.add(Fault("cut_download", server="pool", at_byte=1000))
    assert store.read(base + "file") == LARGE
    assert fault.hits == 1
    embedded.faults.add(Fault("cut_download", server="pool", at_byte=200000))
    target = io.BytesIO(b"head")
    target.seek(4)
    store.download(base + "file", target)
    assert target.getvalue() == b"head" + LARGE


BIG = os.urandom(2_500_000)


@pytest.mark.parametrize("kind", ["cut_download", "stall_download"])
def test_download_goes_on_where_it_broke_off(
    store: WebdavStore, embedded: Any, base: str, tmp_path: Path, kind: Any
) -> None:
    store.write(base + "file", BIG)
    breaks = [200_000, 1_234_567, 1_000_000]  # from the beginning of each answer
    with endpoint(embedded, tmp_path, dcache={"idle_timeout_seconds": 0.3}) as impatient:
        for read in (
            lambda: impatient.read(base + "file"),
            lambda: b"".join(impatient.open_reader(base + "file").stream()),
        ):
            for at_byte in breaks:
                embedded.faults.add(Fault(kind, server="pool", at_byte=at_byte, seconds=2))
            seen = len(embedded.transcript())
            assert read() == BIG
            answers = [one for one in embedded.transcript()[seen:] if one.server == "pool"]
            assert [one.status for one in answers][1:] == [206, 206, 206]
            if kind == "cut_download":
                assert sum(one.sent for one in answers) == len(BIG)


def test_download_of_a_file_that_is_replaced_begins_anew(
    store: WebdavStore, embedded: Any, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(base + "file", BIG)
    other = bytes(len(BIG))
    door = store._door
    asked = []
    original = door.open

    def replacing(method: str, *args: Any, **options: Any) -> Any:
        if method == "GET":
            asked.append(method)
            if len(asked) == 2:
                embedded.place(base.partition("/data/")[2] + "file", other)
        return original(method, *args, **options)

    monkeypatch.setattr(door, "open", replacing)
    embedded.faults.add(Fault("cut_download", server="pool", at_byte=1_500_000))
    assert store.read(base + "file") == other


def test_pool_that_fails_leads_to_another(store: WebdavStore, embedded: Any, url: str) -> None:
    for status, reason in ((500, "null"), (503, "")):
        embedded.faults.add(Fault("status", server="pool", status=status, reason=reason))
        assert store.read(url) == OLD
        embedded.faults.add(Fault("status", server="pool", status=status, reason=reason))
        assert store.read_ranges(url, [ByteRange(0, 4)]) == [OLD[:4]]


def test_what_lasts_is_not_asked_again(store: WebdavStore, embedded: Any, url: str) -> None:
    for text in ("File is broken", "File upload not yet completed"):
        fault = embedded.faults.add(Fault("status", method="GET", reason=text, server="door", times=None))
        with pytest.raises(errors.FileBrokenError):
            store.read(url)
        assert fault.hits == 1
        embedded.faults.clear()
    embedded.faults.add(Fault("status", method="GET", reason="null", server="door", times=2))
    assert store.read(url) == OLD


def test_download_that_always_breaks_off(store: WebdavStore, embedded: Any, base: str) -> None:
    store.write(base + "file", LARGE)
    embedded.faults.add(Fault("cut_download", server="pool", at_byte=1000, times=None))
    with pytest.raises(errors.DoorUnavailableError, match="lost after"):
        store.read(base + "file")
    with pytest.raises(ConnectionError):
        store.read_ranges(base + "file", [ByteRange(0, 5000)])


@pytest.mark.parametrize("kind", ["corrupt_download", "wrong_digest"])
def test_other_bytes_than_those_of_the_file(store: WebdavStore, embedded: Any, url: str, kind: Any) -> None:
    embedded.faults.add(Fault(kind, server="pool", at_byte=3))
    with pytest.raises(errors.IntegrityError, match="adler32"):
        store.read(url)
    embedded.faults.add(Fault(kind, server="pool", at_byte=3))
    with pytest.raises(errors.IntegrityError, match="adler32"):
        store.download(url, io.BytesIO())
    damaged = embedded.faults.add(Fault(kind, server="pool", at_byte=3, times=None))
    with pytest.raises(errors.IntegrityError, match="adler32"):
        store.copy(url, url + "-copy")
    # By the servers twice, and then through this process, whose error is told.
    assert damaged.hits == 3
    embedded.faults.remove([damaged])
    assert store.exists(url + "-copy") is False
    assert store.read(url) == OLD


def test_server_that_ignores_ranges(store: WebdavStore, embedded: Any, base: str) -> None:
    store.write(base + "file", LARGE)
    embedded.faults.add(Fault("ignore_range", server="pool", times=None))
    wanted = [ByteRange(5, 9), ByteRange(100000, 100010)]
    assert store.read_ranges(base + "file", wanted) == [LARGE[5:9], LARGE[100000:100010]]
    reader = store.open_reader(base + "file")
    assert reader.read_ranges(wanted[:1]) == [LARGE[5:9]]
    with pytest.raises(errors.ProtocolError, match="ignored the range"):
        list(reader.stream(100))
    reader.close()


def test_dead_pool_url_leads_back_to_the_door(store: WebdavStore, embedded: Any, url: str) -> None:
    gone = Fault("status", server="pool", headers={"Location": "/elsewhere"}, **NO_LONGER_VALID)  # type: ignore[arg-type]
    embedded.faults.add(gone)
    with counted(embedded) as counter:
        assert store.read(url) == OLD
    assert counter.methods() == ["door GET", "pool GET", "door GET", "pool GET"]
    embedded.faults.add(Fault("status", server="pool", status=400, reason="Request is no longer valid."))
    assert store.read_ranges(url, [ByteRange(0, 4)]) == [OLD[:4]]
    embedded.faults.add(Fault("status", server="pool", times=None, **NO_LONGER_VALID))  # type: ignore[arg-type]
    with counted(embedded) as counter, pytest.raises(errors.DcacheError):
        store.read(url)
    assert counter.at_door <= 3


def test_pool_that_cannot_be_reached(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("refuse_pool"))
    assert store.read(url) == OLD
    embedded.faults.add(Fault("refuse_pool", times=None))
    with pytest.raises(ConnectionError):
        store.read(url)


def test_reader_survives_a_lost_connection(store: WebdavStore, embedded: Any, base: str) -> None:
    store.write(base + "file", LARGE)
    reader = store.open_reader(base + "file")
    assert reader.read_ranges([ByteRange(0, 4)]) == [LARGE[:4]]
    embedded.faults.add(Fault("drop", server="pool"))
    assert reader.read_ranges([ByteRange(4, 8)]) == [LARGE[4:8]]
    embedded.faults.add(Fault("cut_download", server="pool", at_byte=150000))
    assert b"".join(reader.stream()) == LARGE
    reader.close()


def test_reader_never_mixes_two_files(store: WebdavStore, embedded: Any, url: str) -> None:
    reader = store.open_reader(url)
    assert reader.read_ranges([ByteRange(0, 4)]) == [OLD[:4]]
    store.write(url, OLD[::-1])
    # The replica that is open can be read on (protocol page, section 3.7).
    assert reader.read_ranges([ByteRange(4, 8)]) == [OLD[4:8]]
    embedded.faults.add(Fault("drop", server="pool"))
    with pytest.raises(errors.IntegrityError, match="replaced"):
        reader.read_ranges([ByteRange(8, 12)])
    reader.close()


def test_unencrypted_pool_of_an_encrypted_door(embedded: Any, url: str, tmp_path: Path) -> None:
    embedded.faults.clear()
    with endpoint(embedded, tmp_path, dcache={"http_pools": "refuse"}) as store:
        embedded.faults.add(Fault("http_pool", times=None))
        with pytest.raises(errors.ConfigurationError, match="http_pools: allow"):
            store.read(url)
    with endpoint(embedded, tmp_path) as store:
        with counted(embedded) as counter:
            assert store.read(url) == OLD
        assert not any(record["authorization"] for record in counter.records if record["server"] == "pool")
    embedded.faults.clear()


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "Forbidden", PermissionError),
        (404, "Not Found", FileNotFoundError),
        (500, "Internal problem: File is broken", errors.FileBrokenError),
        (500, "Internal problem: File upload not yet completed", errors.FileBrokenError),
        (500, "Internal problem: No pool candidates available for stage", errors.NearlineError),
        (500, "Internal problem: something", errors.ServerError),
    ],
)
def test_cause_of_a_refused_read(
    store: WebdavStore, embedded: Any, url: str, status: int, reason: str, kind: Any
) -> None:
    embedded.faults.add(
        Fault("status", server="door", method="GET", status=status, reason=reason, times=None)
    )
    for ask in (store.read, store.open_reader):
        with pytest.raises(kind) as caught:
            ask(url)
        assert caught.value.status == status
        assert reason in str(caught.value)
        assert url in str(caught.value)


# Writing


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("cut_upload", at_byte=1000, times=None), errors.DcacheError),
        (Fault("corrupt_upload", at_byte=1000, server="pool"), errors.IntegrityError),
        (Fault("keep", at_byte=1000), errors.IntegrityError),
        (Fault("wrong_digest", server="pool"), errors.IntegrityError),
        (Fault("lose_answer", server="pool", method="PUT", times=None), errors.DoorUnavailableError),
        (Fault("status", server="pool", method="PUT", status=500, times=None), errors.ServerError),
        (Fault("status", server="pool", method="PUT", status=507, reason="disk full"), errors.StoreFullError),
        (
            Fault("status", server="pool", method="PUT", status=400, reason="Checksum mismatch (x)"),
            errors.IntegrityError,
        ),
        (Fault("status", server="door", method="PUT", status=403, reason="no"), errors.AccessDeniedError),
        (Fault("refuse_pool", times=None), errors.DoorUnavailableError),
        (Fault("dead_pool", times=None), errors.ServerError),
        (Fault("http_pool", times=None), errors.ConfigurationError),
        (Fault("status", method="MOVE", status=403, times=None), errors.AccessDeniedError),
        (Fault("status", method="MOVE", status=500, times=None), errors.ServerError),
        (Fault("status", method="MOVE", status=409, times=None), errors.ParentNotFoundError),
    ],
    ids=lambda value: value.kind + str(value.status) if isinstance(value, Fault) else value.__name__,
)
def test_failed_write_leaves_everything_as_it_was(
    embedded: Any, tmp_path: Path, fault: Fault, kind: Any
) -> None:
    embedded.faults.clear()
    fault.hits = 0
    with endpoint(embedded, tmp_path, dcache={"http_pools": "refuse"}) as store:
        url = f"{embedded.url}{uuid.uuid4().hex[:12]}/file"
        store.write(url, OLD)
        embedded.faults.add(fault)
        with pytest.raises(kind) as caught:
            store.write(url, io.BytesIO(LARGE))
        assert fault.hits > 0
        assert url in str(caught.value)
        embedded.faults.clear()
        assert store.size(url) == len(OLD)
        assert_untouched(store, url)


@pytest.mark.parametrize("kind", ["cut_upload", "corrupt_upload", "wrong_digest"])
def test_failed_small_write(store: WebdavStore, embedded: Any, url: str, kind: Any) -> None:
    embedded.faults.add(Fault(kind, method="PUT", server="door", at_byte=3, times=None))
    with pytest.raises(errors.DcacheError):
        store.write(url, SMALL)
    embedded.faults.clear()
    assert_untouched(store, url)


def test_interrupted_write(store: WebdavStore, url: str) -> None:
    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise KeyboardInterrupt
            return super().read(1000)

    with pytest.raises(KeyboardInterrupt):
        store.write(url, Interrupting(LARGE))
    assert_untouched(store, url)


def test_local_file_that_shrinks(store: WebdavStore, url: str, tmp_path: Path) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"" if self.tell() > 1000 else super().read(2000)

    with pytest.raises(errors.IntegrityError, match="local file ended"):
        store.write(url, Shrinking(LARGE))
    assert_untouched(store, url)


def test_nothing_is_removed_that_may_be_anothers(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(
        Fault("status", server="pool", method="PUT", status=500, reason="No such file or directory: 0000AB")
    )
    with counted(embedded) as counter, pytest.raises(errors.UploadDisplacedError) as caught:
        store.write(url, LARGE)
    assert "DELETE" not in " ".join(counter.methods())
    assert any("nothing was removed" in note for note in caught.value.__notes__)
    assert store.read(url) == OLD


def test_clean_up_that_fails_does_not_hide_the_cause(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("keep", at_byte=1000))
    embedded.faults.add(Fault("status", method="DELETE", status=403, times=None))
    with pytest.raises(errors.IntegrityError) as caught:
        store.write(url, LARGE)
    assert any("could not be removed" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_lost_answer_to_the_rename(store: WebdavStore, embedded: Any, url: str, data: bytes) -> None:
    """It has happened, so that the write succeeds."""
    fault = embedded.faults.add(
        Fault("lose_answer", method="POST" if store.settings.frontend_url else "MOVE")
    )
    assert store.write(url, data).size == len(data)
    assert fault.hits == 1
    assert store.read(url) == data


def test_rename_whose_time_is_over(embedded: Any, url: str, tmp_path: Path) -> None:
    """It may have happened or not, and there is no time left to look."""
    with endpoint(embedded, tmp_path, dcache={"total_timeout_seconds": 1.0}) as store:
        embedded.faults.add(Fault("stall", method="MOVE", seconds=2))
        with pytest.raises(errors.OutcomeUnknownError) as caught:
            store.write(url, SMALL)
    assert isinstance(caught.value.__cause__, errors.DeadlineError)


def test_rename_that_never_reached_the_server(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("drop", method="POST" if store.settings.frontend_url else "MOVE"))
    store.write(url, SMALL)
    assert store.read(url) == SMALL


def test_frontend_out_of_service(embedded: Any, url: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, **with_frontend(embedded)) as store:
        embedded.faults.add(Fault("status", server="frontend", status=503, times=None))
        store.write(url, SMALL)
        assert store.read(url) == SMALL
        store.remove(url)
        assert store.exists(url) is False


def test_dead_upload_url_leads_back_to_the_door(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("status", server="pool", method="PUT", **NO_LONGER_VALID))  # type: ignore[arg-type]
    store.write(url, io.BytesIO(LARGE))
    assert store.read(url) == LARGE


def test_in_place_failure_leaves_no_ruin(embedded: Any, base: str, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, dcache={"publish": "in_place"}) as store:
        embedded.faults.add(Fault("cut_upload", server="pool", at_byte=1000))
        with pytest.raises(errors.DcacheError):
            store.write(base + "file", LARGE)
        assert store.exists(base + "file") is False


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_in_place_refusal_removes_nothing(
    embedded: Any, url: str, base: str, tmp_path: Path, data: bytes
) -> None:
    """A refused upload has no effect, and neither has what comes after it."""
    with endpoint(embedded, tmp_path, dcache={"publish": "in_place"}) as store:
        with pytest.raises(IsADirectoryError):
            store.write(base.rstrip("/"), data)
        embedded.faults.add(Fault("status", server="door", method="PUT", status=403))
        with pytest.raises(PermissionError):
            store.write(url, data)
        assert_untouched(store, url)


def test_rename_during_a_short_outage(store: WebdavStore, embedded: Any, url: str) -> None:
    fault = embedded.faults.add(Fault("status", method="MOVE", status=503))
    if store.settings.frontend_url:
        embedded.faults.add(Fault("status", server="frontend", status=503))
    store.write(url, LARGE)
    assert fault.hits == 1
    assert store.read(url) == LARGE


def test_directory_whose_making_was_not_answered(store: WebdavStore, embedded: Any, base: str) -> None:
    embedded.faults.add(Fault("lose_answer", method="PUT"))
    store.make_directory(base + "a/b/")
    assert store.list_directory(base + "a/b/") == []
    embedded.faults.add(Fault("drop", method="MKCOL"))
    store.make_directory(base + "a/c/")
    assert store.stat(base + "a/c/").is_directory


def test_directory_of_one_who_may_not_remove(embedded: Any, base: str, tmp_path: Path) -> None:
    """The file by which directories are made would stay."""
    token = Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip()
    token = Macaroon.parse(token).without(Activity.DELETE)
    with endpoint(embedded, tmp_path, token=token) as store:
        for path in ("a/b/c/", "a/b/d/", "a/b/c/"):
            store.make_directory(base + path)
        assert [entry.name for entry in store.list_directory(base + "a/b/")] == ["c", "d"]
        assert store.list_directory(base + "a/b/c/") == []
        with pytest.raises(PermissionError):
            store.remove(base + "a/b/c/")


def test_directory_of_one_whose_removal_is_refused(embedded: Any, base: str, tmp_path: Path) -> None:
    """A token that is no macaroon does not tell; the directory is there all the same."""
    password = Path(embedded.password_files["alice"]).read_text().strip()
    account = {"token": None, "user_name": "alice", "user_password": password}
    with endpoint(embedded, tmp_path, **account) as store:
        fault = embedded.faults.add(Fault("status", method="DELETE", status=403, times=None))
        store.make_directory(base + "a/b/")
        store.make_directory(base + "x/y/z/")
        assert fault.hits == 1
        embedded.faults.clear()
        assert store.stat(base + "a/b/").is_directory
        assert store.list_directory(base + "x/y/z/") == []


# Looking, listing, removing


@pytest.mark.parametrize(
    ("status", "kind"), [(403, PermissionError), (500, errors.ServerError), (503, ConnectionError)]
)
def test_nobody_is_called_absent_without_being_told(
    store: WebdavStore, embedded: Any, url: str, status: int, kind: Any
) -> None:
    embedded.faults.add(Fault("status", method="PROPFIND", status=status, times=None))
    for ask in (store.exists, store.stat):
        with pytest.raises(kind):
            ask(url)
    with pytest.raises(kind):
        store.exists_many([url, url + "2", url + "3", url + "4"])


def test_refused_credential_is_sent_once(tmp_path: Path) -> None:
    """On a server of its own: three refusals block the host there."""
    with EmbeddedDcache() as server, endpoint(server, tmp_path, token="no-macaroon") as store:
        with counted(server) as counter:
            with pytest.raises(errors.CredentialError):
                store.exists_many([f"{server.url}{number}/{n}" for number in range(20) for n in range(5)])
            with pytest.raises(errors.CredentialError):
                store.exists(server.url)
            results = store.remove_many([f"{server.url}{number}" for number in range(20)])
        assert all(isinstance(result, errors.CredentialError) for result in results.values())
        assert 1 <= len(counter.records) <= 2


def test_short_listing(store: WebdavStore, embedded: Any, base: str) -> None:
    urls = [f"{base}{number}" for number in range(5)]
    for url in urls:
        store.write(url, SMALL)
    for kind in ("truncate_listing", "unlistable"):
        embedded.faults.add(Fault(kind, at_byte=2))  # type: ignore[arg-type]
        assert all(store.exists_many(urls).values())


@pytest.mark.parametrize("trouble", ["refused", "slow"])
def test_many_names_without_a_listing(
    embedded: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A directory that cannot be listed, or not in time, is no reason to fail, and not tried each time."""
    monkeypatch.setattr("lsst.daf.butler_dcache.store.bulk._LISTING_SECONDS", 0.3)
    urls = [f"{base}{number}" for number in range(30)]
    with endpoint(embedded, tmp_path) as store:
        for url in urls:
            store.write(url, SMALL)
        if trouble == "refused":
            fault = Fault("status", method="PROPFIND", path="*/", status=403, times=None)
        else:
            fault = Fault("stall", method="PROPFIND", path="*/", seconds=3, times=None)
        embedded.faults.add(fault)
        asked = [*urls[:3], base + "none"]
        for _ in range(2):
            assert store.exists_many(asked) == dict.fromkeys(urls[:3], True) | {base + "none": False}
        assert fault.hits == 1
        with counted(embedded) as counter:
            store.exists_many(asked)
        assert counter.at_door == 4
    embedded.faults.clear()


def test_a_few_names_of_a_large_directory(store: WebdavStore, embedded: Any, base: str) -> None:
    """It is listed once; then asking for the few is cheaper, and for many a listing still is."""
    path = unquote(urlsplit(base).path)
    for number in range(100):
        embedded.place(f"{path}{number}", SMALL)
    few, many = [[f"{base}{number}" for number in range(count)] for count in (4, 50)]
    costs = []
    for urls in (few, few, many):
        with counted(embedded) as counter:
            assert all(store.exists_many(urls).values())
        costs.append(counter.at_door)
    assert costs == [1, 4, 1]


def test_unlistable_directory_is_not_empty(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("unlistable", times=None))
    with pytest.raises(PermissionError):
        store.list_directory(url.rpartition("/")[0] + "/")


def test_refused_removal(store: WebdavStore, embedded: Any, base: str) -> None:
    urls = [f"{base}{name}" for name in ("a", "b", "c")]
    for url in urls:
        store.write(url, SMALL)
    embedded.faults.add(Fault("status", method="DELETE", path="*/b", status=403, times=None))
    results = store.remove_many(urls)
    assert results[urls[0]] is results[urls[2]] is None
    assert isinstance(results[urls[1]], PermissionError)
    with pytest.raises(PermissionError):
        store.remove(urls[1])
    embedded.faults.clear()
    assert store.exists_many(urls) == {urls[0]: False, urls[1]: True, urls[2]: False}


def test_lost_answer_to_a_removal(store: WebdavStore, embedded: Any, url: str) -> None:
    embedded.faults.add(Fault("lose_answer", method="DELETE"))
    store.remove(url)
    assert store.exists(url) is False


def test_size_is_forgotten_when_a_write_fails(store: WebdavStore, embedded: Any, url: str) -> None:
    assert store.size(url) == len(OLD)
    embedded.faults.add(Fault("keep", at_byte=1000))
    with pytest.raises(errors.IntegrityError):
        store.write(url, LARGE)
    with counted(embedded) as counter:
        assert store.size(url) == len(OLD)
    assert counter.at_door == 1


def test_size_by_another_name_of_the_door(embedded: Any, base: str, tmp_path: Path) -> None:
    """A rewrite by one name is known by the others, as far as the site's file connects them."""
    other = base.replace("localhost", "127.0.0.1")
    door = f"https://{urlsplit(other).netloc}/"
    with endpoint(embedded, tmp_path, frontend_base_urls=[door]) as store:
        (first,) = yaml.safe_load(Path(os.environ["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
        second = {**first, "base_url": door}
        del second["frontend_base_urls"]
        both = tmp_path / "both.yaml"
        both.write_text(yaml.safe_dump([first, second]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(both))
            store, by_other_name = store_for(base), store_for(other)
            assert store is not by_other_name
            store.write(base + "file", SMALL)
            by_other_name.write(other + "file", LARGE)
            assert store.size(base + "file") == len(LARGE)
            by_other_name.remove(other + "file")
            with pytest.raises(FileNotFoundError):
                store.size(base + "file")


def test_silent_server(embedded: Any, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, dcache={"total_timeout_seconds": 0.3}) as store:
        embedded.faults.add(Fault("stall", seconds=3, times=None))
        for ask in (store.exists, store.read):
            with pytest.raises(TimeoutError):
                ask(embedded.url + "file")
    embedded.faults.clear()


def test_file_on_tape(tmp_path: Path) -> None:
    with EmbeddedDcache(tape="tape") as server, endpoint(server, tmp_path) as store:
        path = unquote(urlsplit(server.url).path) + "tape/file"
        server.place(path, SMALL, locality="NEARLINE")
        info = store.stat(server.url + "tape/file")
        assert info.locality is not None
        assert info.locality.name == "NEARLINE"
        assert info.size == len(SMALL)


def test_full_directory_that_looks_empty_is_not_removed(store: WebdavStore, embedded: Any, base: str) -> None:
    """A listing that broke looks like an empty directory, and the door would remove all that is in it."""
    store.write(base + "directory/file", OLD)
    store.write(base + "directory/deep/file", OLD)
    embedded.faults.add(Fault("truncate_listing", method="PROPFIND", path="*/directory*", at_byte=0))
    with pytest.raises(OSError, match="directory"):
        store.remove(base + "directory/")
    embedded.faults.clear()
    assert store.read(base + "directory/file") == OLD
    assert store.read(base + "directory/deep/file") == OLD


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[EmbeddedDcache, WebdavStore]]:
    """A store without macaroons and without a frontend: the door alone decides what a removal takes."""
    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path) as made:
        yield server, made  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["truncate_listing", "unlistable"])
@pytest.mark.parametrize("recursive", [False, True])
def test_one_empty_listing_is_not_believed(
    bare: tuple[EmbeddedDcache, WebdavStore], kind: Any, recursive: bool
) -> None:
    server, store = bare
    url = server.url + "directory/"
    store.write(url + "file", OLD)
    store.write(url + "deep/file", OLD)
    server.faults.add(Fault(kind, method="PROPFIND", path="*/directory*", at_byte=0, times=None))
    with pytest.raises(OSError, match="directory"):
        remove_tree(store, url) if recursive else store.remove(url)
    server.faults.clear()
    assert store.read(url + "file") == store.read(url + "deep/file") == OLD
    # Once is no reason to give up.
    server.faults.add(Fault("truncate_listing", method="PROPFIND", path="*/directory*", at_byte=0))
    assert len(store.list_directory(url)) == 2
    remove_tree(store, url)
    assert store.exists(url) is False


def test_refused_blind_removal_takes_no_tree(embedded: Any, base: str, tmp_path: Path) -> None:
    """Should a door refuse by 403 who may not list, an empty listing is not believed either."""
    with endpoint(embedded, tmp_path) as store:
        store.write(base + "directory/file", OLD)
        store.make_directory(base + "empty/")
        for name in ("directory", "empty"):
            embedded.faults.add(Fault("status", method="DELETE", path=f"*/{name}*", status=403))
        embedded.faults.add(
            Fault("truncate_listing", method="PROPFIND", path="*/directory*", at_byte=0, times=None)
        )
        with pytest.raises(OSError, match="directory"):
            store.remove(base + "directory/")
        store.remove(base + "empty/")
        embedded.faults.clear()
        assert store.read(base + "directory/file") == OLD
        assert [entry.name for entry in store.list_directory(base)] == ["directory"]


@pytest.mark.parametrize("with_macaroon", [True, False])
def test_frontend_with_another_root(embedded: Any, tmp_path: Path, with_macaroon: bool) -> None:
    """What it calls by the same name is another file."""
    changes = with_frontend(embedded)
    if not with_macaroon:
        password = Path(embedded.password_files["alice"]).read_text().strip()
        changes |= {"token": None, "user_name": "alice", "user_password": password}
    folder = f"root-{uuid.uuid4().hex[:8]}"
    path = unquote(urlsplit(embedded.url).path) + folder
    decoys = [f"{path}/elsewhere{path}/{name}" for name in ("file", "source")]
    for decoy in decoys:
        embedded.place(decoy, b"decoy")
    with endpoint(embedded, tmp_path, **changes) as store:
        frontend = store._frontends.for_single_files
        assert frontend is not None
        ask = frontend.api.ask
        elsewhere = f"/namespace{path}/elsewhere"
        frontend.api.ask = lambda method, place, **more: ask(
            method, place.replace("/namespace", elsewhere, 1), **more
        )
        if not with_macaroon:
            embedded.faults.add(Fault("status", method="POST", server="door", status=400, times=None))
        base = f"{embedded.url}{folder}/"
        for name in ("file", "source", "target"):
            embedded.place(f"{path}/{name}", OLD)
        store.remove(base + "file")
        store.move(base + "source", base + "target", overwrite=True)
        store.write(base + "new", SMALL)
        assert store.exists_many([base + name for name in ("file", "source", "target", "new")]) == {
            base + "file": False,
            base + "source": False,
            base + "target": True,
            base + "new": True,
        }
        embedded.faults.clear()
        for decoy in decoys:
            assert store.read(f"{embedded.url}{decoy.partition('/data/')[2]}") == b"decoy"


@pytest.mark.parametrize("by", ["write", "look"])
def test_frontend_is_used_once_it_is_proven(embedded: Any, base: str, tmp_path: Path, by: str) -> None:
    password = Path(embedded.password_files["alice"]).read_text().strip()
    account = {"token": None, "user_name": "alice", "user_password": password}
    path = unquote(urlsplit(base).path)
    for number in range(3):
        embedded.place(f"{path}{number}", OLD)
    with endpoint(embedded, tmp_path, **with_frontend(embedded), **account) as store:
        embedded.faults.add(Fault("status", method="POST", server="door", status=400, times=None))
        if by == "write":
            store.write(base + "new", SMALL)
        store.remove(base + "0")
        with counted(embedded) as counter:
            store.remove(base + "1")
            store.move(base + "2", base + "3", overwrite=True)
        assert counter.methods() == ["frontend DELETE", "frontend POST"]
    embedded.faults.clear()


def test_door_that_is_dead(embedded: Any, url: str, tmp_path: Path) -> None:
    """Of several doors of a site the next one is asked."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"https://localhost:{unused.getsockname()[1]}/"
    alive = "https:" + embedded.url.partition(":")[2].partition("/data")[0]
    for doors in ([dead, alive], [alive, dead]):
        with endpoint(embedded, tmp_path, frontend_base_urls=doors) as store:
            several = store._door._doors
            several._liked = tuple(
                next(one for one in several._liked if one.base == door.rstrip("/")) for door in doors
            )
            assert store.exists(url)
            assert store.read(url) == OLD
            store.write(url + "-new", LARGE)
            assert store.read(url + "-new") == LARGE
            store.remove(url + "-new")
    with (
        endpoint(embedded, tmp_path, frontend_base_urls=[dead]) as store,
        pytest.raises(ConnectionError),
    ):
        store.exists(url)


def test_upload_that_has_not_ended_has_no_size(store: WebdavStore, embedded: Any, base: str) -> None:
    store.make_directory(base)
    begun = Client(embedded).ask(
        "PUT", (base + "file").replace("davs", "https"), Expect="100-continue", Content_Length="5"
    )
    assert begun.status == 307
    assert store.stat(base + "file").size is None
    with pytest.raises(errors.FileBrokenError, match="not ended"):
        store.size(base + "file")


def test_door_that_makes_no_macaroon_is_asked_once(embedded: Any, base: str, tmp_path: Path) -> None:
    """It answers 500 to an identity that is bound to several paths."""
    password = Path(embedded.password_files["alice"]).read_text().strip()
    account = {"token": None, "user_name": "alice", "user_password": password}
    with endpoint(embedded, tmp_path, **account) as store:
        names = [f"{base}{number}" for number in range(3)]
        for name in names:
            store.write(name, SMALL)
        fault = embedded.faults.add(Fault("status", server="door", method="POST", status=500, times=None))
        for name in names:
            store.remove(name)
    embedded.faults.clear()
    assert fault.hits == 1


@pytest.mark.parametrize("status", [500, 503])
def test_creating_does_not_change_its_method_for_a_moment(
    embedded: Any, base: str, tmp_path: Path, status: int
) -> None:
    """A writer with a lock and one with a macaroon would both succeed."""
    password = Path(embedded.password_files["alice"]).read_text().strip()
    account = {"token": None, "user_name": "alice", "user_password": password}
    trouble = Fault("status", server="door", method="POST", status=status, times=None)
    with endpoint(embedded, tmp_path, **account) as store:
        store.write(base + "other", OLD)
        embedded.faults.add(trouble)
        # What removal has learned of it is nothing to rely on.
        store.remove(base + "other")
        store.write(base + "other", OLD)
        for _ in range(2):
            with pytest.raises((errors.DoorUnavailableError, errors.ServerError)) as caught:
                store.write(base + "file", SMALL, overwrite=False)
            assert status != 500 or "exclusive: best_effort" in str(caught.value)
        assert [entry.name for entry in store.list_directory(base)] == ["other"]
        embedded.faults.clear()
        with counted(embedded) as counter:
            store.write(base + "file", SMALL, overwrite=False)
        assert "door MKCOL" not in counter.methods()
    account["dcache"] = {"exclusive": "best_effort"}
    with endpoint(embedded, tmp_path, **account) as store:
        embedded.faults.add(trouble)
        store.write(base + "second", SMALL, overwrite=False)
        with pytest.raises(FileExistsError):
            store.write(base + "second", SMALL, overwrite=False)
    embedded.faults.clear()


def test_door_that_does_not_know_us_when_asked_for_a_macaroon(
    embedded: Any, base: str, tmp_path: Path
) -> None:
    password = Path(embedded.password_files["alice"]).read_text().strip()
    account = {"token": None, "user_name": "alice", "user_password": password}
    with endpoint(embedded, tmp_path, **account) as store:
        store.write(base + "file", OLD)
        embedded.faults.add(Fault("status", server="door", method="POST", status=401))
        with pytest.raises(errors.CredentialError):
            store.remove(base + "file")
    embedded.faults.clear()
    refused.clear()


def test_rename_into_a_directory_that_is_missing(store: WebdavStore, url: str, base: str) -> None:
    store.move(url, base + "new/directory/file", overwrite=True)
    assert store.read(base + "new/directory/file") == OLD


def test_empty_file_of_a_server_that_ignores_ranges(store: WebdavStore, embedded: Any, base: str) -> None:
    store.write(base + "empty", b"")
    embedded.faults.add(Fault("ignore_range", server="pool", times=None))
    assert store.read_ranges(base + "empty", [ByteRange(0, 5)]) == [b""]
    reader = store.open_reader(base + "empty")
    assert reader.read_tail(10) == (0, b"")
    reader.close()


# What is looked at, and done again


@pytest.mark.parametrize(
    "fault",
    [
        Fault("lose_answer", server="pool", method="PUT"),
        Fault("lose_answer", server="door", method="PUT"),
        Fault("drop", server="pool", method="PUT", farewell="reset"),
        Fault("cut_upload", server="pool", at_byte=100),
        Fault("status", server="pool", method="PUT", status=500),
        Fault("status", server="door", method="PUT", status=503),
        Fault("restart", server="pool", method="PUT"),
        Fault("restart", server="door", method="PUT", has_effect=True),
        Fault("lose_answer", method="MOVE"),
        Fault("lose_answer", method="POST"),
        Fault("status", method="MOVE", status=503),
        Fault("status", method="POST", status=504),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.server}-{fault.method}{fault.status}",
)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_write_that_is_settled(
    store: WebdavStore, embedded: Any, url: str, fault: Fault, data: bytes, overwrite: bool
) -> None:
    fault.hits = fault.seen = 0
    name = url if overwrite else url + "-new"
    embedded.faults.add(fault)
    assert store.write(name, data, overwrite=overwrite).size == len(data)
    embedded.faults.clear()
    assert store.read(name) == data
    listed = sorted(entry.url for entry in store.list_directory(url.rpartition("/")[0] + "/"))
    assert listed == sorted({url, name})


@pytest.mark.parametrize(
    "fault",
    [
        Fault("lose_answer", server="door"),
        Fault("lose_answer", server="frontend"),
        Fault("drop", farewell="notice"),
        Fault("status", status=504),
        Fault("status", status=500),
        Fault("restart", server="door", has_effect=True),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.server}{fault.status}",
)
def test_what_has_happened_is_not_an_error(
    store: WebdavStore, embedded: Any, url: str, base: str, fault: Fault
) -> None:
    for method, act in (
        ("MOVE", lambda: store.move(url, url + "-moved", overwrite=True)),
        ("POST", lambda: store.move(url + "-moved", url, overwrite=True)),
        ("MOVE", lambda: store.move(url, url + "-moved")),
        ("DELETE", lambda: store.remove(url + "-moved")),
        ("MKCOL", lambda: store.make_directory(base + "made/")),
        ("PUT", lambda: store.make_directory(base + "made/of/many/")),
    ):
        embedded.faults.add(dataclasses.replace(fault, method=method, hits=0, seen=0))
        act()
        embedded.faults.clear()
    assert store.exists(url) is store.exists(url + "-moved") is False
    assert store.stat(base + "made/of/many/").is_directory


def test_rename_of_what_is_not_there(store: WebdavStore, embedded: Any, url: str) -> None:
    for overwrite in (False, True):
        with pytest.raises(FileNotFoundError):
            store.move(url + "-missing", url, overwrite=overwrite)
    assert store.read(url) == OLD


def test_full_store_is_not_asked_again_and_again(
    store: WebdavStore, embedded: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(store._publisher, "_space", Space(lambda: now[0]))
    fault = embedded.faults.add(Fault("full", times=None))
    for _ in range(10):
        with pytest.raises(errors.StoreFullError):
            store.write(url, LARGE)
    assert fault.hits == 2
    with pytest.raises(errors.StoreFullError):
        store.write(url, SMALL)  # smaller: there may be room for it
    assert fault.hits == 3
    now[0] += 2.5
    with pytest.raises(errors.StoreFullError):
        store.write(url, SMALL)
    assert fault.hits == 4
    embedded.faults.clear()
    with pytest.raises(
        errors.StoreFullError,
        match=r"since \d\d:\d\d:\d\d \(4 uploads refused\), and is asked again in \d+\.\d s",
    ):
        store.open_writer(url).write(bytes(2_000_000))
    now[0] += 10
    store.write(url, SMALL)
    store.write(url, LARGE)
    assert store.read(url) == LARGE
