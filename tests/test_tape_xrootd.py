"""The tape API of a real XRootD, by other authors than dCache's."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.deadline import Deadline


@pytest.fixture
def store(xrootd_tape: Any) -> Any:
    return store_for(xrootd_tape.url)


def test_discovery(xrootd_tape: Any, store: Any) -> None:
    api = store._frontends.tape(Deadline(10))
    assert urlsplit(api.base_url)[:2] == ("https", urlsplit(xrootd_tape.url).netloc)
    assert store._frontends.get(Deadline(10)) is None, "a tape API is no frontend"
    (xrootd_tape.archive / "on-tape").write_bytes(b"x")
    (xrootd_tape.disk / "on-disk").write_bytes(b"x")
    answer = api.ask(
        "POST",
        "/archiveinfo",
        operation="look",
        url=xrootd_tape.url,
        deadline=Deadline(10),
        wish={"paths": ["/on-tape", "/on-disk", "/nowhere"]},
    )
    assert b'"TAPE"' in answer.body
    assert b'"DISK"' in answer.body
