"""A write to XRootD: three requests, whatever kind of server it turns out to be.

How a real cluster takes them is in `test_store_xrootd`; here scripted servers refuse what real ones may.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lsst.daf.butler_dcache.errors import AccessDeniedError
from lsst.daf.butler_dcache.store.registry import store_for
from scripted_server import Script, ScriptedServer, Talk
from test_bad_input import DATA, multistatus, site


def answer(status: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"HTTP/1.1 {status}", "Server: XRootD", "Content-Length: 0", *headers, "", ""]
    ).encode()


def methods(server: ScriptedServer) -> list[str]:
    return [head.partition(b" ")[0].decode() for head in server.heads]


def length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])


def redirector(data: ScriptedServer, **own: bytes) -> Script:
    """Redirect what has no answer of its own."""

    def script(talk: Talk) -> None:
        while head := talk.head():
            method, path = head.decode().split()[:2]
            place = f"http://127.0.0.1:{data.port}{path}?authz=secret"
            talk.say(own.get(method) or answer("307 Temporary Redirect", f"Location: {place}"))

    return script


def data_server(**own: bytes) -> Script:
    """Take each body, and succeed at all that has no answer of its own."""

    def script(talk: Talk) -> None:
        while head := talk.head():
            talk.body(length_of(head))
            talk.say(own.get(head.partition(b" ")[0].decode()) or answer("201 Created"))

    return script


@pytest.fixture
def known(tmp_path: Path) -> dict[str, str]:
    return {"dialect": "xrootd"}


def test_three_requests(tmp_path: Path, known: dict[str, str]) -> None:
    with (
        ScriptedServer(data_server()) as data,
        ScriptedServer(redirector(data)) as door,
        site(tmp_path, door, **known) as url,
    ):
        store = store_for(url)
        for _ in range(3):
            store.write(url, DATA)
        assert methods(door) == ["PUT"] * 3
        assert methods(data) == ["PUT", "MOVE"] * 3
        assert door.connections == data.connections == 1
        assert all(length_of(head) == 0 for head in door.heads), "a redirector gets no bytes"
        assert all(b"?authz=secret HTTP" in head and b"Authorization" not in head for head in data.heads)


def test_a_data_server_that_does_not_rename(tmp_path: Path, known: dict[str, str]) -> None:
    refuses = answer("403 Forbidden")
    with (
        ScriptedServer(data_server(MOVE=refuses)) as data,
        ScriptedServer(redirector(data, MOVE=answer("201 Created"))) as door,
        site(tmp_path, door, **known) as url,
    ):
        store_for(url).write(url, DATA)
        assert methods(door) == ["PUT", "MOVE"]
    with (
        ScriptedServer(data_server(MOVE=refuses)) as data,
        ScriptedServer(redirector(data, MOVE=refuses)) as door,
        site(tmp_path, door, **known) as url,
        pytest.raises(AccessDeniedError),
    ):
        store_for(url).write(url, DATA)
    assert methods(data) == ["PUT", "MOVE", "DELETE"], "nothing is left"


def test_a_rename_that_happened_and_failed(tmp_path: Path, known: dict[str, str]) -> None:
    def script(talk: Talk) -> None:
        while head := talk.head():
            method, path = head.decode().split()[:2]
            if method == "PROPFIND":
                talk.body(length_of(head))
            if method != "PROPFIND":
                talk.say(answer("307 Temporary Redirect", f"Location: http://127.0.0.1:{data.port}{path}"))
            elif path == "/file":
                talk.say(multistatus(len(DATA)))
            else:
                talk.say(answer("404 Not Found"))

    with (
        ScriptedServer(data_server(MOVE=answer("500 Internal Server Error"))) as data,
        ScriptedServer(script) as door,
        site(tmp_path, door, **known) as url,
    ):
        store_for(url).write(url, DATA)
        assert methods(door) == ["PUT", "PROPFIND", "PROPFIND"], "a second MOVE would find nothing"


def test_a_server_that_stands_alone(tmp_path: Path, known: dict[str, str]) -> None:
    bodies: list[bytes] = []

    def script(talk: Talk) -> None:
        while head := talk.head():
            if b"Expect: 100-continue" in head:
                talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            if head.startswith(b"PUT"):
                bodies.append(talk.body(length_of(head)))
            talk.say(answer("201 Created"))

    with ScriptedServer(script) as server, site(tmp_path, server, **known) as url:
        store = store_for(url)
        for _ in range(2):
            store.write(url, DATA)
        # It says by the first PUT, without a body, that it redirects nothing.
        assert bodies == [b"", DATA, DATA]
        assert methods(server) == ["PUT", "PUT", "MOVE", "PUT", "MOVE"]


def test_a_redirector_that_closes(tmp_path: Path, known: dict[str, str]) -> None:
    def script(data: ScriptedServer) -> Script:
        def once(talk: Talk) -> None:
            path = talk.head().decode().split()[1]
            place = f"http://127.0.0.1:{data.port}{path}"
            talk.say(answer("307 Temporary Redirect", f"Location: {place}"))
            talk.head()

        return once

    with (
        ScriptedServer(data_server()) as data,
        ScriptedServer(script(data)) as door,
        site(tmp_path, door, **known) as url,
    ):
        store = store_for(url)
        for _ in range(3):
            store.write(url, DATA)
        assert methods(data) == ["PUT", "MOVE"] * 3
