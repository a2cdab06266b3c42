"""The embedded frontend where the recordings do not lead: rights, limits, odd requests, events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from embedded_client import DATA, Client, Reply
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.embedded.events import Channel, EventHub, TooManyChannelsError

Ask = Callable[..., Reply]


@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False) as running:
        yield running


@pytest.fixture
def client(dcache: EmbeddedDcache) -> Iterator[Client]:
    client = Client(dcache)
    yield client
    client.close()


@pytest.fixture
def api(dcache: EmbeddedDcache, client: Client) -> Ask:
    """Ask the frontend; a body is sent as JSON."""

    def ask(method: str, path: str, document: object = None, **headers: str) -> Reply:
        body = None if document is None else json.dumps(document).encode()
        return client.ask(method, f"{dcache.frontend_url}api/v1{path}", body, **headers)

    return ask


def mint(client: Client, directory: str, *activities: str) -> str:
    """Return the value of an ``Authorization`` with a macaroon."""
    body = json.dumps({"caveats": [f"activity:{','.join(activities)}"]}).encode()
    answer = client.ask("POST", directory, body, Content_Type="application/macaroon-request")
    return f"Bearer {json.loads(answer.body)['macaroon']}"


def attributes(api: Ask, path: str, query: str = "") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(api("GET", f"/namespace/data/{path}{query}").body)
    return document


def finished(api: Ask, url: str) -> dict[str, Any]:
    """Wait for the end of a bulk or stage request."""
    path = url.partition("/api/v1")[2]
    for _ in range(500):
        document: dict[str, Any] = json.loads(api("GET", path).body)
        if document.get("status") in ("COMPLETED", "CANCELLED") or "completedAt" in document:
            return document
        time.sleep(0.01)
    raise AssertionError(f"{url} never ended")


# ---- namespace
def test_rename_onto_a_file_needs_the_right_to_delete_it(
    dcache: EmbeddedDcache, client: Client, api: Ask
) -> None:
    dcache.place("mv/a", b"a")
    dcache.place("mv/b", b"b")
    move = {"action": "mv", "destination": "/data/mv/b"}
    without = mint(client, "", "UPLOAD", "MANAGE", "READ_METADATA", "LIST")
    refused = api("POST", "/namespace/data/mv/a", move, Authorization=without)
    assert (refused.status, json.loads(refused.body)["detail"]) == (400, "File exists:/data/mv/b")
    elsewhere = mint(client, "mv/a", "MANAGE", "DELETE")
    assert api("POST", "/namespace/data/mv/a", move, Authorization=elsewhere).status == 403
    assert attributes(api, "mv/b")["size"] == 1
    allowed = mint(client, "mv", "MANAGE", "DELETE")
    assert api("POST", "/namespace/data/mv/a", move, Authorization=allowed).status == 201
    assert api("GET", "/namespace/data/mv/a").status == 404


def test_racing_renames_can_be_won_twice(dcache: EmbeddedDcache, client: Client) -> None:
    """Even without the right to delete, so that nobody relies on it: look and act are two steps."""
    authorization = mint(client, "", "UPLOAD", "MANAGE", "READ_METADATA", "LIST")
    clients = [Client(dcache) for _ in range(4)]
    start = Barrier(len(clients))

    def rename(one: Client, source: str, destination: str) -> int:
        start.wait()
        document = json.dumps({"action": "mv", "destination": f"/data/{destination}"}).encode()
        url = f"{dcache.frontend_url}api/v1/namespace/data/{source}"
        return one.ask("POST", url, document, Authorization=authorization).status

    won = 0
    with ThreadPoolExecutor(len(clients)) as threads:
        for number in range(50):
            sources = [f"race/{number}-{which}" for which in range(len(clients))]
            for source in sources:
                dcache.place(source, b"x")
            target = [f"race/{number}"] * len(clients)
            statuses = list(threads.map(rename, clients, sources, target))
            assert set(statuses) <= {201, 400}
            won = max(won, statuses.count(201))
            if won > 1:
                break
    for one in clients:
        one.close()
    assert won > 1


def test_another_user_may_look_but_not_touch(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("his/file", DATA)
    bob = Client(dcache, "bob").login
    assert api("GET", "/namespace/data/his/file", Authorization=bob).status == 200
    for method, path, document in (
        ("POST", "/namespace/data/his", {"action": "mkdir", "name": "x"}),
        ("POST", "/namespace/data/his/file", {"action": "mv", "destination": "other"}),
        ("POST", "/namespace/data/his/file", {"action": "chmod", "mode": 0o777}),
        ("POST", "/namespace/data/his/file", {"action": "set-label", "label": "x"}),
        ("DELETE", "/namespace/data/his/file", None),
        ("GET", "/namespace/private?children=true", None),
    ):
        answer = api(method, path, document, Authorization=bob)
        assert answer.status == 403, (method, path, document)
    # the directory itself shows, what is in it does not
    assert api("GET", "/namespace/private", Authorization=bob).status == 200


def test_labels_modes_and_storage_classes_can_be_changed(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("change/file", DATA)
    for document, status in (
        ({"action": "set-label", "label": "good"}, 201),
        ({"action": "set-label", "label": "good"}, 409),
        ({"action": "rm-label", "label": "bad"}, 409),
        ({"action": "chmod", "mode": 0o600}, 201),
        ({"action": "qos", "target": "tape"}, 201),
        ({"action": "qos", "target": "paper"}, 400),
        ({"action": "set-xattr", "mode": "MODIFY", "attributes": {"none": "x"}}, 409),
        ({"action": "set-xattr", "mode": "EITHER", "attributes": {"some": "x"}}, 201),
        ({"action": "rm-xattr", "names": "some"}, 201),
        ({"action": "mkdir"}, 400),
    ):
        assert api("POST", "/namespace/data/change/file", document).status == status, document
    found = attributes(api, "change/file", "?qos=true&xattr=true")
    assert (found["labels"], found["mode"], found["currentQos"]) == (["good"], 0o600, "tape")
    assert found["extendedAttributes"] == {}
    assert api("POST", "/namespace/data/change", {"action": "mkdir", "name": "a/b"}).status == 400


def test_pages_of_a_listing_give_each_name_once(dcache: EmbeddedDcache, api: Ask) -> None:
    for number in range(25):
        dcache.place(f"pages/f{number}", b"x")
    names = []
    for offset in range(0, 30, 10):
        page = attributes(api, "pages", f"?children=true&limit=10&offset={offset}")
        names += [child["fileName"] for child in page["children"]]
    assert sorted(names) == sorted(f"f{number}" for number in range(25))
    assert api("GET", "/namespace/data/pages?children=true&limit=-1").status == 400
    assert attributes(api, "pages")["nlink"] == 2


def test_an_upload_under_way_has_no_size(dcache: EmbeddedDcache, client: Client, api: Ask) -> None:
    assert client.redirect("rest/upload", 10).status == 307
    found = attributes(api, "rest/upload", "?locality=true")
    assert "size" not in found
    assert found["fileLocality"] == "NONE"
    answer = api("POST", "/tape/archiveinfo", {"paths": ["/data/rest/upload"]})
    assert json.loads(answer.body) == [{"path": "/data/rest/upload", "locality": "DISK"}]


def test_faults_reach_the_frontend(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("faulty/a", b"x")
    dcache.place("faulty/b", b"x")
    dcache.faults.add(Fault("truncate_listing", "*/faulty", at_byte=1))
    assert len(attributes(api, "faulty", "?children=true")["children"]) == 1
    assert len(attributes(api, "faulty", "?children=true")["children"]) == 2
    dcache.faults.add(Fault("pnfs_timeout", server="frontend"))
    answer = api("GET", "/namespace/data/faulty")
    assert (answer.status, json.loads(answer.body)["status"]) == (500, "500")


def test_unknown_places_and_verbs(api: Ask) -> None:
    assert api("GET", "/nonsense").status == 404
    assert api("PUT", "/namespace/data", {}).status == 405
    assert api("DELETE", "/user").status == 405
    assert api("GET", "/id/0000").status == 403


def test_bearer_tokens_need_tls() -> None:
    with EmbeddedDcache(tls=False) as plain:
        client = Client(plain)
        url = f"{plain.frontend_url}api/v1/user"
        refused = client.ask("GET", url, login="Bearer x")
        assert (refused.status, refused.reason) == (401, "not allowed to send bearer token unencrypted")
        assert client.ask("GET", url).status == 200


def test_frontend_never_lets_anybody_in_without_credential() -> None:
    with EmbeddedDcache(anonymous="full", limiter=False) as open_door:
        client = Client(open_door)
        url = f"{open_door.frontend_url}api/v1/user"
        assert client.ask("GET", url, login="").status == 401
        hushed = client.ask("GET", url, login="", Suppress_WWW_Authenticate="1")
        assert "www-authenticate" not in hushed.headers
        assert client.ask("GET", f"{open_door.frontend_url}.well-known/security.txt", login="").status == 200


def test_versions_differ_in_how_they_write_lists() -> None:
    with EmbeddedDcache(version="10.2") as older:
        [door] = json.loads(Client(older).ask("GET", f"{older.frontend_url}api/v1/doors").body)
        assert "load" not in door
        assert "cellName" not in door
        assert door["protocol"] == "https"


def test_head_tells_what_get_would(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("headed", DATA)
    answer = api("HEAD", "/namespace/data/headed")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", "application/json")


# ---- bulk
def test_keys_in_any_spelling_and_targets_in_one_string(dcache: EmbeddedDcache, api: Ask) -> None:
    for name in "ab":
        dcache.place(f"bulk1/{name}", b"x")
    document = {
        "activity": "delete",
        "target": "a, b",
        "target-prefix": "/data/bulk1",
        "clear_on_success": "true",
    }
    answer = api("POST", "/bulk-requests", document)
    assert answer.status == 201
    path = answer.headers["request-url"].partition("/api/v1")[2]
    for _ in range(500):
        if api("GET", path).status == 404:  # cleared, since all went well
            break
        time.sleep(0.01)
    assert [api("GET", f"/namespace/data/bulk1/{name}").status for name in "ab"] == [404, 404]


def test_bulk_requests_are_their_owners(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("bulk2/file", b"x")
    bob = Client(dcache, "bob").login
    document = {"activity": "DELETE", "target": ["/data/bulk2/file"]}
    url = api("POST", "/bulk-requests", document, Authorization=bob).headers["request-url"]
    path = url.partition("/api/v1")[2]
    assert api("GET", path).status == 403
    for _ in range(500):
        state = json.loads(api("GET", path, Authorization=bob).body)
        if state["status"] == "COMPLETED":
            break
        time.sleep(0.01)
    [target] = state["targets"]
    assert (target["state"], "PermissionDenied" in target["errorType"]) == ("FAILED", True)
    assert attributes(api, "bulk2/file")["size"] == 1


def test_stage_requests_can_be_cancelled(dcache: EmbeddedDcache, api: Ask) -> None:
    tape = dcache.site.tape
    assert tape is not None
    dcache.place("bulk3/file", DATA, locality="NEARLINE")
    tape.is_stuck = True
    try:
        url = api("POST", "/bulk-requests", {"activity": "STAGE", "target": ["/data/bulk3/file"]}).headers[
            "request-url"
        ]
        path = url.partition("/api/v1")[2]
        assert api("DELETE", path).status == 403  # it still runs
        assert api("PATCH", path, {"action": "dance"}).status == 400
        assert api("PATCH", path, {"action": "cancel"}).status == 200
        state = finished(api, url)
        assert (state["status"], state["targets"][0]["state"]) == ("CANCELLED", "CANCELLED")
        assert api("DELETE", path).status == 204
    finally:
        tape.is_stuck = False


def test_archiveinfo_takes_ten_thousand_paths_and_says_nothing(dcache: EmbeddedDcache, api: Ask) -> None:
    paths = [f"/data/none/{number}" for number in range(10_001)]
    rows = json.loads(api("POST", "/tape/archiveinfo", {"paths": paths}).body)
    assert {row["path"] for row in rows} == set(paths[:10_000])
    rows = json.loads(api("POST", "/tape/archiveinfo", {"paths": ["/data", "/data", "/data/"]}).body)
    assert rows == [{"path": "/data", "locality": "NONE"}]


# ---- events
class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def inotify(channel: Channel, directory: str = "d") -> str:
    return channel.subscribe(directory, "/d", frozenset({"IN_CREATE"}), "https://x/c")[0].identifier


def test_a_second_reader_evicts_the_first() -> None:
    channel = EventHub().open(1, "")
    first = channel.read(None, 0.01)
    assert next(first) == b""
    second = channel.read(None, 0.01)
    assert next(second) == b""
    assert b"COMPETING_CLIENT" in next(first)
    assert list(first) == []
    channel.close()
    assert list(second) == [b""]


def test_a_reader_resumes_from_the_backlog_or_learns_of_a_loss() -> None:
    hub = EventHub()
    channel = hub.open(1, "")
    inotify(channel)
    for number in range(3):
        hub.notify("d", "IN_CREATE", f"f{number}")
    hub.notify("d", "IN_DELETE", "f0")  # nobody asked for that
    hub.notify("e", "IN_CREATE", "elsewhere")
    resumed = next(channel.read(1, 0.01)).decode()
    assert [f"f{n}" in resumed for n in range(3)] == [False, True, True]
    assert "id: 3" in resumed
    assert "elsewhere" not in resumed
    assert b"EVENT_LOSS" in next(channel.read(99, 0.01))
    assert next(channel.read(None, 0.01)) == b""


def test_channels_without_reader_die_and_there_are_not_many() -> None:
    clock = Clock()
    hub = EventHub(clock)
    for _ in range(128):
        hub.open(1, "")
    with pytest.raises(TooManyChannelsError):
        hub.open(1, "")
    hub.open(2, "")
    reader = hub.channels(1)[0].read(None, 0.01)
    next(reader)
    clock.now = 301.0
    assert len(hub.channels(1)) == 1
    reader.close()
    clock.now = 500.0
    assert len(hub.channels(1)) == 1
    clock.now = 700.0
    assert hub.channels(1) == []


def test_subscriptions_merge_and_their_errors_are_400(dcache: EmbeddedDcache, api: Ask) -> None:
    dcache.place("watched/file", b"x")
    channel = api("POST", "/events/channels", {"client-id": "me"}).location.partition("/api/v1")[2]
    inotify_url = f"{channel}/subscriptions/inotify"
    first = api("POST", inotify_url, {"path": "/data/watched", "flags": ["IN_CREATE"]})
    again = api("POST", inotify_url, {"path": "/data/watched", "flags": ["IN_DELETE"]})
    assert (first.status, again.status, first.location) == (201, 303, again.location)
    for selector in ({"path": "/data/none"}, {"path": "/data", "flags": ["IN_SANE"]}, {}):
        assert api("POST", inotify_url, selector).status == 400
    assert json.loads(api("GET", "/events/channels?client-id=me").body)[0].endswith(channel)
    assert api("PATCH", channel, {"timeout": 100_000}).status == 400
    assert api("PATCH", channel, {"timeout": 60}).status == 204
    assert json.loads(api("GET", channel).body) == {"timeout": 60}
    bob = Client(dcache, "bob").login
    assert api("GET", channel, Authorization=bob).status == 404
    gone = first.location.partition("/api/v1")[2]
    assert [api("DELETE", gone).status for _ in range(2)] == [204, 404]
    assert json.loads(api("GET", f"{channel}/subscriptions").body) == []
    assert [api("DELETE", channel).status for _ in range(2)] == [204, 404]
