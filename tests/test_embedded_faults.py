"""Each fault does to a client what its name says, as often as it says."""

from __future__ import annotations

import http.client
import socket
import time
import zlib
from collections.abc import Iterator

import pytest
from embedded_client import DATA, Client
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault

LISTING = b'<D:propfind xmlns:D="DAV:"><D:prop><D:getcontentlength/></D:prop></D:propfind>'


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(limiter=False) as dcache:
        yield dcache


@pytest.fixture
def dcache(running: EmbeddedDcache) -> Iterator[EmbeddedDcache]:
    running.place("file", DATA)
    running.place("dir/a", b"a")
    running.place("dir/b", b"b")
    yield running
    running.faults.clear()


@pytest.fixture
def client(dcache: EmbeddedDcache) -> Iterator[Client]:
    client = Client(dcache)
    yield client
    client.close()


def test_status_comes_as_often_as_asked_for_and_without_effect(
    dcache: EmbeddedDcache, client: Client
) -> None:
    fault = dcache.faults.add(
        Fault("status", "*/file", "DELETE", "door", 2, 503, "Out of order", {"Retry-After": "7"})
    )
    answers = [client.ask("DELETE", "dir/a"), *(client.ask("DELETE", "file") for _ in range(3))]
    assert [answer.status for answer in answers] == [204, 503, 503, 204]
    assert (answers[1].reason, answers[1].headers["retry-after"]) == ("Out of order", "7")
    assert fault.hits == 2


def test_lost_answers_come_after_the_effect(dcache: EmbeddedDcache, client: Client) -> None:
    for method, path, headers in (
        ("MOVE", "file", {"Destination": "/data/moved"}),
        ("PUT", "new", {}),
        ("DELETE", "dir", {}),
    ):
        dcache.faults.add(Fault("lose_answer", method=method))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            client.ask(method, path, b"" if method == "PUT" else None, **headers)
        client.close()
    assert [client.ask("HEAD", path).status for path in ("file", "moved", "new", "dir")] == [
        404,
        200,
        200,
        404,
    ]


def test_dropped_requests_have_no_effect(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("drop", method="DELETE"))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.ask("DELETE", "file")
    client.close()
    assert client.ask("HEAD", "file").status == 200


def test_a_stall_is_as_long_as_asked_for(dcache: EmbeddedDcache, client: Client) -> None:
    client.ask("HEAD", "file")
    dcache.faults.add(Fault("stall", method="HEAD", seconds=0.2))
    begin = time.monotonic()
    assert client.ask("HEAD", "file").status == 200
    assert time.monotonic() - begin >= 0.2


def test_a_download_ends_early(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("cut_download", server="pool", at_byte=1000))
    url = client.ask("GET", "file").location
    with pytest.raises(http.client.IncompleteRead) as problem:
        client.ask("GET", url)
    assert problem.value.partial == DATA[:1000]


def test_an_upload_ends_early_and_leaves_a_ruin(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("cut_upload", server="pool", at_byte=1000))
    url = client.redirect("ruin", len(DATA)).location
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        client.ask("PUT", url, DATA)
    client.close()
    head = client.ask("HEAD", "ruin", Want_Digest="adler32")
    assert head.headers["content-length"] == "1000"
    assert head.headers["digest"] == f"adler32={zlib.adler32(DATA[:1000]):08x}"
    assert client.ask("GET", "ruin").body == b"Internal problem: File is broken\n"


def test_a_byte_flips_on_its_way(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("corrupt_download", server="pool", at_byte=5))
    body = client.ask("GET", client.ask("GET", "file").location).body
    assert body == DATA[:5] + bytes([DATA[5] ^ 0xFF]) + DATA[6:]
    dcache.faults.add(Fault("corrupt_upload", server="pool", at_byte=9999))
    answer = client.ask("PUT", client.redirect("flipped", len(DATA)).location, DATA, Want_Digest="adler32")
    spoiled = DATA[:9999] + bytes([DATA[9999] ^ 0xFF]) + DATA[10000:]
    assert answer.status == 201
    assert answer.headers["digest"] == f"adler32={zlib.adler32(spoiled):08x}"


def test_a_pool_keeps_a_part_and_calls_it_success(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("keep", server="pool", at_byte=1000))
    answer = client.ask("PUT", client.redirect("part", len(DATA)).location, DATA)
    assert (answer.status, answer.body) == (201, b"1000 bytes uploaded\r\n\r\n")
    assert client.ask("GET", client.ask("GET", "part").location).body == DATA[:1000]


@pytest.mark.parametrize("server", ["door", "pool"])
def test_a_digest_is_wrong(dcache: EmbeddedDcache, client: Client, server: str) -> None:
    dcache.faults.add(Fault("wrong_digest", server=server))
    door = client.ask("HEAD", "file", Want_Digest="adler32").headers["digest"]
    url = client.ask("GET", "file").location
    pool = client.ask("GET", url, Want_Digest="adler32").headers["digest"]
    right = f"adler32={zlib.adler32(DATA):08x}"
    assert [door == right, pool == right] == [server == "pool", server == "door"]


def test_a_range_is_ignored(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("ignore_range"))
    answer = client.ask("GET", client.ask("GET", "file").location, Range="bytes=10-19")
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize(
    ("fault", "count"), [(Fault("truncate_listing", at_byte=1), 1), (Fault("unlistable"), 0)]
)
def test_a_listing_lies(dcache: EmbeddedDcache, client: Client, fault: Fault, count: int) -> None:
    dcache.faults.add(fault)
    answer = client.ask("PROPFIND", "dir/", LISTING, Depth="1")
    assert answer.status == 207
    assert answer.body.count(b"<D:response>") == 1 + count
    assert client.ask("PROPFIND", "dir/", LISTING, Depth="1").body.count(b"<D:response>") == 3


def test_no_pool_serves(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("dead_pool", times=2))
    assert client.ask("GET", "file").status == 500
    assert client.redirect("unborn", 5).status == 500
    assert client.ask("HEAD", "unborn").status == 404


def test_a_pool_is_gone_after_the_redirect(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("refuse_pool"))
    url = client.ask("GET", "file").location
    with pytest.raises((ConnectionRefusedError, socket.gaierror)):
        client.ask("GET", url)


def test_a_pool_speaks_plain_http_behind_an_https_door(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("http_pool"))
    url = client.ask("GET", "file").location
    assert url.startswith("http://")
    assert client.ask("GET", url).body == DATA


def test_the_namespace_does_not_answer(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("pnfs_timeout"))
    answer = client.ask("HEAD", "file")
    assert answer.status == 500
    assert client.ask("HEAD", "file").status == 200


def test_a_dead_instance_drops_everybody(dcache: EmbeddedDcache) -> None:
    with EmbeddedDcache() as other:
        client = Client(other)
        assert client.ask("HEAD", "").status == 200
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        client.ask("HEAD", "")
    client.close()


def test_faults_wait_until_it_is_their_turn(dcache: EmbeddedDcache, client: Client) -> None:
    fault = dcache.faults.add(Fault("status", path="*/file", status=500, after=2))
    assert [client.ask("HEAD", "file").status for _ in range(4)] == [200, 200, 500, 200]
    dcache.faults.remove([dcache.faults.add(Fault("status", path="*/file", status=503))])
    assert client.ask("HEAD", "file").status == 200
    assert (fault.hits, fault.seen) == (1, 3)


@pytest.mark.parametrize("has_effect", [False, True])
def test_a_door_crashes_before_or_after_the_effect(
    dcache: EmbeddedDcache, client: Client, has_effect: bool
) -> None:
    dcache.faults.add(Fault("restart", method="DELETE", has_effect=has_effect))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.ask("DELETE", "file")
    assert Client(dcache).ask("HEAD", "file").status == (404 if has_effect else 200)


def fetch(client: Client) -> bytes:
    return client.ask("GET", client.ask("GET", "file").location).body


def test_a_pool_crashes_and_its_urls_are_dead(dcache: EmbeddedDcache, client: Client) -> None:
    before = [pool.listeners["https"].port for pool in dcache.site.pools]
    dcache.faults.add(Fault("restart", server="pool", times=1))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        fetch(client)
    after = [pool.listeners["https"].port for pool in dcache.site.pools]
    assert len(set(before) & set(after)) == len(before) - 1
    assert fetch(client) == DATA


def test_an_answer_ends_within_its_head(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("cut_head", method="DELETE", at_byte=7))
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        client.ask("DELETE", "file")
    assert Client(dcache).ask("HEAD", "file").status == 404


def test_an_answer_that_is_not_http_comes_after_the_effect(dcache: EmbeddedDcache, client: Client) -> None:
    dcache.faults.add(Fault("garble", method="DELETE"))
    with pytest.raises(http.client.BadStatusLine):
        client.ask("DELETE", "file")
    assert Client(dcache).ask("HEAD", "file").status == 404
