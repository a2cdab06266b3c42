"""Tokens of the WLCG profile at a real verifier, Debian's XRootD with SciTokens.

That is XRootD 5.5.3, which answers ranges wrongly, and 500 instead of 403 to a GET that asks for a checksum:
so whole files are read here, and what is refused is a look.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import scitokens_server
from lsst.daf.butler_dcache import DcacheFileSystem, errors
from lsst.daf.butler_dcache.transport import exchange
from scitokens_server import Issuer, SciTokensServer

DATA = b"for those with a token"
ALL = "storage.read:/ storage.modify:/store storage.create:/store"
With = Callable[[str], AbstractContextManager[DcacheFileSystem]]


@pytest.fixture(scope="module")
def server() -> Iterator[SciTokensServer]:
    if scitokens_server.find() is None:
        reason = "no XRootD with SciTokens here: Debian's xrootd-scitokens-plugins and xrootd-server-plugins"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with scitokens_server.run() as running:
        yield running


@pytest.fixture
def using(server: SciTokensServer, tmp_path: Path) -> With:
    """Give the client a token in a file."""

    @contextlib.contextmanager
    def using(token: str) -> Iterator[DcacheFileSystem]:
        path = tmp_path / uuid.uuid4().hex
        path.touch(0o600)
        path.write_text(token + "\n")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (server.environment | {"BEARER_TOKEN_FILE": str(path)}).items():
                patch.setenv(name, value)
            yield DcacheFileSystem()

    return using


@pytest.fixture
def url(server: SciTokensServer, using: With) -> str:
    name = f"{server.url}{uuid.uuid4().hex}"
    with using(server.issuer.token(ALL)) as fs:
        fs.pipe_file(name, DATA)
    return name


def test_scopes(server: SciTokensServer, using: With, url: str) -> None:
    with using(server.issuer.token("storage.read:/store")) as fs:
        assert fs.cat_file(url) == DATA
        with pytest.raises(errors.AccessDeniedError):
            fs.pipe_file(url, b"other")
        with pytest.raises(errors.AccessDeniedError):
            fs.rm_file(url)
    with using(server.issuer.token(ALL)) as fs:
        fs.pipe_file(url, b"other")
        assert fs.cat_file(url) == b"other"
        fs.rm_file(url)
        assert not fs.exists(url)


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "storage.read:/store/elsewhere"},
        {"scope": "storage.read:/store", "aud": "https://other.example"},
        {"scope": "storage.read:/store", "iss": "https://another.example"},
    ],
)
def test_tokens_for_something_else(
    server: SciTokensServer, using: With, url: str, claims: dict[str, str]
) -> None:
    with using(server.issuer.token(**claims)) as fs, pytest.raises(PermissionError):
        fs.info(url)


def test_a_stranger_signs(server: SciTokensServer, using: With, url: str) -> None:
    with using(Issuer().token("storage.read:/store")) as fs, pytest.raises(PermissionError):
        fs.info(url)


def test_an_expired_token_is_not_sent(server: SciTokensServer, using: With, url: str) -> None:
    sent: list[exchange.Exchange] = []
    exchange.add_observer(sent.append)
    try:
        with (
            using(server.issuer.token("storage.read:/store", lifetime_seconds=-60)) as fs,
            pytest.raises(errors.CredentialError, match="expired"),
        ):
            fs.cat_file(url)
    finally:
        exchange.remove_observer(sent.append)
    assert sent == []


def test_no_macaroon_is_made_of_it(server: SciTokensServer, using: With, url: str) -> None:
    with using(server.issuer.token(ALL)) as fs:
        fs.cat_file(url)
        with pytest.raises(errors.UnsupportedError, match="no macaroon"):
            fs.sign(url)
