"""``Authorization`` goes to the servers that it is for, and to no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.sources import StaticSource
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from scripted_server import ScriptedServer, Talk

ACCOUNT = StaticSource(Credential.basic("me", "password-of-mine"))
TOKEN = StaticSource(Credential.bearer("token-of-mine-0123"))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def speak(talk: Talk) -> None:
        while talk.head():  # who closes a connection unasked may reset the next request on it
            talk.say(b"HTTP/1.1 307 Go\r\nLocation: http://localhost:1/x\r\nContent-Length: 0\r\n\r\n")

    with ScriptedServer(speak) as server:
        yield server


def control(door: str, source: StaticSource, **changes: str) -> ControlPlane:
    settings = EndpointSettings(door, requests_per_second=0, **changes)  # type: ignore[arg-type]
    return ControlPlane(settings, source, pacer_for(settings))


@pytest.mark.parametrize(
    "door", ["http://127.0.0.1:{port}/", "https://localhost:{port}/", "http://localhost:1/"]
)
def test_another_host_scheme_or_port(server: ScriptedServer, door: str) -> None:
    plane = control(door.format(port=server.port), ACCOUNT)
    for method in ("GET", "PUT", "COPY"):
        answer = plane.request(method, f"http://localhost:{server.port}/x", deadline=Deadline(10))
        assert answer.status == 307, "and nobody went there"
    assert not any(b"uthorization" in head for head in server.heads)
    assert len(server.heads) == 3


def test_the_frontend_is_one_of_them(server: ScriptedServer) -> None:
    plane = control("http://localhost:1/", ACCOUNT, frontend_url=server.url)
    plane.request("GET", server.url, deadline=Deadline(10))
    assert b"\r\nAuthorization: Basic " in server.heads[0]


def test_no_token_without_encryption(server: ScriptedServer) -> None:
    with pytest.raises(CredentialError, match="unencrypted"):
        control(server.url, TOKEN).request("GET", server.url, deadline=Deadline(10))
    settings = EndpointSettings(server.url, requests_per_second=0)
    data = DataPlane(settings, TOKEN, pacer_for(settings))
    with pytest.raises(CredentialError, match="unencrypted"):
        data.open("GET", server.url, authenticate=True, deadline=Deadline(10))
    assert server.connections == 0


def test_an_explicit_credential_does_not_leave_either(server: ScriptedServer) -> None:
    plane = control("https://door.example.org:2880/", TOKEN)
    with pytest.raises(CredentialError, match="own doors and frontend only"):
        plane.request("GET", server.url, credential=ACCOUNT.current(), deadline=Deadline(10))
    with pytest.raises(CredentialError, match="as a Credential"):
        plane.request("GET", server.url, headers={"authorization": "x"}, deadline=Deadline(10))
    assert server.connections == 0
