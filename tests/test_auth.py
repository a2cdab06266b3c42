"""Credentials: when and where they may be sent, and where they come from."""

from __future__ import annotations

import base64
import json
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.auth.credential import ANONYMOUS, Credential, RefusedCredentials
from lsst.daf.butler_dcache.auth.sources import FileSource, source_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import CredentialError
from lsst.daf.butler_dcache.redaction import Secret

BASE = "https://door.example.org:2880/"


def jwt(**claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), json.dumps(claims), "sig"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def test_headers() -> None:
    assert ANONYMOUS.header() is None
    assert Credential.bearer("abc").header() == "Bearer abc"
    assert Credential.basic("Aladdin", "open sesame").header() == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert Credential("certificate").header() is None


def test_nothing_shows_the_secret() -> None:
    for credential in (Credential.bearer("TOPSECRET"), Credential.basic("me", "TOPSECRET")):
        assert "TOPSECRET" not in f"{credential} {credential!r} {credential.fingerprint}"
        with pytest.raises(TypeError):
            pickle.dumps(credential)


def test_fingerprints_tell_credentials_apart() -> None:
    one = Credential.bearer("a")
    assert one.fingerprint == Credential.bearer("a", "elsewhere").fingerprint
    assert (
        len({one.fingerprint, Credential.bearer("b").fingerprint, Credential.basic("a", "").fingerprint}) == 3
    )


def test_no_bearer_token_over_plain_http() -> None:
    credential = Credential.bearer("abc", "BEARER_TOKEN")
    credential.check("https://door.example.org/")
    with pytest.raises(CredentialError, match="unencrypted") as caught:
        credential.check("http://door.example.org/")
    assert "BEARER_TOKEN" in str(caught.value)
    Credential.basic("u", "p").check("http://door.example.org/")


def test_an_expired_credential_is_not_sent() -> None:
    end = datetime.now(UTC) - timedelta(seconds=1)
    credential = Credential.bearer(jwt(exp=end.timestamp()))
    with pytest.raises(CredentialError, match="expired at"):
        credential.check(BASE)
    credential.check(BASE, now=end - timedelta(seconds=1))


@pytest.mark.parametrize("token", ["abc", "a.b.c", jwt(), jwt(exp=None), "a" * 10000, "eyJ.b.c.d.e"])
def test_tokens_without_an_end(token: str) -> None:
    assert Credential.bearer(token).expires is None


def test_life_of_a_json_web_token() -> None:
    credential = Credential.bearer(jwt(nbf=1_000_000_000, exp=1_000_000_100))
    begin = datetime.fromtimestamp(1_000_000_000, UTC)
    assert (credential.not_before, credential.expires) == (begin, begin + timedelta(seconds=100))
    credential.check(BASE, now=begin - timedelta(seconds=30))  # clocks differ
    with pytest.raises(CredentialError, match="not valid before 2001"):
        credential.check(BASE, now=begin - timedelta(seconds=90))


@pytest.mark.parametrize(
    "token",
    [
        "eyJ",
        jwt()[:20],
        jwt(exp=1).rpartition(".")[0],
        jwt(exp="soon"),
        jwt(exp=1e300),
        jwt(exp=[]),
        jwt(nbf=True),
        "eyJhbGciOiAibm9uZSJ9.e30x.s",
        "eyJhbGciOiAibm9uZSJ9." + "W10" + ".s",
        "eyJ9.e30.s",
        jwt(x="y" * 70000),
        "MDAyMWxvY2F0aW9uIE9wdGlvbmFs",
        "a" * (64 * 1024 + 1),
        "/run/user/1000/token",
        "~/token",
        "garbage!",
        "%00%01",
    ],
)
def test_damaged_tokens(token: str) -> None:
    with pytest.raises(CredentialError) as caught:
        Credential.bearer(token, "here", "ask again")
    assert "here" in str(caught.value)
    assert "ask again" in str(caught.value)
    assert len(token) < 12 or token[3:] not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tök", "a\x00"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(CredentialError) as caught:
        Credential.bearer(token, "here")
    assert "here" in str(caught.value)


def token_file(path: Path, text: str = "abc\n", mode: int = 0o600) -> FileSource:
    path.write_text(text)
    path.chmod(mode)
    return FileSource(str(path), Credential.bearer, "BEARER_TOKEN_FILE")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = token_file(path)
    first = source.current()
    assert first.header() == "Bearer abc"
    assert source.current() is first
    # Written before our last look, then moved into place: the incumbent never sees such a token.
    other = tmp_path / "new"
    other.write_text("xyz")
    other.chmod(0o600)
    os.utime(other, (1_000_000_000, 1_000_000_000))
    other.rename(path)
    assert source.current().header() == "Bearer xyz"


def test_same_size_same_time_other_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = token_file(path, "abc")
    os.utime(path, (5, 5))
    assert source.current().header() == "Bearer abc"
    other = tmp_path / "new"
    other.write_text("xyz")
    other.chmod(0o600)
    os.utime(other, (5, 5))
    other.rename(path)
    assert source.current().header() == "Bearer xyz"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    source = token_file(tmp_path / "token", mode=mode)
    with pytest.raises(CredentialError, match=f"{mode:04o}") as caught:
        source.current()
    assert "chmod 600" in str(caught.value)


def test_a_file_that_becomes_readable_is_refused(tmp_path: Path) -> None:
    source = token_file(tmp_path / "token")
    source.current()
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(CredentialError):
        source.current()


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00", b"two words", b"x" * (1024 * 1024 + 1)])
def test_unusable_files(tmp_path: Path, content: bytes) -> None:
    source = token_file(tmp_path / "token")
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(CredentialError):
        source.current()


def test_a_missing_file(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path / "nothing"), Credential.bearer, "BEARER_TOKEN_FILE")
    with pytest.raises(CredentialError, match=r"nothing.*BEARER_TOKEN_FILE"):
        source.current()
    with pytest.raises(CredentialError, match="regular"):
        FileSource("/dev/null", Credential.bearer, "x").current()


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("open sesame\n")
    path.chmod(0o600)
    assert source_for(EndpointSettings(BASE)).current() is ANONYMOUS
    for settings, header in (
        (EndpointSettings(BASE, token=Secret("t"), user_name="u", user_password=Secret("p")), "Bearer t"),
        (EndpointSettings(BASE, user_name="u", user_password=Secret("p")), "Basic dTpw"),
        (
            EndpointSettings(BASE, user_name="Aladdin", user_password_file=str(path)),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
    ):
        assert source_for(settings).current().header() == header


def test_refusals_hold_for_one_server_and_one_credential() -> None:
    table = RefusedCredentials()
    here, there = ("https", "a", 1), ("https", "b", 1)
    good, bad = Credential.bearer("good"), Credential.bearer("bad")
    table.check(here, bad, BASE)
    table.remember(here, bad, "macaroon login denied")
    with pytest.raises(CredentialError, match="macaroon login denied") as caught:
        table.check(here, Credential.bearer("bad"), BASE)
    assert caught.value.status == 401
    table.check(here, good, BASE)
    table.check(there, bad, BASE)
    table.remember(here, ANONYMOUS, "")
    table.check(here, ANONYMOUS, BASE)
    table.clear()
    table.check(here, bad, BASE)
