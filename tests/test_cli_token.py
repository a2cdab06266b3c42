"""``dcache-butler token inspect``, and what ``doctor`` says of credentials and clocks."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lsst.daf.butler_dcache.cli import doctor as doctor_module
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.config.discovery import VARIABLES
from request_counter import counted


def jwt(**claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), json.dumps(claims), "signature-of-it"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def private(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return str(path)


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any credential."""
    for name in ("LSST_RESOURCES_WEBDAV_CONFIG", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lsst.daf.butler_dcache.config.discovery._TEMPORARY", str(tmp_path / "nowhere"))


def inspect(*arguments: str, given: str = "", secret: str = "") -> Result:
    result = CliRunner().invoke(main, ["token", "inspect", *arguments], input=given)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert not secret or secret not in result.output
    return result


def test_a_json_web_token(tmp_path: Path) -> None:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": "https://issuer.example.org/",
        "sub": "me",
        "aud": ["https://door/"],
        "scope": "storage.read:/ openid",
        "wlcg.groups": ["/rubin"],
    }
    token = jwt(**claims, exp=now + 7300, nbf=now - 10)
    result = inspect(private(tmp_path / "t", token), "--json", secret=token[-20:])
    found = json.loads(result.output)
    assert result.exit_code == 0
    assert (found["kind"], found["issuer"], found["subject"]) == ("JSON web token", claims["iss"], "me")
    assert (found["audience"], found["groups"]) == (claims["aud"], ["/rubin"])
    assert found["scopes"] == ["storage.read:/", "openid"]
    assert found["validity"].startswith("2 h 1 min left")
    for times, words in (
        ({"exp": now - 90}, "ended 1 min"),
        ({"nbf": now + 400, "exp": now + 500}, "begins in 6 min"),
    ):
        result = inspect("-", given=jwt(**claims, **times))
        assert result.exit_code == 1
        assert words in result.output
        assert "clock" in result.output
    assert "no scope begins with storage." in inspect("-", given=jwt(scope="openid")).output
    assert "neither scopes nor groups" in inspect("-", given=jwt(sub="x")).output


def test_opaque_and_endless() -> None:
    output = inspect("-", given="opaque-0123456789\n", secret="opaque-0123456789").output
    assert "opaque token" in output
    assert "does not say when it expires" in output
    assert "too long for the head" in inspect("-", given="a" * 8000).output


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("", 0o600, "is empty"),
        (b"\xff\xfe\x00binary", 0o600, "is not text"),
        ("good-token", 0o644, "chmod 600"),
        ("eyJhbGciOiJub25lIn0.cut", 0o600, "is damaged"),
        ("two\nlines", 0o600, "more than one line"),
        ("eyJ" + "a" * 10_000_000, 0o600, "longer than"),
        (jwt(groups=["x" * 1000] * 100), 0o600, "more than any server takes"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, mode: int, words: str) -> None:
    path = private(tmp_path / "t", content, mode)
    result = inspect(path)
    assert result.exit_code == 1
    assert words in result.output
    assert path in result.output
    assert len(result.output) < 500
    result = inspect("-", given="a" * 2_000_000)
    assert result.exit_code == 1
    assert "longer than" in result.output


def test_where_it_was_found(nothing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = inspect()
    assert result.exit_code == 1
    assert "BEARER_TOKEN: not there" in result.output
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    private(tmp_path / f"bt_u{os.geteuid()}", "discovered-one")
    monkeypatch.setenv("BEARER_TOKEN_FILE", private(tmp_path / "named", "named-one"))
    looked = json.loads(inspect("--json").output)["looked_at"]
    assert looked[:3] == [
        "BEARER_TOKEN: not there",
        "BEARER_TOKEN_FILE: there",
        f"{tmp_path}/bt_u{os.geteuid()}: there, not used",
    ]


def test_macaroon_of_an_endpoint(embedded: Any) -> None:
    with counted(embedded) as counter:
        result = inspect(embedded.url)
    assert result.exit_code == 0
    assert "macaroon of dCache" in result.output
    assert "iid:" in result.output
    assert "names it" in result.output or "BEARER_TOKEN_FILE: there" in result.output
    assert counter.records == []


# -- doctor


@pytest.fixture
def doctor(embedded: Any) -> Callable[[], Result]:
    embedded.place("/data/doctor-token/x", b"x")
    return lambda: CliRunner().invoke(main, ["doctor", f"{embedded.url}doctor-token/"])


@pytest.mark.parametrize(("ahead", "words"), [(300, "ahead of"), (-300, "behind")])
def test_a_clock_that_is_five_minutes_off(
    doctor: Callable[[], Result], ahead: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "_now", lambda: datetime.now(UTC) + timedelta(seconds=ahead))
    output = doctor().output
    assert "FAILED  clock: the clock of this machine is" in output
    assert f"s {words} the door's" in output
    assert "NTP" in output


def test_what_is_said_of_the_credential(doctor: Callable[[], Result]) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "ok      clock: that of this machine and the door's agree" in result.output
    assert "macaroon of dCache" in result.output
    assert "iid:" in result.output


def test_a_token_that_begins_later(
    embedded: Any,
    doctor: Callable[[], Result],
    nothing: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The doctor compares the clocks, and does not send the token."""
    entry = {
        "base_url": embedded.url.removesuffix("data/"),
        "trusted_authorities": embedded.ca_file,
        "dcache": {"token_file": private(tmp_path / "t", jwt(nbf=time.time() + 300))},
    }
    monkeypatch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", private(tmp_path / "s.yaml", json.dumps([entry])))
    monkeypatch.setattr(doctor_module, "_now", lambda: datetime.now(UTC) - timedelta(seconds=300))
    with counted(embedded) as counter:
        output = doctor().output
    assert "FAILED  credential: " in output
    assert "is not valid before" in output
    assert "behind the door's" in output
    assert [record["authorization"] for record in counter.records] in ([None], [""], [False])
