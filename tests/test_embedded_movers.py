"""What recordings cannot show of pool URLs: time, segments, and who races whom."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from embedded_client import DATA, Client, Reply
from lsst.daf.butler_dcache.embedded import EmbeddedDcache


@pytest.fixture(scope="module")
def plain() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=False, limiter=False) as dcache:
        dcache.place("file", DATA)
        yield dcache


class TestTime:
    def test_an_unused_url_dies(self) -> None:
        with EmbeddedDcache(time_scale=0.0005) as dcache:  # 300 s are 150 ms
            dcache.place("file", DATA)
            client = Client(dcache)
            first = client.ask("GET", "file").location
            assert client.ask("GET", first, Range="bytes=0-9").status == 206
            unused = client.ask("GET", "file").location
            write = client.redirect("new", 5).location
            deadline = time.monotonic() + 10
            while dcache.site.pools[0].movers.active() or dcache.site.pools[1].movers.active():
                if len([m for p in dcache.site.pools for m in p.movers.active()]) == 1:
                    break
                assert time.monotonic() < deadline
            assert client.ask("GET", unused).status == 307
            assert client.ask("PUT", write, b"hello").status == 307
            assert client.ask("GET", first, Range="bytes=0-9").status == 206
            assert "content-length" not in client.ask("HEAD", "new").headers
            client.close()

    def test_a_full_pool_lets_the_door_wait_and_then_fail(self) -> None:
        with EmbeddedDcache(time_scale=0.001, pools=1) as dcache:
            dcache.place("file", DATA)
            dcache.site.pools[0].movers.slots = 1
            client, other = Client(dcache), Client(dcache)
            held = client.ask("GET", "file").location
            client.ask("GET", held, Range="bytes=0-9")
            refused = other.ask("GET", "file")
            assert refused.status == 500
            assert b"No redirect from mover on pool pool1" in refused.body
            assert other.ask("HEAD", "new").status == 404
            client.close()
            other.close()


class TestSegments:
    def test_small_ranges_on_a_kept_connection_wait_for_the_delayed_acknowledgement(
        self, plain: EmbeddedDcache
    ) -> None:
        client = Client(plain)
        url = client.ask("GET", "file").location
        took = []
        for number in range(30):
            begin = time.monotonic()
            answer = client.ask("GET", url, Range=f"bytes={number}-{number + 4095}")
            took.append(time.monotonic() - begin)
            assert answer.body == DATA[number : number + 4096]
        assert statistics.median(took[10:]) >= 0.039
        client.close()

    def test_door_and_frontend_do_not(self, plain: EmbeddedDcache) -> None:
        client = Client(plain)
        took = []
        for _ in range(20):
            begin = time.monotonic()
            assert client.ask("PROPFIND", "", Depth="0").status == 207
            took.append(time.monotonic() - begin)
        assert statistics.median(took) < 0.03
        client.close()


def _at_once(clients: list[Client], method: str, paths: list[str], **headers: str) -> list[Reply]:
    barrier = Barrier(len(clients))

    def go(pair: tuple[Client, str]) -> Reply:
        client, path = pair
        body = path.encode() if method == "PUT" else None
        barrier.wait()
        return client.ask(method, path, body, **headers)

    with ThreadPoolExecutor(len(clients)) as threads:
        return list(threads.map(go, zip(clients, paths, strict=True)))


class TestRaces:
    @pytest.fixture
    def four(self, plain: EmbeddedDcache) -> Iterator[list[Client]]:
        clients = [Client(plain) for _ in range(4)]
        for client in clients:
            client.ask("HEAD", "file")
        yield clients
        for client in clients:
            client.close()

    def test_if_none_match_can_be_won_twice(self, four: list[Client]) -> None:
        most = 0
        for number in range(25):
            answers = _at_once(four, "PUT", [f"put-{number}"] * 4, If_None_Match="*")
            won = [answer for answer in answers if answer.status == 201]
            assert {answer.status for answer in answers} <= {201, 412, 500}
            most = max(most, len(won))
        assert most >= 2

    def test_overwrite_f_can_be_won_twice(self, four: list[Client]) -> None:
        most = 0
        for number in range(25):
            paths = [f"move-{number}-{n}" for n in range(4)]
            for path in paths:
                assert four[0].ask("PUT", path, path.encode()).status == 201
            target = f"/data/moved-{number}"
            answers = _at_once(four, "MOVE", paths, Destination=target, Overwrite="F")
            assert {answer.status for answer in answers} <= {201, 412, 500}
            most = max(most, sum(answer.status == 201 for answer in answers))
        assert most >= 2

    def test_mkcol_is_won_once(self, four: list[Client]) -> None:
        for number in range(25):
            answers = _at_once(four, "MKCOL", [f"directory-{number}"] * 4)
            assert sorted(answer.status for answer in answers) == [201, 405, 405, 405]


class TestCreateOnly:
    """A macaroon without DELETE is exclusive."""

    @pytest.fixture
    def four(self) -> Iterator[list[Client]]:
        with EmbeddedDcache(limiter=False) as dcache:
            clients = [Client(dcache) for _ in range(4)]
            kind = "application/macaroon-request"
            body = b'{"caveats": ["activity:UPLOAD,MANAGE,LIST,READ_METADATA"]}'
            answer = clients[0].ask("POST", "", body, Content_Type=kind)
            token = answer.body.split(b'"macaroon": "')[1].split(b'"')[0].decode()
            for client in clients:
                client.login = f"Bearer {token}"
                client.ask("HEAD", "")
            yield clients
            for client in clients:
                client.close()

    def test_put_is_won_once(self, four: list[Client]) -> None:
        for number in range(15):
            answers = _at_once(four, "PUT", [f"put-{number}"] * 4)
            assert sorted(answer.status for answer in answers) == [201, 403, 403, 403]

    def test_move_is_won_once(self, four: list[Client]) -> None:
        for number in range(25):
            paths = [f"move-{number}-{n}" for n in range(4)]
            for path in paths:
                assert four[0].ask("PUT", path, path.encode()).status == 201
            target = f"/data/moved-{number}"
            answers = _at_once(four, "MOVE", paths, Destination=target, Overwrite="F")
            assert sum(answer.status == 201 for answer in answers) == 1
            assert {answer.status for answer in answers} <= {201, 412, 500}


def test_a_large_file_passes_without_being_held_in_memory(tmp_path: Path) -> None:
    size = 64 << 20

    def peak() -> int:
        rows = Path("/proc/self/status").read_text().splitlines()
        return int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) << 10

    piece = os.urandom(1 << 20)
    with EmbeddedDcache(tls=False) as dcache:
        client = Client(dcache)
        url = client.redirect("large", size).location
        connection = client.connection(url)
        before = peak()
        connection.putrequest("PUT", url.split("/", 3)[3].join(["/", ""]))
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for _ in range(size >> 20):
            connection.send(piece)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, f"{size} bytes uploaded\r\n\r\n".encode())
        assert peak() - before < size // 2
        url = client.ask("GET", "large").location
        last = client.ask("GET", url, Range="bytes=-16")
        assert last.body == piece[-16:]
        client.close()
