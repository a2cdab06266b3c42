"""The WebDAV store on a real XRootD, judged by the suite of all stores: a redirector and its data servers."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from racing import assert_one_winner, race, writers
from store_conformance import StoreConformance


@pytest.fixture
def base(xrootd: Any) -> str:
    return f"{xrootd.url}{uuid.uuid4().hex[:12]}/"


class TestXrootd(StoreConformance):
    """All of it."""

    unusual_names = False  # XRootD takes a quoted question mark for the start of a query

    @pytest.fixture
    def store(self, xrootd: Any) -> Store:
        return store_for(xrootd.url)


def test_races(xrootd: Any, base: str) -> None:
    stores = writers(xrootd.url)
    for number in range(20):
        url = f"{base}{number}"
        outcomes = race(
            stores,
            lambda store, who, url=url: store.write(url, b"writer %d" % who, overwrite=False),  # type: ignore[misc]
        )
        assert_one_winner(stores[0], url, outcomes, lambda who: b"writer %d" % who)
