"""How an embedded dCache starts and stops, what it offers and what it keeps."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from embedded_client import DATA, Client
from lsst.daf.butler_dcache.embedded import EmbeddedDcache, Fault, FaultKind


def test_ready_in_under_a_second_and_gone_without_a_trace() -> None:
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    begin = time.monotonic()
    with EmbeddedDcache() as dcache:
        client = Client(dcache)
        assert client.ask("PUT", "a", DATA).status == 201
        assert time.monotonic() - begin < 1.0
        url = client.ask("GET", "a").location
        client.ask("GET", url, Range="bytes=0-9")
        folders = [Path(dcache.password_file).parent, dcache.site.namespace.contents]
    assert set(threading.enumerate()) <= threads
    client.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not any(folder.exists() for folder in folders)


def test_instances_do_not_know_one_another() -> None:
    with EmbeddedDcache() as one, EmbeddedDcache(version="12.0.1", tls=False) as other:
        one.place("only/here", b"1")
        clients = [Client(one), Client(other)]
        assert [c.ask("GET", "only/here").status for c in clients] == [302, 404]
        assert [c.ask("HEAD", "only/here").headers["server"] for c in clients] == [
            "dCache/11.2.4",
            "dCache/12.0.1",
        ]
        assert clients[1].ask("HEAD", "only/here", login=clients[0].login).status == 401
        for client in clients:
            client.close()


def test_a_folder_keeps_names_contents_and_passwords(tmp_path: Path) -> None:
    with EmbeddedDcache(root=tmp_path) as dcache:
        client = Client(dcache)
        client.ask("PUT", "kept/file?xattr.colour=blue", DATA)
        etag = client.ask("HEAD", "kept/file").headers["etag"]
        client.close()
        secret = Path(dcache.password_file).read_text()
    with EmbeddedDcache(root=tmp_path) as dcache:
        client = Client(dcache)
        head = client.ask("HEAD", "kept/file", Want_Digest="adler32")
        assert head.headers["etag"] == etag
        assert head.headers["digest"] == "adler32=f475ed1e"
        assert client.ask("GET", client.ask("GET", "kept/file").location).body == DATA
        client.close()
        assert Path(dcache.password_file).read_text() == secret


class TestEnvironment:
    def test_over_tls_it_has_a_token_with_full_rights(self) -> None:
        with EmbeddedDcache() as dcache:
            (settings,) = yaml.safe_load(Path(dcache.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
            token = dcache.environment["BEARER_TOKEN_FILE"]
            assert settings["base_url"] + "data/" == dcache.url
            assert settings["trusted_authorities"] == dcache.ca_file
            assert settings["token"] == token
            assert stat.S_IMODE(os.stat(token).st_mode) == 0o600
            client = Client(dcache)
            client.login = "Bearer " + Path(token).read_text()
            assert client.ask("PUT", "a/b", b"x").status == 201
            assert client.ask("PUT", "a/b", b"y").status == 201
            assert client.ask("MOVE", "a/b", Destination="/data/a/c").status == 201
            assert client.ask("DELETE", "a").status == 204
            client.close()

    def test_over_plain_http_it_has_a_password(self) -> None:
        with EmbeddedDcache(tls=False) as dcache:
            assert set(dcache.environment) == {"LSST_RESOURCES_WEBDAV_CONFIG"}
            (settings,) = yaml.safe_load(Path(dcache.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
            assert settings["user_name"] == "alice"
            assert settings["user_password"] == Path(dcache.password_file).read_text()
            assert dcache.url.startswith("dav://")


def test_the_transcript_tells_who_asked_whom_for_what() -> None:
    with EmbeddedDcache() as dcache:
        client = Client(dcache)
        client.ask("PUT", "f", DATA)
        client.ask("GET", client.ask("GET", "f").location)
        client.ask("HEAD", "none", login="")
        rows = [dict(record) for record in dcache.transcript()]
        doors = {row["connection"] for row in rows if row["server"] == "door"}
        assert [(r["server"], r["method"], r["status"]) for r in rows] == [
            ("door", "PUT", 201),
            ("door", "GET", 302),
            ("pool", "GET", 200),
            ("door", "HEAD", 401),
        ]
        assert [(r["received"], r["sent"]) for r in rows] == [(len(DATA), 0), (0, 0), (0, len(DATA)), (0, 0)]
        assert [r["authorization"] for r in rows] == [True, True, False, True]
        assert rows[2]["path"] == "/data/f"
        assert len(doors) == 1
        client.close()


@pytest.mark.parametrize(
    ("locality", "status"), [("ONLINE", 302), ("ONLINE_AND_NEARLINE", 302), ("UNAVAILABLE", 500)]
)
def test_placed_files_are_where_they_were_put(locality: str, status: int) -> None:
    with EmbeddedDcache() as dcache:
        dcache.place("here", DATA, locality)  # type: ignore[arg-type]
        dcache.place("/data/there", b"there")
        client = Client(dcache)
        body = b'<D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>'
        assert f">{locality}<".encode() in client.ask("PROPFIND", "here", body, Depth="0").body
        assert client.ask("GET", "here").status == status
        assert client.ask("HEAD", "there").headers["content-length"] == "5"
        client.close()


def test_a_file_of_another_user_can_be_read_but_not_changed() -> None:
    with EmbeddedDcache() as dcache:
        dcache.place("file", DATA)
        bob = Client(dcache, "bob")
        assert bob.ask("GET", "file").status == 302
        assert bob.ask("PUT", "file", b"bob's").status == 403
        assert bob.ask("DELETE", "file").status == 403
        assert bob.ask("MKCOL", "directory").status == 403
        assert bob.ask("HEAD", bob.base.replace("data", "private")).status == 200
        bob.close()


def test_tls_sessions_resume_at_door_and_pool() -> None:
    with EmbeddedDcache() as dcache:
        client = Client(dcache)
        client.ask("PUT", "file", DATA)
        url = client.ask("GET", "file").location
        trust = ssl.create_default_context(cafile=dcache.ca_file)
        for where in (client.base, url):
            port = urlsplit(where).port
            session, reused = None, []
            for _ in range(2):
                with (
                    socket.create_connection(("localhost", port)) as plain,
                    trust.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
                ):
                    assert sock.version() == "TLSv1.3"
                    sock.sendall(b"HEAD /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    while sock.recv(4096):
                        pass
                    session = sock.session
                    reused.append(sock.session_reused)
            assert reused == [False, True]
        client.close()


def test_a_port_that_is_taken_is_an_error_without_leftovers() -> None:
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        EmbeddedDcache(port=other.getsockname()[1]).start()
    assert set(threading.enumerate()) <= threads


def test_a_door_comes_back_and_pool_urls_live_on() -> None:
    with EmbeddedDcache() as dcache:
        dcache.place("file", DATA)
        client = Client(dcache)
        url = client.ask("GET", "file").location
        dcache.restart_door()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            client.ask("HEAD", "file")
        assert client.ask("GET", url).body == DATA
        client.close()
        assert client.ask("HEAD", "file").status == 200
        client.close()


def test_a_pool_goes_away_and_comes_back() -> None:
    with EmbeddedDcache(pools=1) as dcache:
        dcache.place("file", DATA)
        client = Client(dcache)
        url = client.ask("GET", "file").location
        dcache.stop_pool(0)
        with pytest.raises(ConnectionRefusedError):
            client.ask("GET", url)
        assert client.ask("GET", "file").body == b"Internal problem: File is unavailable.\n"
        assert client.redirect("new", 5).status == 500
        dcache.start_pool(0)
        assert client.ask("GET", client.ask("GET", "file").location).body == DATA
        client.close()


def test_an_idle_door_closes_and_a_stalled_upload_leaves_nothing() -> None:
    with EmbeddedDcache(time_scale=0.0005) as dcache:  # 300 s are 150 ms
        client = Client(dcache)
        connection = client.connection(client.base)
        connection.putrequest("PUT", "/data/stalled")
        connection.putheader("Authorization", client.login)
        connection.putheader("Content-Length", "10")
        connection.endheaders()
        connection.send(b"12345")
        assert connection.getresponse().status == 500
        client.close()
        assert client.ask("HEAD", "stalled").status == 404
        sock = client.connection(client.base).sock
        assert sock.recv(1) == b""
        client.close()


@pytest.mark.parametrize(("server", "kind"), [("door", "full"), ("door", "over_quota"), ("pool", "full")])
def test_a_store_is_full(server: str, kind: FaultKind) -> None:
    with EmbeddedDcache() as dcache:
        dcache.faults.add(Fault(kind, server=server))
        client = Client(dcache)
        answer = client.redirect("new", len(DATA))
        if server == "pool":
            answer = client.ask("PUT", answer.location, DATA)
            assert answer.reason == "No space left on device"
        else:
            assert answer.body.startswith(b"Insufficient storage: SER_")
        assert answer.status == 507
        client.close()
