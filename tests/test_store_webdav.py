"""The WebDAV store on dCache, judged by the suite of all stores.

On the embedded dCache the suite runs in each of the ways a site can be set up: with and without a frontend
that renames, with a door that proxies, unencrypted with an account instead of a macaroon, encrypted with an
account.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from request_counter import counted
from store_conformance import StoreConformance


@contextlib.contextmanager
def endpoint(server: Any, folder: Path, **changes: Any) -> Iterator[Store]:
    """Set up the client for a server with changes to its entry; `None` removes a key."""
    (entry,) = yaml.safe_load(Path(server.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    for key, value in changes.items():
        entry.pop(key, None)
        if value is not None:
            entry[key] = value
    # A name of its own: the client reads a file again when the variable changes.
    path = folder / f"webdav-{uuid.uuid4().hex}.yaml"
    path.write_text(yaml.safe_dump([entry]))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BEARER_TOKEN_FILE", raising=False)
        patch.setenv("LSST_RESOURCES_WEBDAV_CONFIG", str(path))
        yield store_for(server.url)
    reset_stores()


def with_frontend(server: Any) -> dict[str, Any]:
    """Return the change to an entry that makes the frontend known."""
    return {"dcache": {"frontend_url": server.frontend_url}}


class TestDcache(StoreConformance):
    """As the server under test is set up."""

    @pytest.fixture
    def store(self, base_url: str) -> Store:
        return store_for(base_url)

    @pytest.fixture
    def base(self, base_url: str) -> str:
        return base_url


class EmbeddedVariant(StoreConformance):
    """An embedded dCache of another kind."""

    server_options: ClassVar[dict[str, Any]] = {}
    entry_changes: ClassVar[dict[str, Any]] = {}
    frontend = False
    with_account = False

    @pytest.fixture(scope="class")
    @classmethod
    def variant(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Store]]:
        from lsst.daf.butler_dcache.embedded import EmbeddedDcache

        with EmbeddedDcache(**cls.server_options) as server:
            changes = dict(cls.entry_changes) | (with_frontend(server) if cls.frontend else {})
            if cls.with_account:
                changes |= {
                    "token": None,
                    "user_name": server.user,
                    "user_password": Path(server.password_file).read_text().strip(),
                }
            with endpoint(server, tmp_path_factory.mktemp("config"), **changes) as store:
                yield server, store

    @pytest.fixture
    def store(self, variant: tuple[Any, Store]) -> Store:
        return variant[1]

    @pytest.fixture
    def base(self, variant: tuple[Any, Store]) -> str:
        return f"{variant[0].url}{uuid.uuid4().hex[:12]}/"


class TestWithFrontend(EmbeddedVariant):
    """The frontend renames and removes, each in one step."""

    frontend = True

    def test_a_name_that_is_not_utf_8(self, variant: tuple[Any, Store], base: str) -> None:
        server, store = variant
        with counted(server) as counter:
            store.write(base + "caf%E9", b"latin")
        assert "POST" not in counter.methods(), "JSON cannot name it"
        assert store.read(base + "caf%E9") == b"latin"


class TestProxyingDoor(EmbeddedVariant):
    """The door relays all bytes."""

    server_options: ClassVar = {"redirect": False}


class TestAccountWithoutEncryption(EmbeddedVariant):
    """No macaroon to be had: locks and looks take its place."""

    server_options: ClassVar = {"tls": False}


class TestAccountWithMintedMacaroon(EmbeddedVariant):
    """The door makes a macaroon of an account."""

    with_account = True


class TestAnyWebdavServer(EmbeddedVariant):
    """Nothing is taken for granted that RFC 4918 does not say."""

    entry_changes: ClassVar = {"dcache": {"dialect": "generic", "exclusive": "best_effort"}}
