"""The frontend and the tape API that no configuration names."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import responses
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS
from lsst.daf.butler_dcache.auth.sources import StaticSource
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded.faults import Fault
from lsst.daf.butler_dcache.errors import DcacheError, ProtocolError, UnsupportedError
from lsst.daf.butler_dcache.rest.discovery import TapeEndpoint, find_tape_endpoint
from lsst.daf.butler_dcache.store import registry
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from request_counter import counted
from test_retry import Clock
from test_store_webdav import endpoint, with_frontend

DOOR = "https://door.example.org:2880/"
WELL_KNOWN = ".well-known/wlcg-tape-rest-api"


def ask(*uris: str, door: str = DOOR, server: str = "dCache/11.2.4", **answer: Any) -> TapeEndpoint:
    """Find the tape API of a door that announces some URLs."""
    settings = EndpointSettings(door, requests_per_second=0)
    control = ControlPlane(settings, StaticSource(ANONYMOUS), pacer_for(settings))
    document = {"sitename": "s", "endpoints": [{"uri": uri, "version": "v1"} for uri in uris]}
    with responses.RequestsMock() as mock:
        answer = {"body": json.dumps(document), "status": 200, **answer}
        mock.get(door + WELL_KNOWN, headers={"Server": server}, **answer)
        found = find_tape_endpoint(door, control, Deadline(5))
        assert "Authorization" not in mock.calls[0].request.headers
    return found


@pytest.mark.parametrize(
    ("uri", "api_base", "frontend_base"),
    [
        (
            "https://rest.example.org:3880/api/v1/tape",
            "https://rest.example.org:3880/api/v1/tape",
            "https://rest.example.org:3880/",
        ),
        ("https://DOOR.example.org/api/v1/tape/", "https://door.example.org:443/api/v1/tape", None),
        ("https://door.example.org:3880/other", "https://door.example.org:3880/other", None),
    ],
)
def test_what_is_announced(uri: str, api_base: str, frontend_base: str | None) -> None:
    if frontend_base is None and uri.endswith("/api/v1/tape/"):
        frontend_base = "https://door.example.org:443/"
    assert ask(uri) == TapeEndpoint(api_base, frontend_base, "s")
    assert ask(uri, server="XrdHttp/6.2.1") == TapeEndpoint(api_base, None, "s")


@pytest.mark.parametrize(
    "uri",
    [
        "https://rest.example.com:3880/api/v1/tape",
        "https://example.org:3880/api/v1/tape",
        "https://door.example.org.evil.net/api/v1/tape",
        "https://192.0.2.7:3880/api/v1/tape",
        "http://door.example.org:3880/api/v1/tape",
        "https://door.example.org:3880@evil.net/api/v1/tape",
    ],
)
def test_servers_that_must_not_get_the_credential(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnsupportedError, match="no tape API that may be used"):
        ask(uri)
    assert "which is ignored" in caplog.text
    # The next one that may be used is.
    assert ask(uri, "https://rest.example.org/api/v1/tape").api_base.startswith("https://rest.example.org")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_names_of_one_machine(name: str) -> None:
    """A dCache on the machine of its user rarely calls itself by the name that the user does."""
    uri = f"https://{name}:3880/api/v1/tape"
    assert ask(uri, door="https://localhost:2880/").api_base == uri
    with pytest.raises(UnsupportedError):
        ask(uri)


def test_door_without_encryption_may_name_one_like_it() -> None:
    assert ask("http://door.example.org:3880/api/v1/tape", door="http://door.example.org:2880/")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 404}, UnsupportedError),
        ({"status": 401}, UnsupportedError),
        ({"status": 302, "adding_headers": {"Location": "https://evil.net/"}}, UnsupportedError),
        ({"body": "<html>"}, ProtocolError),
        ({"body": "[]"}, ProtocolError),
        ({"body": '{"endpoints": {}}'}, ProtocolError),
        ({"body": '{"endpoints": [null, 7, {"uri": 7}, {"uri": "?", "version": "v1"}]}'}, UnsupportedError),
        (
            {"body": '{"endpoints": [{"uri": "https://door.example.org/x?y", "version": "v1"}]}'},
            UnsupportedError,
        ),
        (
            {"body": '{"endpoints": [{"uri": "https://door.example.org/x", "version": "v2"}]}'},
            UnsupportedError,
        ),
    ],
)
def test_answers_that_tell_nothing(answer: dict[str, Any], error: type[DcacheError]) -> None:
    with pytest.raises(error):
        ask(**answer)


# The store


@pytest.fixture
def store(embedded: Any, tmp_path: Path) -> Iterator[Any]:
    with endpoint(embedded, tmp_path) as store:
        yield store
    embedded.faults.clear()


def frontends_of(store: Store) -> Any:
    return store._frontends  # type: ignore[attr-defined]


def test_nobody_asks_for_a_single_file(embedded: Any, store: Any) -> None:
    with counted(embedded) as counter:
        store.write(embedded.url + "single", b"x")
        store.read(embedded.url + "single")
        store.remove(embedded.url + "single")
    assert not [record for record in counter.records if "well-known" in record["path"]]
    assert frontends_of(store).for_single_files is None


def test_it_is_asked_once_by_many(embedded: Any, store: Any) -> None:
    frontends = frontends_of(store)
    with counted(embedded) as counter, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: frontends.get(Deadline(10)), range(8)))
    assert len(set(map(id, found))) == 1
    assert counter.methods() == ["door GET"]
    api = frontends.tape(Deadline(10))
    assert urlsplit(api.base_url).port == urlsplit(embedded.frontend_url).port
    # The credential goes there: nobody else is let in.
    assert (
        found[0].api.ask("GET", "/user", operation="look", url=embedded.url, deadline=Deadline(10)).status
        == 200
    )
    embedded.place(f"{urlsplit(embedded.url).path}file", b"x")
    assert frontends.for_single_files is None
    assert found[0].prove(embedded.url + "file", Deadline(10))
    assert frontends.for_single_files is found[0]


def test_the_configured_one_needs_no_question(embedded: Any, tmp_path: Path) -> None:
    with endpoint(embedded, tmp_path, **with_frontend(embedded)) as store, counted(embedded) as counter:
        frontend = frontends_of(store).get(Deadline(10))
        assert frontend.api.base_url == f"{embedded.frontend_url}api/v1"
        assert frontends_of(store).tape(Deadline(10)).base_url == f"{embedded.frontend_url}api/v1/tape"
        assert frontends_of(store).for_single_files is frontend
    assert not counter.records


def test_what_is_missing_is_named_once(embedded: Any, store: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    embedded.faults.add(Fault("status", server="door", path="*/.well-known/*", status=404, times=1))
    frontends = frontends_of(store)
    for _ in range(3):
        assert frontends.get(Deadline(10)) is None
        with pytest.raises(UnsupportedError, match="the door knows of no tape API"):
            frontends.tape(Deadline(10))
    assert caplog.text.count("no frontend is known") == 1


def test_failure_is_remembered_for_ten_minutes(
    embedded: Any, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    frontends = frontends_of(store)
    frontends._clock = clock
    embedded.faults.add(Fault("status", server="door", path="*/.well-known/*", status=500, times=None))
    assert frontends.get(Deadline(10)) is None
    embedded.faults.clear()
    assert frontends.get(Deadline(10)) is None
    assert caplog.text.count("looking for the frontend failed") == 1
    clock.now += 600
    assert frontends.get(Deadline(10)) is not None


def test_it_can_be_switched_off(embedded: Any, tmp_path: Path) -> None:
    own = {"dcache": {"discover_frontend": False}}
    with (
        endpoint(embedded, tmp_path, **own) as store,
        counted(embedded) as counter,
        pytest.raises(UnsupportedError, match="`discover_frontend` is false"),
    ):
        frontends_of(store).tape(Deadline(10))
    assert not counter.records


def test_a_guest_brings_nothing_to_other_servers(embedded: Any, store: Any) -> None:
    token = Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip()
    guest = store_for(f"{embedded.url}?authz={token}")
    with counted(embedded) as counter:
        assert frontends_of(guest).get(Deadline(10)) is None
    assert not counter.records


def test_a_lock_that_another_thread_held_at_the_fork(store: Any) -> None:
    frontends = frontends_of(store)
    held = threading.Lock()
    held.acquire()
    frontends._lock = held
    with pytest.raises(DcacheError, match="another thread"):
        frontends.get(Deadline(0.01))
    registry.reset_stores()
    frontends.after_fork()
    assert frontends.get(Deadline(10)) is not None
