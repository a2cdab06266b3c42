"""Tokens of an OpenID Connect issuer: a real one, for both flows, and some that misbehave."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.issuer import Issuer
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings, OidcSettings
from lsst.daf.butler_dcache.errors import CredentialError
from scripted_server import ScriptedServer, Talk
from xrootd_server import write_certificates

HERE = Path(__file__).resolve().parent
PROVIDER = HERE.parent / ".oidc-provider"
SECRETS = ("client-secret", "first-refresh")


class Provider:
    """The provider in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["node", str(HERE / "oidc_provider.mjs"), str(PROVIDER), "host.key", "host.pem"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.issuer: str = self.line()["issuer"]

    def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        read: dict[str, Any] = json.loads(self._process.stdout.readline())
        return read

    def change(self, **behaviour: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(behaviour) + "\n")
        self._process.stdin.flush()
        assert self.line() == {"changed": True}

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oidc")
    write_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Provider]:
    if not (PROVIDER / "node_modules" / "oauth2-mock-server").is_dir():
        reason = "no OpenID Connect provider here: install one with .ci/oidc-provider"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    provider = Provider(folder)
    yield provider
    provider.close()


@pytest.fixture
def provider(started: Provider) -> Provider:
    started.change(life=3600, refresh="first-refresh", opaque=False, body=None)
    return started


def secret(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "client_id": "job",
        "client_secret_file": secret(tmp_path / "secret", "client-secret"),
        "trusted_authorities": str(folder / "ca.pem"),
        "origin": "webdav.yaml: key dcache: oidc",
        "timeout_seconds": 20.0,
    }


def refusal(settings: OidcSettings) -> str:
    with pytest.raises(CredentialError) as caught:
        Issuer(settings)()
    text = str(caught.value)
    assert settings.issuer in text
    assert settings.origin in text
    assert "nothing was sent" in text
    for word in SECRETS:
        assert word not in text
        assert word not in repr(caught.value.__cause__)
    assert caught.value.__suppress_context__
    return text


def test_client_credentials(provider: Provider, client: dict[str, Any]) -> None:
    for way in ("client_secret_basic", "client_secret_post"):
        settings = OidcSettings(
            provider.issuer,
            **client,
            client_authentication=way,
            scope="storage.read:/",
            audience="https://door",
        )
        credential = Issuer(settings)()
        assert provider.line() == {
            "grant": "client_credentials",
            "scope": "storage.read:/",
            "audience": "https://door",
            "basic": way == "client_secret_basic",
        }
        assert credential.claims is not None
        assert credential.claims.issuer == provider.issuer
        assert credential.claims.scopes == ("storage.read:/",)
        assert credential.expires is not None
        assert abs(credential.expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
        assert settings.issuer in credential.origin


def test_refresh_tokens_are_kept_as_they_change(
    provider: Provider, client: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "refresh"
    settings = OidcSettings(provider.issuer, **client, refresh_token_file=secret(path, "first-refresh"))
    held = {path.read_text()}
    for _ in range(3):
        assert Issuer(settings)().claims is not None
        assert provider.line()["grant"] == "refresh_token"
        held.add(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(held) == 4
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_several_processes_use_one_refresh_token(
    provider: Provider, client: dict[str, Any], tmp_path: Path
) -> None:
    """Each use voids the token before; eight at once is eight in a row."""
    path = tmp_path / "refresh"
    settings = OidcSettings(provider.issuer, **client, refresh_token_file=secret(path, "first-refresh"))
    with ThreadPoolExecutor(8) as pool:
        credentials = list(pool.map(lambda _: Issuer(settings)(), range(8)))
    assert len({credential.fingerprint for credential in credentials}) == 8
    for _ in range(8):
        assert provider.line()["grant"] == "refresh_token"


def test_a_refresh_token_that_cannot_be_written_back(
    provider: Provider,
    client: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is used as long as the process lives, and said once."""
    path = tmp_path / "refresh"
    settings = OidcSettings(provider.issuer, **client, refresh_token_file=secret(path, "first-refresh"))
    issuer = Issuer(settings)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    for _ in range(3):
        issuer()
        provider.line()
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    assert path.read_text() == "first-refresh\n"


def test_what_the_issuer_refuses(provider: Provider, client: dict[str, Any], tmp_path: Path) -> None:
    void = secret(tmp_path / "refresh", "void-refresh")
    text = refusal(OidcSettings(provider.issuer, **client, refresh_token_file=void))
    assert "invalid_grant" in text
    assert f"write a new one to {void}" in text
    assert "void-refresh" not in text
    wrong = {**client, "client_secret_file": secret(tmp_path / "wrong", "wrong-secret")}
    text = refusal(OidcSettings(provider.issuer, **wrong))
    assert "invalid_client" in text
    assert "client_secret_file" in text
    assert "wrong-secret" not in text
    provider.line(), provider.line()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"access_token": 3, "token_type": "bearer"},
        {"access_token": "x y"},
        {"access_token": "abc", "token_type": "mac"},
        {"access_token": "eyJ.cut"},
        {"error": {"first-refresh": 1}},
        {"error": "SECRET", "error_description": "first-refresh"},
        "text",
    ],
)
def test_answers_that_are_no_token(provider: Provider, client: dict[str, Any], body: Any) -> None:
    provider.change(body=body)
    with pytest.raises(CredentialError) as caught:
        Issuer(OidcSettings(provider.issuer, **client))()
    assert provider.issuer in str(caught.value)
    assert "first-refresh" not in str(caught.value)
    provider.line()


def test_an_opaque_token_lives_as_long_as_the_issuer_says(provider: Provider, client: dict[str, Any]) -> None:
    provider.change(opaque=True, life=600)
    credential = Issuer(OidcSettings(provider.issuer, **client))()
    assert credential.header() == "Bearer opaque-token"
    assert credential.expires is not None
    assert abs(credential.expires - datetime.now(UTC) - timedelta(minutes=10)) < timedelta(minutes=1)
    provider.line()


def test_one_source_for_all_and_one_token(provider: Provider, client: dict[str, Any]) -> None:
    settings = EndpointSettings(
        "https://door.example.org:2880/", oidc=OidcSettings(provider.issuer, **client), credential_origin="x"
    )
    source = source_for(settings)
    assert source_for(settings) is source
    with ThreadPoolExecutor(8) as pool:
        found: set[Credential] = set(pool.map(lambda _: source.current(), range(32)))
    assert len(found) == 1
    provider.line()


def test_an_issuer_of_another_authority(provider: Provider, client: dict[str, Any]) -> None:
    assert "certificate is not accepted" in refusal(
        OidcSettings(provider.issuer, **{**client, "trusted_authorities": None})
    )


def test_an_issuer_that_is_down(client: dict[str, Any]) -> None:
    with ScriptedServer(lambda talk: None) as server:
        url = server.url.replace("http:", "https:").rstrip("/")
    assert "cannot be reached: Connection refused" in refusal(OidcSettings(url, **client))


def test_an_issuer_that_is_silent(client: dict[str, Any]) -> None:
    over = threading.Event()

    def silent(talk: Talk) -> None:
        over.wait(20)

    with ScriptedServer(silent) as server:
        url = server.url.replace("http:", "https:").rstrip("/")
        text = refusal(OidcSettings(url, **{**client, "timeout_seconds": 0.2}))
        over.set()
    assert "cannot be reached: no answer in time" in text


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_an_issuer_that_never_comes_to_its_end(
    folder: Path, client: dict[str, Any], beginning: bytes
) -> None:
    """Each byte comes in time, and all of them together do not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "host.pem", folder / "host.key")
    over = threading.Event()
    sent = 0

    def trickle(talk: Talk) -> None:
        nonlocal sent
        with context.wrap_socket(talk.sock, server_side=True) as talk.sock:
            talk.head()
            talk.say(beginning)
            while sent < 100 and not over.wait(0.05):
                talk.say(b" ")
                sent += 1

    with ScriptedServer(trickle) as server:
        url = f"https://localhost:{server.port}"
        text = refusal(OidcSettings(url, **{**client, "timeout_seconds": 0.4}))
        over.set()
    assert "cannot be reached: no answer in time" in text
    assert 0 < sent < 50


def test_without_authlib(client: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "authlib.common.errors", None)
    assert "pip install 'lsst-daf-butler-dcache[oidc]'" in refusal(
        OidcSettings("https://i.example.org", **client)
    )


def answer(body: bytes, status: str = "200 OK", *rows: str) -> bytes:
    """Return an answer that ends with its connection."""
    rows = (f"HTTP/1.1 {status}", "Content-Type: application/json", *rows, "Connection: close")
    return ("\r\n".join(rows) + "\r\n\r\n").encode() + body


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([answer(b"", "404 Not Found")], "HTTP 404 when asked for its metadata"),
        ([answer(b"", "302 Found", "Location: https://evil.example.org/")], "redirects to another server"),
        ([answer(b"nonsense")], "no token"),
        ([answer(b"[]")], "no token"),
        ([answer(b'{"issuer": 1}')], "no token"),
        ([answer(b'{"issuer": "https://evil.example.org", "token_endpoint": "x"}')], "another name"),
        ([answer(b'{"issuer": "ISSUER", "token_endpoint": "http://localhost/"}')], "without encryption"),
        ([answer(b'{"issuer": "ISSUER", "token_endpoint": 1}')], "no token"),
        ([answer(b"[" * 300_000)], "more than 262144 bytes"),
        (["metadata", answer(b"", "307 Moved", "Location: https://evil.example.org/")], "redirects"),
        (["metadata", answer(b"[" * 300_000)], "more than 262144 bytes"),
        (["metadata", answer(b"", "500 Server Error")], "cannot be reached"),
        (["metadata", answer(b'{"access_token"')], "no token"),
        (["metadata", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"], "cannot be reached"),
    ],
)
def test_issuers_that_misbehave(
    folder: Path, client: dict[str, Any], answers: list[bytes | str], words: str
) -> None:
    """Nothing is sent anywhere else, and nothing of what they say is believed or quoted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "host.pem", folder / "host.key")
    said = iter(answers)

    def script(talk: Talk) -> None:
        with context.wrap_socket(talk.sock, server_side=True) as talk.sock:
            asked = talk.head()
            if found := re.search(rb"(?i)content-length: (\d+)", asked):
                talk.body(int(found[1]))
            text = next(said)
            if text == "metadata":
                text = answer(b'{"issuer": "ISSUER", "token_endpoint": "ISSUER/token"}')
            assert isinstance(text, bytes)
            talk.say(text.replace(b"ISSUER", issuer.encode()))

    with ScriptedServer(script) as server:
        issuer = f"https://localhost:{server.port}"
        assert words in refusal(OidcSettings(issuer, **client))
