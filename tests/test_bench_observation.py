"""What the client counts of itself is what the server saw."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.bench.observation import COUNTS, PHASES, Observation, phases
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault
from lsst.daf.butler_dcache.redaction import redact_url
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.transport.exchange import Exchange, Opening
from lsst.daf.butler_dcache.transport.tls import tls_context
from request_counter import counted
from test_store_webdav import endpoint

DATA = bytes(range(256)) * 400
THREADS = 6


@pytest.fixture(params=[True, False], ids=["tls", "plain"])
def site(request: pytest.FixtureRequest) -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=request.param, limiter=False) as site:
        yield site


@pytest.fixture
def store(site: EmbeddedDcache, tmp_path: Path) -> Iterator[Store]:
    with endpoint(site, tmp_path) as store:
        yield store


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of the servers: whether each went on with an earlier session."""
    resumed: list[bool] = []
    original = ssl.SSLSocket.do_handshake

    def do_handshake(sock: ssl.SSLSocket, block: bool = False) -> None:
        original(sock, block)
        if sock.server_side:
            resumed.append(bool(sock.session_reused))

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", do_handshake)
    return resumed


def work(store: Store, base: str) -> None:
    """Do a bit of everything."""
    for number in range(2):
        store.write(f"{base}-{number}", DATA)
        assert store.read(f"{base}-{number}") == DATA
    assert store.exists(f"{base}-0")
    assert not store.exists(f"{base}-none")
    store.move(f"{base}-0", f"{base}-moved")
    store.remove(f"{base}-moved")


def test_counts_are_those_of_the_server(site: EmbeddedDcache, store: Store, handshakes: list[bool]) -> None:
    for presents in (True, False):
        tls_context(store.settings, client_certificate=presents)._sessions.clear()  # type: ignore[attr-defined]
    with Observation() as seen, counted(site) as server, ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda number: work(store, f"{site.url}{number}"), range(THREADS)))
    store.exists(f"{site.url}later")
    counts, times = seen.counted(), seen.histograms()
    assert tuple(counts) == COUNTS
    assert (counts["door_requests"], counts["pool_requests"]) == (server.at_door, server.at_pool)
    assert server.at_pool == THREADS * 4
    assert counts["connections"] == len({record["connection"] for record in server.records})
    assert (counts["handshakes"], counts["resumed"]) == (handshakes.count(False), handshakes.count(True))
    assert [counts[name] for name in ("retries", "refused", "hedges", "errors")] == [0, 0, 0, 0]
    published = sum(record["method"] == "MOVE" for record in server.records)
    assert times["phase.publish"].count == published == THREADS * 3
    assert times["phase.commit"].count == THREADS * 2  # the mover of an upload begins while bytes are sent
    waits = (times[f"phase.{name}"].count for name in ("door", "mover", "commit", "publish"))
    assert sum(waits) == len(server.records)
    assert times["phase.turn"].count == server.at_door
    assert times["phase.name"].count == times["phase.tcp"].count == counts["connections"]
    assert ("phase.tls" in times) == bool(handshakes)
    assert all(0 < one.mean < 10 for one in times.values())
    assert list(times) == [f"phase.{name}" for name in PHASES if f"phase.{name}" in times]


@pytest.mark.parametrize(
    ("fault", "refused", "errors"),
    [
        (Fault("status", status=503, server="door", method="GET", times=1), 1, 0),
        (Fault("status", status=429, server="door", method="GET", times=1), 1, 0),
        (Fault("status", status=502, server="door", method="GET", times=1), 0, 1),
        (Fault("drop", server="door", method="GET", times=1), 0, 1),
    ],
    ids=lambda one: f"{one.kind}{one.status}" if isinstance(one, Fault) else "",
)
def test_what_goes_wrong(fault: Fault, refused: int, errors: int, tmp_path: Path) -> None:
    with EmbeddedDcache(tls=False, limiter=False) as site, endpoint(site, tmp_path) as store:
        store.write(f"{site.url}file", DATA)
        site.faults.add(fault)
        with Observation() as seen, counted(site) as server:
            assert store.read(f"{site.url}file") == DATA
    counts = seen.counted()
    assert (counts["retries"], counts["refused"], counts["errors"]) == (1, refused, errors)
    assert (counts["door_requests"], counts["pool_requests"]) == (server.at_door, server.at_pool) == (2, 1)


def exchange(method: str, *, role: str = "door", received: int = 0, **fields: Any) -> Exchange:
    return Exchange(
        plane="data",
        method=method,
        url=fields.pop("url", "https://x/y"),
        status=200,
        reason="",
        sent=0,
        received=received,
        seconds=0.0,
        reused="opening" not in fields,
        attempt=1,
        connection=fields.pop("connection", 7),
        role=role,
        turn_seconds=1.0,
        sending_seconds=2.0,
        waiting_seconds=4.0,
        commit_seconds=fields.pop("commit", 0.0),
        first_byte_seconds=16.0 if received else 0.0,
        reading_seconds=48.0 if received else 0.0,
        **fields,
    )


def test_phases() -> None:
    opening = Opening(100.0, 200.0, 300.0, True)
    assert dict(phases(exchange("GET", opening=opening))) == {
        "turn": 1.0,
        "name": 100.0,
        "tcp": 200.0,
        "tls": 300.0,
        "door": 4.0,
        "transfer": 2.0,
    }
    assert dict(phases(exchange("GET", role="pool", received=9))) == {
        "mover": 4.0,
        "first_byte": 16.0,
        "transfer": 34.0,
    }
    upload = dict(phases(exchange("PUT", role="pool", commit=8.0)))
    assert upload == {"mover": 4.0, "commit": 8.0, "transfer": 2.0}
    assert dict(phases(exchange("PROPFIND", commit=8.0))) == {"turn": 1.0, "door": 12.0, "transfer": 2.0}
    end_of_parts = exchange("POST", url=redact_url("https://s3/bucket/key?uploadId=abc"), commit=8.0)
    for published in (end_of_parts, exchange("MOVE", commit=8.0), exchange("COPY", commit=8.0)):
        assert dict(phases(published)) == {"turn": 1.0, "publish": 14.0}
    assert dict(phases(exchange("GET", connection=0))) == {"turn": 1.0}  # there was no connection


def test_it_ends_with_its_context(tmp_path: Path) -> None:
    with EmbeddedDcache(tls=False) as site, endpoint(site, tmp_path) as store:
        with Observation() as outer:
            with Observation() as inner:
                store.exists(site.url)
            store.exists(site.url)
        store.exists(site.url)
    requests = [one.counted()["door_requests"] for one in (inner, outer)]
    assert requests[0] > 0
    assert requests[1] > requests[0]


def test_a_child_counts_for_itself(tmp_path: Path) -> None:
    with EmbeddedDcache(tls=False) as site, endpoint(site, tmp_path) as store:
        store.write(f"{site.url}file", DATA)
        with Observation() as seen:
            for _ in range(3):
                store.read(f"{site.url}file")
            before = seen.counted()
            with seen._lock:  # as another thread might hold it at that moment
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        store.read(f"{site.url}file")
                        counts = seen.counted()
                        status = 0 if 0 < counts["pool_requests"] < before["pool_requests"] else 2
                    finally:
                        os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert seen.counted() == before


def test_many_threads() -> None:
    seen = Observation()
    barrier = threading.Barrier(THREADS)

    def see() -> None:
        barrier.wait()
        for _ in range(200):
            seen._see(exchange("GET"))

    threads = [threading.Thread(target=see) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.counted()["door_requests"] == THREADS * 200
    assert seen.histograms()["phase.door"].count == THREADS * 200
