"""Removing many names by bulk requests of the frontend: what it costs, and whatever goes wrong meanwhile."""

from __future__ import annotations

import dataclasses
import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from lsst.daf.butler_dcache import DcacheFileSystem
from lsst.daf.butler_dcache.bench import crossover
from lsst.daf.butler_dcache.cli import bench_crossover
from lsst.daf.butler_dcache.cli.bench_crossover import crossover_command
from lsst.daf.butler_dcache.config.loading import load_file
from lsst.daf.butler_dcache.config.settings import BulkSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, rest_bulk
from lsst.daf.butler_dcache.embedded.bulk import BulkRequest
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.embedded.operations import Operator
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    CredentialError,
    DeadlineError,
    DirectoryNotEmptyError,
    OutcomeUnknownError,
    ResourceNotFoundError,
    ServerError,
    UnsupportedError,
)
from lsst.daf.butler_dcache.rest.bulk import BulkRequests, target_of
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.tree import remove_tree
from request_counter import counted
from test_store_webdav import endpoint, with_frontend

BULK = "/api/v1/bulk-requests"
FROM = 10
ODD_NAMES = ("with blank", "a,b", "c#d", "e%f", "g+h", "i;j", "trailing ", "smile \U0001f642", "k&l", 'm"n')


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture
def store(server: EmbeddedDcache, tmp_path: Path) -> Iterator[WebdavStore]:
    """A store that removes in bulk from a few files on, its frontend proven."""
    changes = with_frontend(server)
    changes["dcache"]["bulk"] = {"delete_from_files": FROM}
    with endpoint(server, tmp_path, **changes) as made:
        made.write(f"{server.url}{uuid.uuid4().hex}", b"")
        yield made  # type: ignore[misc]
    server.faults.clear()
    server.bulk.max_targets["NONE"] = 500


@pytest.fixture(autouse=True)
def nothing_stays(server: EmbeddedDcache) -> Iterator[None]:
    """No bulk request may stay with the server: it could remove a file of tomorrow."""
    yield
    assert server.bulk.requests() == []


@pytest.fixture
def bulk(store: WebdavStore) -> BulkRequests:
    frontend = store._frontends.get(Deadline(10))
    assert frontend is not None
    return frontend.bulk


@pytest.fixture
def base(server: EmbeddedDcache) -> str:
    return f"{server.url}{uuid.uuid4().hex[:12]}/"


def path_of(url: str) -> str:
    return unquote(urlsplit(url).path)


def place(server: EmbeddedDcache, base: str, count: int) -> list[str]:
    urls = [f"{base}{number}" for number in range(count)]
    for url in urls:
        server.place(path_of(url), b"x")
    return urls


def exists(server: EmbeddedDcache, url: str) -> bool:
    """Look without the client."""
    return server.site.namespace.find(path_of(url)) is not None


# What it costs


@pytest.mark.parametrize("by", ["store", "fsspec"])
def test_thousand_files(store: WebdavStore, server: EmbeddedDcache, base: str, by: str) -> None:
    urls = place(server, base, 1000)
    with counted(server) as counter:
        if by == "store":
            assert set(store.remove_many(urls).values()) == {None}
        else:
            DcacheFileSystem().rm(urls)
    methods = counter.methods()
    assert methods.count("frontend POST") == methods.count("frontend DELETE") == 2
    assert set(methods) == {"frontend POST", "frontend DELETE", "frontend GET"}
    assert len(methods) < 12, str(counter)
    assert not any(exists(server, url) for url in urls)


def test_a_frontend_that_nobody_named(server: EmbeddedDcache, base: str, tmp_path: Path) -> None:
    """It is found through the door, and proven by one file, once."""
    urls = place(server, base, 1000)
    with endpoint(server, tmp_path) as store:
        store.exists(server.url)
        for part, most in ((urls[:500], 6), (urls[500:], 3)):
            with counted(server) as counter:
                assert set(store.remove_many(part).values()) == {None}
            assert [one for one in counter.methods() if one == "frontend POST"] == ["frontend POST"]
            assert counter.at_door <= most + 3, str(counter)


def test_without_a_frontend(server: EmbeddedDcache, base: str, tmp_path: Path) -> None:
    urls = place(server, base, 500)
    with endpoint(server, tmp_path, dcache={"discover_frontend": False}) as store:
        store.exists(server.url)
        with counted(server) as counter:
            assert set(store.remove_many(urls[:400]).values()) == {None}
            DcacheFileSystem().rm(urls[400:])
    assert counter.methods() == ["door DELETE"] * 500


def test_tree_of_thousand_files(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    for number in range(10):
        place(server, f"{base}{number}/", 100)
    with counted(server) as counter:
        remove_tree(store, base)
    methods = counter.methods()
    # Eleven listings, a thousand files, ten directories; the topmost is a single one.
    assert methods.count("door PROPFIND") + methods.count("frontend GET") < 11 + 12
    assert methods.count("frontend POST") == 3
    assert methods.count("frontend DELETE") == 3 + 1
    assert not any(one.startswith("door DELETE") for one in methods)
    assert not exists(server, base)


def test_many_empty_directories(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    for number in range(60):
        server.place(f"{path_of(base)}{number}/deep/file", b"x")
    with counted(server) as counter:
        remove_tree(store, base)
    methods = counter.methods()
    assert methods.count("frontend POST") == 3
    assert not exists(server, base)


# What the server says of each target


def test_each_target_has_its_own_result(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    urls = place(server, base, FROM)
    server.place(path_of(f"{base}full/file"), b"x")
    server.place(path_of(f"{base}was/file"), b"x")
    store.remove(f"{base}was/file")
    results = store.remove_many([*urls, f"{base}none", f"{base}full", f"{base}full/", f"{base}was/", urls[0]])
    assert all(results[url] is None for url in [*urls, f"{base}was/"])
    assert isinstance(results[f"{base}none"], ResourceNotFoundError)
    assert "none" in str(results[f"{base}none"])
    assert isinstance(results[f"{base}full"], DirectoryNotEmptyError)
    assert isinstance(results[f"{base}full/"], DirectoryNotEmptyError)
    assert exists(server, f"{base}full/file")


def test_odd_names(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    """The frontend takes white space off the end of a target: that would be another file."""
    urls = {name: base + quote(name) for name in ODD_NAMES}
    for url in [*urls.values(), base + "trailing"]:
        server.place(path_of(url), b"x")
    assert set(store.remove_many(urls.values()).values()) == {None}
    assert not any(exists(server, url) for url in urls.values())
    assert exists(server, base + "trailing")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a%2Bb%25", "/a+b%"),
        ("/a%20", None),
        ("/a%C2%A0", None),
        ("/a%0A/", None),
        ("/a//b", None),
        ("/a/../b", None),
        ("/a/.", None),
        ("/%FF", None),
        ("/", None),
    ],
)
def test_targets(path: str, target: str | None) -> None:
    assert target_of("davs://door.example:2880" + path) == target


def test_one_file_in_two_spellings(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    urls = [*place(server, base, FROM), f"{base}%30"]
    assert set(store.remove_many(urls).values()) == {None}


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("diskCacheV111.util.PermissionDeniedCacheException", "no", AccessDeniedError),
        ("java.lang.Throwable", "CacheException(rc=10018;msg=Permission denied)", AccessDeniedError),
        ("java.lang.Throwable", "the disk is on fire", ServerError),
        ("diskCacheV111.util.FileNotFoundCacheException", "", ResourceNotFoundError),
        ("java.lang.Throwable", "", ServerError),
    ],
)
def test_failed_targets(
    store: WebdavStore, server: EmbeddedDcache, base: str, kind: str, text: str, error: type[Exception]
) -> None:
    urls = place(server, base, FROM)
    server.faults.add(Fault("bulk_fail", reason=kind, body=text, at_byte=4))
    results = store.remove_many(urls)
    assert [results[url] for url in urls[:4]] == [None] * 4
    for url in urls[4:]:
        assert type(results[url]) is error
        assert (text or kind) in str(results[url]) or error is ResourceNotFoundError
        assert exists(server, url)


def test_names_are_no_causes(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    """The server's text quotes the name, which may sound like another reason."""
    folder = f"{base}No%20such%20file%20or%20Permission%20denied/"
    urls = place(server, folder, FROM)
    server.faults.add(Fault("bulk_fail", body=f"on fire: {path_of(folder)}0", at_byte=0))
    assert type(store.remove_many(urls)[urls[0]]) is ServerError


def test_pages_of_targets(
    store: WebdavStore, server: EmbeddedDcache, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_bulk, "_PAGE", 7)
    urls = place(server, base, 30)
    results = store.remove_many([*urls, f"{base}none"])
    assert [results[url] for url in urls] == [None] * 30
    assert isinstance(results[f"{base}none"], ResourceNotFoundError)


# What goes wrong


@pytest.mark.parametrize("kind", ["bulk_cancel", "bulk_forget"])
@pytest.mark.parametrize("done", [0, 7, 30])
def test_what_nobody_knows_is_looked_for(
    store: WebdavStore, server: EmbeddedDcache, base: str, kind: Any, done: int
) -> None:
    urls = place(server, base, 30)
    server.faults.add(Fault(kind, at_byte=done))
    with counted(server) as counter:
        assert set(store.remove_many(urls).values()) == {None}
    assert not any(exists(server, url) for url in urls)
    # What is gone is not asked for again.
    assert counter.methods().count("frontend DELETE") <= 30 - done + 1


def test_cancelled_targets_are_no_success(bulk: BulkRequests, server: EmbeddedDcache, base: str) -> None:
    urls = place(server, base, 5)
    server.faults.add(Fault("bulk_cancel", at_byte=2))
    results = bulk.run("DELETE", urls, deadline=Deadline(30))
    assert [type(error) for error in results.values()] == [type(None)] * 2 + [OutcomeUnknownError] * 3
    assert "CANCELLED" in str(results[urls[4]])


@pytest.mark.parametrize("kind", ["lose_answer", "garble", "drop"])
def test_lost_answer_of_the_post(store: WebdavStore, server: EmbeddedDcache, base: str, kind: Any) -> None:
    """The request is found among the server's, and nothing is removed by a second one."""
    urls = place(server, base, 20)
    server.faults.add(Fault(kind, method="POST", path=BULK))
    with counted(server) as counter:
        assert set(store.remove_many(urls).values()) == {None}
    assert not any(exists(server, url) for url in urls)
    if kind != "drop":  # which has no effect
        assert counter.methods().count("frontend POST") == 1
        assert counter.methods().count("frontend DELETE") == 1


def test_what_somebody_else_left_is_not_ours(
    store: WebdavStore, bulk: BulkRequests, server: EmbeddedDcache, base: str
) -> None:
    """A request of the same names that was done yesterday says nothing of files of today."""
    urls = place(server, base, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsst.daf.butler_dcache.rest.bulk._Work._clear", lambda *_: None)
        assert set(bulk.run("DELETE", urls, deadline=Deadline(30)).values()) == {None}
    (left,) = server.bulk.requests()
    left.arrived -= 86_400_000
    stranger = dataclasses.replace(left.operator, login=dataclasses.replace(left.operator.login, uid=4711))
    newer = BulkRequest(stranger, "DELETE", "/", "NONE", {}, delay_seconds=60.0)
    server.bulk.submit(newer, [path_of(url) for url in urls])
    place(server, base, 20)
    server.faults.add(Fault("drop", method="POST", path=BULK))
    assert set(store.remove_many(urls).values()) == {None}
    assert not any(exists(server, url) for url in urls)
    assert server.bulk.requests() == [left, newer]
    server.bulk.clear(left)
    server.bulk.clear(newer)


def test_bulk_service_that_does_not_answer_the_frontend(
    bulk: BulkRequests, server: EmbeddedDcache, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 400 that says "timed out" is no refusal: the request may be there, and is looked for page by page."""
    monkeypatch.setattr("lsst.daf.butler_dcache.embedded.rest_bulk._PAGE", 1)
    monkeypatch.setattr("lsst.daf.butler_dcache.rest.bulk._SUMMARIES", 1)
    urls = place(server, base, 1)
    access = server.site.access
    somebody = Operator(access, access.accounts[server.user].login)
    others = [BulkRequest(somebody, "LOG_TARGET", "/", "NONE", {}) for _ in range(2)]
    for one in others:
        server.bulk.submit(one, [path_of(base)])
    detail = "diskCacheV111.util.TimeoutCacheException: Request to [>BulkService@local] timed out."
    fault = Fault("status", method="POST", path=BULK, status=400)
    fault.headers["Content-Type"] = "application/json"
    fault.body = json.dumps({"status": "400", "title": "Bad Request", "detail": detail})
    server.faults.add(fault)
    bulk.namable(urls, Deadline(10))  # which asks once
    with counted(server) as counter:
        (error,) = bulk.run("DELETE", urls, deadline=Deadline(10)).values()
    assert isinstance(error, OutcomeUnknownError)
    assert counter.methods().count("frontend GET") == 3  # two full pages, and one that ends them
    for one in others:
        server.bulk.clear(one)


def test_token_that_ends(tmp_path: Path) -> None:
    """Nobody knows what becomes of the request then, and nothing more is sent; a warning names it."""
    with EmbeddedDcache() as server:
        urls = place(server, server.url, FROM)
        changes = with_frontend(server)
        changes["dcache"]["bulk"] = {"delete_from_files": FROM}
        with endpoint(server, tmp_path, **changes) as store:
            store.write(f"{server.url}file", b"")
            fault = Fault("status", method="GET", path=f"{BULK}/*", status=401, times=None)
            server.faults.add(fault)
            results = store.remove_many(urls)
        assert {type(error) for error in results.values()} == {CredentialError}
        assert fault.hits == 1


def test_limit_of_the_site(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    """413 does not tell the limit; it is halved, and remembered."""
    server.bulk.max_targets["NONE"] = 30
    urls = place(server, base, 100)
    with counted(server) as counter:
        assert set(store.remove_many(urls[:50]).values()) == {None}
    assert counter.methods().count("frontend POST") == 3
    with counted(server) as counter:
        assert set(store.remove_many(urls[50:]).values()) == {None}
    assert counter.methods().count("frontend POST") == 2


def test_no_bulk_request_at_all(
    store: WebdavStore, server: EmbeddedDcache, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.bulk.max_targets["NONE"] = 0
    urls = place(server, base, 16)
    with caplog.at_level(logging.WARNING):
        assert set(store.remove_many(urls).values()) == {None}
    assert len([one for one in caplog.records if one.name.endswith("store.frontend")]) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500])
def test_refused_post(
    store: WebdavStore, server: EmbeddedDcache, base: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A frontend that takes none is left for a minute, and the door removes; a 404 is not of the files."""
    urls = place(server, base, 3 * FROM)
    server.faults.add(Fault("status", method="POST", path=BULK, status=status, times=None))
    with counted(server) as counter, caplog.at_level(logging.WARNING):
        assert set(store.remove_many(urls[: 2 * FROM]).values()) == {None}
        assert set(store.remove_many(urls[2 * FROM :]).values()) == {None}
    assert not any(exists(server, url) for url in urls)
    if status != 500:  # after which nobody knows, so that the next call tries again
        assert counter.methods().count("frontend POST") == 1
        assert len([one for one in caplog.records if one.name.endswith("store.frontend")]) == 1


def test_busy_frontend(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    """5000 requests are open: 429, which is waited for."""
    urls = place(server, base, FROM)
    fault = server.faults.add(Fault("status", method="POST", path=BULK, status=429, times=2))
    with counted(server) as counter:
        assert set(store.remove_many(urls).values()) == {None}
    assert fault.hits == 2
    assert counter.methods().count("frontend POST") == 3


def test_one_refusal_of_the_credential(tmp_path: Path) -> None:
    with EmbeddedDcache() as server:
        urls = place(server, server.url, 1200)
        with endpoint(server, tmp_path, **with_frontend(server)) as store:
            store.write(f"{server.url}file", b"")
            server.faults.add(Fault("status", method="POST", path=BULK, status=401, times=None))
            with counted(server) as counter:
                results = store.remove_many(urls)
        assert {type(error) for error in results.values()} == {CredentialError}
        assert counter.methods() == ["frontend GET", "frontend POST"]  # the first one asks for the root
        assert all(exists(server, url) for url in urls[::100])


def test_credential_that_the_door_alone_accepts(tmp_path: Path) -> None:
    """The proof asks the door first: what it accepts is not the credential's fault, and one 401 is enough."""
    with EmbeddedDcache() as server:
        urls = place(server, server.url, FROM)
        changes = with_frontend(server)
        changes["dcache"]["bulk"] = {"delete_from_files": FROM}
        server.faults.add(Fault("status", server="frontend", status=401, times=None))
        with endpoint(server, tmp_path, **changes) as store, counted(server) as counter:
            assert set(store.remove_many(urls).values()) == {None}
        assert [record["status"] for record in counter.records].count(401) == 1


def test_frontend_that_is_away(server: EmbeddedDcache, base: str, tmp_path: Path) -> None:
    with EmbeddedDcache() as other:
        gone = other.frontend_url
    urls = place(server, base, FROM)
    changes = {"dcache": {"frontend_url": gone, "bulk": {"delete_from_files": FROM}}}
    with endpoint(server, tmp_path, **changes) as store:
        assert set(store.remove_many(urls).values()) == {None}
    assert not any(exists(server, url) for url in urls)


def test_deadline(bulk: BulkRequests, server: EmbeddedDcache, base: str) -> None:
    """What is not done by then is cancelled, and not done later."""
    urls = place(server, base, 5)
    server.faults.add(Fault("bulk_slow", seconds=30))
    results = bulk.run("DELETE", urls, deadline=Deadline(0.3))
    assert {type(error) for error in results.values()} == {DeadlineError}
    assert all(exists(server, url) for url in urls)


def test_interrupted(bulk: BulkRequests, server: EmbeddedDcache, base: str) -> None:
    urls = place(server, base, 1200)
    server.faults.add(Fault("bulk_slow", seconds=30, times=None))

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    bulk._sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        bulk.run("DELETE", urls, deadline=Deadline(60))
    assert server.bulk.requests() == []
    assert all(exists(server, url) for url in urls[::100])


@pytest.mark.parametrize("is_taken", [True, False])
def test_interrupted_while_it_is_sent(
    bulk: BulkRequests, server: EmbeddedDcache, base: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = place(server, base, 20)
    server.faults.add(Fault("bulk_slow", seconds=30))
    ask = bulk._api.ask

    def interrupted(method: str, *args: Any, **rest: Any) -> Any:
        answer = ask(method, *args, **rest) if is_taken or method != "POST" else None
        if method == "POST":
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(bulk._api, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bulk.run("DELETE", urls, deadline=Deadline(60))
    assert server.bulk.requests() == []
    assert all(exists(server, url) for url in urls)


def test_redirected_request(bulk: BulkRequests, server: EmbeddedDcache, base: str) -> None:
    """Of the URL that is answered only the last part is believed; without one nothing is a success."""
    urls = place(server, base, 3)
    fault = Fault("status", method="POST", path=BULK, status=201)
    fault.headers["request-url"] = "https://elsewhere.example/api/v1/bulk-requests/../../x?y"
    server.faults.add(fault)
    with counted(server) as counter:
        results = bulk.run("DELETE", urls, deadline=Deadline(10))
    assert {type(error) for error in results.values()} == {OutcomeUnknownError}
    assert all(record["server"] == "frontend" for record in counter.records)


def test_account_with_a_root(server: EmbeddedDcache, tmp_path: Path) -> None:
    """A path that begins with it passes for a complete one in bulk requests: the door removes those."""
    access = server.site.access
    login = dataclasses.replace(access.accounts[server.user].login, root="/data")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(access.mint.issue(login, "/", b'{"validity": "PT1H"}'))
    door = server.url.removesuffix("/").rpartition("/")[0]
    meant = [f"{door}/data/x/{number}" for number in range(FROM)]
    other = [f"{door}/y/{number}" for number in range(FROM)]
    kept = [f"/data/x/{number}" for number in range(FROM)]
    for path in (*kept, *(f"/data{path_of(url)}" for url in (*meant, *other))):
        server.place(path, b"x")
    changes = with_frontend(server)
    changes["dcache"]["bulk"] = {"delete_from_files": FROM}
    with endpoint(server, tmp_path, token=str(token), **changes) as store, counted(server) as counter:
        assert set(store.remove_many([*meant, *other]).values()) == {None}
    assert counter.methods().count("frontend POST") == 1
    assert all(exists(server, f"{door}{path}") for path in kept)
    assert not any(exists(server, f"{door}/data{path_of(url)}") for url in (*meant, *other))


def test_names_that_no_request_can_mean(bulk: BulkRequests, server: EmbeddedDcache, base: str) -> None:
    (error,) = bulk.run("DELETE", [f"{base}a%20"], deadline=Deadline(10)).values()
    assert isinstance(error, UnsupportedError)


# Trees


def test_new_files_are_not_destroyed(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    place(server, base + "a/", FROM)
    place(server, base + "b/", FROM)
    many = store.remove_many

    def meanwhile(urls: Any) -> Any:
        results = many(urls)
        server.place(path_of(base) + "b/new", b"x")
        return results

    store.remove_many = meanwhile  # type: ignore[method-assign]
    with pytest.raises(DirectoryNotEmptyError):
        remove_tree(store, base)
    del store.remove_many
    assert exists(server, base + "b/new")
    assert not exists(server, base + "a")
    remove_tree(store, base)
    remove_tree(store, base)
    assert not exists(server, base)


def test_short_listing_removes_what_it_shows(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    urls = place(server, base, 20)
    server.faults.add(Fault("truncate_listing", at_byte=15, times=None))
    with pytest.raises(DirectoryNotEmptyError):
        remove_tree(store, base)
    server.faults.clear()
    assert sum(exists(server, url) for url in urls) == 5


def test_what_fails_does_not_keep_the_rest(store: WebdavStore, server: EmbeddedDcache, base: str) -> None:
    for name in "abc":
        place(server, f"{base}{name}/", FROM)
    server.faults.add(Fault("bulk_fail", reason="java.lang.Throwable", body="on fire", at_byte=3 * FROM - 2))
    with pytest.raises(ServerError, match=r"on fire|1 more") as caught:
        remove_tree(store, base)
    assert "and 1 more" in str(caught.value)
    assert len(caught.value.__notes__) == 1
    assert not exists(server, base + "a")
    assert sum(exists(server, f"{base}c/{number}") for number in range(FROM)) == 2
    remove_tree(store, base)


def test_batches(
    store: WebdavStore, server: EmbeddedDcache, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory for a tree is that of a batch."""
    from lsst.daf.butler_dcache import tree

    monkeypatch.setattr(tree, "_BATCH", 25)
    for number in range(12):
        place(server, f"{base}{number % 4}/{number}/deep/", 9)
    sizes: list[int] = []
    many = store.remove_many
    store.remove_many = lambda urls: sizes.append(len(urls)) or many(urls)  # type: ignore[method-assign]
    remove_tree(store, base)
    del store.remove_many
    assert max(sizes) <= 25
    assert not exists(server, base)


# Where it begins to pay


def test_crossover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command measures every way, says what follows in a form that can be loaded, and cleans up."""
    for name, value in {"_ENTRIES": (2, 20), "_NAMES": (1, 4), "_REMOVED": (2, 6)}.items():
        monkeypatch.setattr(crossover, name, value)
    monkeypatch.setattr(bench_crossover, "EmbeddedDcache", lambda latency: EmbeddedDcache())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", "")  # which the command sets, and this takes back
        patch.setenv("BEARER_TOKEN_FILE", "")
        result = CliRunner().invoke(crossover_command, ["--rounds", "1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "crossover.json").read_text())
    ways = {point["way"] for point in found["points"]}
    assert ways == {"look", "list", "list by REST", "archiveinfo", "remove singly", "remove in bulk"}
    keys = yaml.safe_load(result.stdout[result.stdout.index("dcache:") :])["dcache"]["bulk"]
    assert keys.keys() == {field.name for field in dataclasses.fields(BulkSettings)}
    path = tmp_path / "webdav.yaml"
    path.write_text(yaml.safe_dump([{"base_url": "davs://door.example:2880/", "dcache": {"bulk": keys}}]))
    assert load_file(str(path))[0].bulk == BulkSettings(**keys)


def test_crossover_at_a_directory_of_somebodys(
    server: EmbeddedDcache, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_ENTRIES": (2, 4), "_NAMES": (1, 2), "_REMOVED": (2, 3)}.items():
        monkeypatch.setattr(crossover, name, value)
    server.place(path_of(base) + "kept", b"x")
    found = crossover.measure_crossover(base, rounds=1)
    assert "no frontend_url" in found.text()
    assert [entry.name for entry in server.site.namespace.find(path_of(base)).children.values()] == ["kept"]


@pytest.mark.parametrize("each", [-0.01, 0.0, 0.00001, 0.1])
def test_times_of_a_busy_machine(tmp_path: Path, each: float) -> None:
    """Whatever was measured, what is printed can be loaded."""
    points = [
        *(crossover.Point("look", count, 0.5 + each * count) for count in (1, 10)),
        *(crossover.Point("list", count, 0.01 + 0.001 * count) for count in (10, 100)),
    ]
    path = tmp_path / "webdav.yaml"
    text = crossover.Crossover(tuple(points), 1).text()
    path.write_text(
        yaml.safe_dump(
            [{"base_url": "davs://door.example:2880/", **yaml.safe_load(text[text.index("dcache:") :])}]
        )
    )
    assert load_file(str(path))[0].bulk.entries_per_question > 0


def test_where_lines_meet() -> None:
    points = [
        *(crossover.Point("remove singly", count, 0.01 + 0.005 * count) for count in (5, 100, 500)),
        *(crossover.Point("remove in bulk", count, 1.01 + 0.0025 * count) for count in (5, 100, 500)),
        *(crossover.Point("look", count, 0.004 * count) for count in (1, 10)),
        *(crossover.Point("list", count, 0.01 + 0.001 * count) for count in (10, 100)),
    ]
    found = crossover.Crossover(tuple(points), 1)
    assert found.settings == {"delete_from_files": 400, "list_from_names": 5, "entries_per_question": 4.0}
    assert "archive_info_from_names: 20  # the default" in found.text()
