"""Credentials that cannot be used, through each public way: place and remedy are named, nothing is sent."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.auth.credential import refused
from lsst.daf.butler_dcache.auth.macaroon import Macaroon
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.config.discovery import VARIABLES
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.resources import ResourcePath
from request_counter import counted


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    refused.clear()
    yield
    refused.clear()


def jwt(**claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), json.dumps(claims), "signature-of-it"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def with_caveat(caveat: str) -> str:
    """A macaroon with a caveat that ours would refuse to add."""
    return Macaroon("Optional.empty", b"abcdefgh", ("iid:abc", caveat), bytes(32)).serialise()


FILES: dict[str, tuple[str | bytes, int]] = {
    "garbage": ("<html>no token</html>", 0o600),
    "empty": (" \n", 0o600),
    "binary": (b"\xff\x00\xfe" * 100, 0o600),
    "truncated JSON web token": (jwt(sub="x")[:30], 0o600),
    "truncated macaroon": (with_caveat("path:/")[:-9], 0o600),
    "readable by others": ("opaque-token-of-somebody", 0o644),
    "expired": (jwt(exp=int(time.time()) - 10), 0o600),
    "not valid yet": (jwt(nbf=int(time.time()) + 600), 0o600),
    "another endpoint's": ("[x]\nurl = https://other.example.org/\nbearer_token = abcdefghijkl\n", 0o600),
    "unknown caveat": (with_caveat("moon:full"), 0o600),
    "malformed caveat": (with_caveat("before:tomorrow"), 0o600),
    "ten megabytes of claims": (jwt(groups=["x" * 1000] * 10000), 0o600),
    "two tokens": ("one-token-abcdef\nanother-token-abcdef\n", 0o600),
}
COMMANDS = {
    "hangs": (["sleep", "60"], "sleep"),
    "fails": (["false"], "false"),
    "is not there": (["/no/such/program"], "program"),
    "prints two lines": (["printf", "one-token\\nanother-token"], "printf"),
}
WAYS: dict[str, Callable[[str], Any]] = {
    "ResourcePath.read": lambda url: ResourcePath(url).read(),
    "ResourcePath.write": lambda url: ResourcePath(url).write(b"x"),
    "ResourcePath.exists": lambda url: ResourcePath(url).exists(),
    "fsspec": lambda url: fsspec.filesystem("davs", skip_instance_cache=True).cat_file(url),
    "open": lambda url: fsspec.open(url, "rb").open().read(),
}


def refused_by_all(embedded: Any, names: str) -> None:
    """Try each way, and count what reaches the server."""
    url = f"{embedded.url}bad/file"
    with counted(embedded) as counter:
        for ask in WAYS.values():
            with pytest.raises(CredentialError) as caught:
                ask(url)
            assert names in str(caught.value)
            assert "nothing was sent" in caught.value.hint
            assert len(str(caught.value)) < 1000
        for command in (["cat", url], ["ls", url], ["doctor", f"{embedded.url}bad/"]):
            result = CliRunner().invoke(main, command)
            assert result.exit_code == 1
            assert names in result.output
            assert "Traceback" not in result.output
    # The doctor compares clocks where a credential is untimely, without it.
    assert not any(record["authorization"] for record in counter.records)
    assert all(record["method"] == "OPTIONS" for record in counter.records)
    assert len(counter.records) <= 1


def configure(embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **own: object) -> None:
    entry = {
        "base_url": embedded.url.removesuffix("data/"),
        "trusted_authorities": embedded.ca_file,
        "dcache": own,
    }
    site = tmp_path / "site.yaml"
    site.write_text(json.dumps([entry]))
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(site))


@pytest.mark.parametrize("place", ["token_file", "BEARER_TOKEN_FILE"])
@pytest.mark.parametrize("kind", FILES)
def test_files(embedded: Any, kind: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, mode = FILES[kind]
    path = tmp_path / "token"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    configure(embedded, tmp_path, monkeypatch, **({place: str(path)} if place == "token_file" else {}))
    if place == "BEARER_TOKEN_FILE":
        monkeypatch.setenv(place, str(path))
    refused_by_all(embedded, str(path))


@pytest.mark.parametrize("kind", COMMANDS)
def test_commands(embedded: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, names = COMMANDS[kind]
    configure(embedded, tmp_path, monkeypatch, token_command=command, token_command_timeout_seconds=0.2)
    refused_by_all(embedded, names)


def test_an_issuer_that_is_down(embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "client-secret"
    secret.write_text("secret-of-the-client")
    secret.chmod(0o600)
    oidc = {
        "issuer": "https://localhost:1/",
        "client_id": "x",
        "client_secret_file": str(secret),
        "trusted_authorities": embedded.ca_file,
    }
    configure(embedded, tmp_path, monkeypatch, oidc=oidc)
    refused_by_all(embedded, "https://localhost:1/")


def test_two_at_once(embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(embedded, tmp_path, monkeypatch, token="one-token-abcdef", token_command=["echo", "another"])
    refused_by_all(embedded, "token_command")
