"""Credentials that change while work goes on: both planes, against the embedded dCache and over TLS."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential, refused
from lsst.daf.butler_dcache.auth.renewal import RenewedSource
from lsst.daf.butler_dcache.auth.sources import FileSource, StaticSource, source_for
from lsst.daf.butler_dcache.config.discovery import VARIABLES
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from scripted_server import ScriptedServer, Talk
from xrootd_server import write_certificates

DAY = b'{"validity": "P1D"}'


@pytest.fixture(autouse=True)
def forget_refusals() -> Iterator[None]:
    refused.clear()
    yield
    refused.clear()


@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    """A dCache that does not block whoever is refused, which would take its time."""
    with EmbeddedDcache(limiter=False) as server:
        yield server


def endpoint(dcache: EmbeddedDcache) -> EndpointSettings:
    base_url = dcache.url.replace("davs", "https").removesuffix("data/")
    return EndpointSettings(base_url, trusted_authorities=dcache.ca_file)


def macaroon(dcache: EmbeddedDcache) -> str:
    access = dcache.site.access
    return access.mint.issue(access.accounts[dcache.user].login, "/", DAY)


def tampered(token: str) -> str:
    """Change the signature, whose packet stays one."""
    return token[:-24] + ("A" * 8 if token[-24:-16] != "A" * 8 else "B" * 8) + token[-16:]


def refusals(dcache: EmbeddedDcache) -> int:
    return sum(record.status == 401 for record in dcache.transcript())


class Issuer:
    """Hands out macaroons of a life of its own on a clock that the test moves."""

    def __init__(self, dcache: EmbeddedDcache, life: float = 3600, bad: int = 0) -> None:
        self._dcache = dcache
        self._life = life
        self._bad = bad
        self.ahead = 0.0
        self.count = 0
        self.source = RenewedSource(self, 20, "the issuer", clock=self.now, monotonic=self.now)

    def now(self) -> float:
        return time.time() + self.ahead

    def __call__(self) -> Credential:
        self.count += 1
        token = macaroon(self._dcache)
        credential = Credential.bearer(tampered(token) if self.count <= self._bad else token, "issuer")
        return replace(credential, expires=datetime.fromtimestamp(self.now() + self._life, UTC))


def test_a_walk_survives_any_number_of_renewals(dcache: EmbeddedDcache) -> None:
    """Tokens of ten seconds, four of which pass with each request."""
    issuer = Issuer(dcache, life=10)

    class Passing:
        def current(self) -> Credential:
            issuer.ahead += 4
            credential = issuer.source.current()
            assert credential.expires is not None
            assert credential.expires.timestamp() > issuer.now()
            return credential

    for number in range(40):
        dcache.place(f"/data/walk/{number}/deep/file", b"x")
    before = refusals(dcache)
    store = WebdavStore(endpoint(dcache), credentials=Passing())
    todo, files = [f"{dcache.url}walk/"], []
    while todo:
        for info in store.list_directory(todo.pop()):
            (todo if info.is_directory else files).append(info.url)
    assert len(files) == 40
    assert store.read(files[0]) == b"x"
    assert issuer.count > 20
    assert refusals(dcache) == before


@pytest.mark.parametrize("plane", ["control", "data"])
@pytest.mark.parametrize("bad", [1, 9])
def test_a_refused_token_is_renewed_once(dcache: EmbeddedDcache, plane: str, bad: int) -> None:
    """A refusal is repeated with another token, whatever was asked; two refusals are an error."""
    issuer = Issuer(dcache, bad=bad)
    settings = endpoint(dcache)
    url = f"{settings.base_url}data/renewed-{plane}-{bad}"
    before = refusals(dcache)

    def ask() -> int:
        if plane == "control":
            control = ControlPlane(settings, issuer.source, pacer_for(settings))
            return control.request("MKCOL", url, deadline=Deadline(20)).status
        data = DataPlane(settings, issuer.source, pacer_for(settings))
        with data.open("PUT", url, body=b"x", deadline=Deadline(20), authenticate=True) as answer:
            return answer.status

    if bad == 1:
        assert ask() == 201
        assert issuer.count == 2
        assert refusals(dcache) == before + 1
        return
    with pytest.raises(CredentialError) as caught:
        ask()
    assert caught.value.status == 401
    for _ in range(5):
        with pytest.raises(CredentialError, match="has refused this credential before"):
            ask()
    assert issuer.count == 2
    assert refusals(dcache) == before + 2, "the third would block this host"


def test_a_file_that_is_renewed_while_its_token_is_refused(dcache: EmbeddedDcache, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(tampered(macaroon(dcache)))
    file = FileSource(str(path), Credential.bearer, "BEARER_TOKEN_FILE")
    asked = []

    class Renewing:
        def current(self) -> Credential:
            asked.append(refusals(dcache))
            if len(asked) == 2:  # after the refusal
                path.write_text(macaroon(dcache))
            return file.current()

    settings = endpoint(dcache)
    control = ControlPlane(settings, Renewing(), pacer_for(settings))
    answer = control.request("PROPFIND", settings.base_url, headers={"Depth": "0"}, deadline=Deadline(20))
    assert answer.status == 207
    assert asked[1] == asked[0] + 1


def test_a_credential_that_ends_while_its_turn_is_awaited(dcache: EmbeddedDcache) -> None:
    """It is looked at again just before it is sent."""
    settings = endpoint(dcache)
    source = StaticSource(Credential.bearer(macaroon(dcache), "issuer"))
    control = ControlPlane(settings, source, pacer_for(settings))
    data = DataPlane(settings, source, pacer_for(settings))
    checks: list[str] = []
    before = len(dcache.transcript())

    def over(self: Credential, url: str, now: datetime | None = None) -> None:
        checks.append(url)
        if len(checks) == 2:
            raise CredentialError("over", url=url)

    for ask in (
        lambda: control.request("MKCOL", settings.base_url + "data/over", deadline=Deadline(20)),
        lambda: data.open("PUT", settings.base_url + "data/over", deadline=Deadline(20), authenticate=True),
    ):
        checks.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Credential, "check", over)
            with pytest.raises(CredentialError, match="over"):
                ask()
    assert len(dcache.transcript()) == before


@pytest.mark.parametrize(
    "place", ["token", "command", "rclone", "netrc_file", "discovered", "BEARER_TOKEN", "NETRC"]
)
def test_each_place_is_good_for_a_file(
    dcache: EmbeddedDcache, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write, read and remove, by an entry of the site's file or by the environment alone."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    token, rclone, netrc = (tmp_path / name for name in (f"bt_u{os.geteuid()}", "rclone.conf", "netrc"))
    for path in (token, rclone, netrc):
        path.touch(0o600)
    token.write_text(macaroon(dcache) + "\n")
    rclone.write_text(f"[dc]\nurl = {endpoint(dcache).base_url}data/\nbearer_token = {macaroon(dcache)}\n")
    password = Path(dcache.password_file).read_text()
    netrc.write_text(f"machine localhost login {dcache.user} password {password}\n")
    own: dict[str, object] = {}
    if place == "token":
        own = {"token": macaroon(dcache)}
    elif place == "command":
        own = {"token_command": ["cat", str(token)]}
    elif place == "rclone":
        own = {"token_file": str(rclone)}
    elif place == "netrc_file":
        own = {"netrc_file": str(netrc)}
    elif place == "discovered":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    else:
        monkeypatch.setenv(place, macaroon(dcache) if place == "BEARER_TOKEN" else str(netrc))
    entry = {"base_url": endpoint(dcache).base_url, "trusted_authorities": dcache.ca_file, "dcache": own}
    (tmp_path / "webdav.yaml").write_text(json.dumps([entry]))
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(tmp_path / "webdav.yaml"))
    before = refusals(dcache)
    store = store_for(dcache.url)
    url = f"{dcache.url}places/{place}"
    data = bytes(200_000)
    store.write(url, data)
    assert store.read(url) == data
    store.remove(url)
    assert refusals(dcache) == before


# -- certificates


class Presented:
    """A TLS server that keeps its connections, and notes whose certificate each request came with."""

    def __init__(self, *folders: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folders[0] / "host.pem", folders[0] / "host.key")
        for folder in folders:
            self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.serials: list[object] = []

    def __call__(self, talk: Talk) -> None:
        with self._context.wrap_socket(talk.sock, server_side=True) as talk.sock:
            certificate = talk.sock.getpeercert()
            assert certificate is not None
            while talk.head():
                self.serials.append(certificate["serialNumber"])
                talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("plane", ["control", "data"])
def test_a_renewed_certificate_is_presented(tmp_path: Path, plane: str) -> None:
    """On a new connection: the kept one speaks for the old certificate."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_certificates(tmp_path / name)
    presented = Presented(tmp_path / "old", tmp_path / "new")
    proxy = tmp_path / "proxy"

    def renew(folder: Path) -> None:
        staged = tmp_path / "staged"
        staged.touch(0o600)
        staged.write_bytes((folder / "user.pem").read_bytes() + (folder / "user.key").read_bytes())
        staged.rename(proxy)

    renew(tmp_path / "old")
    with ScriptedServer(presented) as server:
        settings = EndpointSettings(
            f"https://localhost:{server.port}/",
            trusted_authorities=str(tmp_path / "old" / "ca.pem"),
            user_certificate=str(proxy),
            user_key=str(proxy),
            requests_per_second=0,
        )
        source = source_for(settings)
        control = ControlPlane(settings, source, pacer_for(settings))
        data = DataPlane(settings, source, pacer_for(settings))

        def ask() -> None:
            if plane == "control":
                control.request("GET", settings.base_url, deadline=Deadline(20))
            else:
                data.open("GET", settings.base_url, deadline=Deadline(20), authenticate=True).close()

        ask()
        ask()
        renew(tmp_path / "new")
        ask()
        ask()
        control.close()
        data.close()
        connections = server.connections
    one, again, *others = presented.serials
    assert one == again
    assert len(others) == 2
    assert set(others) - {one} == set(others)
    assert connections == 2
