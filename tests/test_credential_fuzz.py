"""Whatever stands in a token or a file: errors of ours and no others, in bounded time and memory."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.json_web_token import DamagedTokenError, JsonWebToken
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.auth.token_text import UnusableTextError, token_in
from lsst.daf.butler_dcache.config.netrc import account_in
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import CredentialError

BASE = "https://door.example.org:2880/"
# Always the same examples, so that a run can be repeated; new ones are looked for by hand.
FUZZ = settings(max_examples=200, deadline=None, derandomize=True, database=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CLAIMS = st.dictionaries(st.sampled_from(["exp", "nbf", "iss", "aud", "scope", "sub", "x"]), JSON)
WORDS = st.sampled_from(
    [
        *(
            "machine",
            "default",
            "login",
            "password",
            "account",
            "macdef",
            "door.example.org",
            '"',
            '"a\\"',
            "#",
        ),
        *(
            "bearer_token",
            "=",
            "url",
            "https://door.example.org/",
            "https://[",
            "[section]",
            "\n",
            "\n\n",
            " ",
        ),
        *("Authorization:", "Bearer", "--header", "abc", "eyJ", "\t", "\r", "\x00", "\u2028", "ä", ";"),
    ]
)
TEXT = st.lists(WORDS | st.text(max_size=8), max_size=30).map("".join)


OURS = (UnusableTextError, CredentialError, DamagedTokenError)


def said(work: Callable[[], Any]) -> tuple[Any, str]:
    """Return what came out, or what the error says."""
    try:
        return work(), ""
    except OURS as error:
        return None, str(error)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@FUZZ
@given(header=JSON, claims=CLAIMS | JSON, rest=st.text(max_size=5), cut=st.integers(0, 400))
@example(header={"alg": "none"}, claims={"exp": 10**400}, rest="s", cut=400)
@example(header={"alg": "none"}, claims={"exp": float("inf")}, rest="s", cut=400)
@example(header={"alg": "none"}, claims={"aud": [None, [], {}]}, rest="s", cut=400)
def test_json_web_tokens(header: object, claims: object, rest: str, cut: int) -> None:
    token = f"{part(header)}.{part(claims)}.{rest}"[:cut]
    read, text = said(lambda: JsonWebToken.parse(token))
    assert len(text) < 200
    assert read is None or read.is_meant_for((BASE,)) in (True, False)
    _, text = said(lambda: Credential.bearer(token, "here").check(BASE))
    assert "here" in text or not text


@FUZZ
@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_token(token: str) -> None:
    credential, text = said(lambda: Credential.bearer(token, "here"))
    assert "here" in text or credential.header() == f"Bearer {token}"


@FUZZ
@given(TEXT, st.sampled_from(["", "door.example.org"]))
def test_any_text(text: str, host: str) -> None:
    token, words = said(lambda: token_in(text, host))
    assert len(words) < 400
    assert words or token.strip()
    account = account_in(text, "door.example.org")
    assert account is None or len(account) == 2


@FUZZ
@given(content=st.binary(max_size=300) | TEXT.map(lambda text: text.encode("utf-8", "replace")))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-credential"
    path.touch(0o600)
    path.write_bytes(content)
    for made in (
        EndpointSettings(BASE, token_file=str(path), credential_origin="x"),
        EndpointSettings(BASE, netrc_file=str(path), credential_origin="x"),
        EndpointSettings(BASE, user_name="u", user_password_file=str(path), credential_origin="x"),
        EndpointSettings(BASE, user_certificate=str(path), credential_origin="x"),
    ):
        credential, text = said(source_for(made).current)
        if credential is None:
            assert "x" in text
        else:
            header = credential.header()
            assert header is None or header.isprintable()


LARGE = 256 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "=" * LARGE,
        "a" * LARGE,
        "[" * LARGE,
        '"' * LARGE,
        '"\\' * (LARGE // 2),
        '" ' * (LARGE // 2),
        "machine " * (LARGE // 8),
        "macdef x\n" * (LARGE // 9),
        "header = = = " * (LARGE // 13),
        "bearer_token = a\n" * (LARGE // 17),
        "[x]\nbearer_token = a\nurl = https://door.example.org/\n" * (LARGE // 54),
        "\n" * LARGE,
        "Authorization: Bearer " + "a " * (LARGE // 2 - 20),
        "--header" + " " * LARGE,
        "eyJ" + "." * LARGE,
        "[" * 30000 + "]" * 30000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda text: token_in(text, "door.example.org"),
        lambda text: account_in(text, "door.example.org"),
        lambda text: Credential.bearer(text),
        lambda text: JsonWebToken.parse(f"e30.{base64.urlsafe_b64encode(text[:40000].encode()).decode()}.s"),
    ],
    ids=["token_in", "account_in", "bearer", "claims"],
)
def test_time_and_memory_are_bounded(text: str, read: Callable[[str], Any]) -> None:
    tracemalloc.start()
    begun = time.process_time()
    _, words = said(lambda: read(text))
    spent = time.process_time() - begun
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(words) < 400
    assert spent < 5, "what is linear takes a tenth of that while memory is traced"
    assert peak < 200 * LARGE


def test_claims_that_nest_without_end(tmp_path: Path) -> None:
    deep = base64.urlsafe_b64encode(b'{"alg":"none","x":' + b"[" * 40000 + b"}").decode().rstrip("=")
    with pytest.raises(CredentialError, match="cannot be read"):
        Credential.bearer(f"{deep}.e30.s")
