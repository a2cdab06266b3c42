"""Files that XRootD sends to S3 itself, and what happens where it cannot."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from lsst.daf.butler_dcache import transfers
from lsst.daf.butler_dcache.auth.grant import Grant
from lsst.daf.butler_dcache.errors import ResourceExistsError, ResourceNotFoundError
from lsst.daf.butler_dcache.redaction import Secret
from lsst.daf.butler_dcache.store.closed_ways import closed
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.s3_landing import S3Landing
from lsst.daf.butler_dcache.transport import exchange
from lsst.daf.butler_dcache.webdav.third_party import ThirdPartyCopies
from xrootd_server import XrootdCluster

DATA = os.urandom(1024**2) * 17 + b"end"


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    closed.forget()


@pytest.fixture
def source(xrootd: XrootdCluster) -> Iterator[str]:
    """A large file on XRootD."""
    url = f"{xrootd.url}push-{os.urandom(4).hex()}.bin"
    store_for(url).write(url, DATA)
    yield url
    store_for(url).remove(url)


def transfer(source: str, target: str, *, overwrite: bool = True) -> list[exchange.Exchange]:
    """Transfer, and return what this process exchanged meanwhile."""
    seen: list[exchange.Exchange] = []
    exchange.add_observer(seen.append)
    try:
        transfers.transfer(store_for(source), source, store_for(target), target, overwrite=overwrite)
    finally:
        exchange.remove_observer(seen.append)
    return seen


def moved(seen: list[exchange.Exchange]) -> int:
    return sum(one.sent + one.received for one in seen)


def names(target: str) -> list[str]:
    directory = target.rpartition("/")[0] + "/"
    return [entry.url.rpartition("/")[2] for entry in store_for(directory).list_directory(directory)]


def test_the_bytes_go_from_server_to_server(source: str, s3_url: str) -> None:
    target = f"{s3_url}copy.bin"
    seen = transfer(source, target)
    assert moved(seen) < 64 * 1024
    # HEAD and COPY at the redirector and at a data server; at S3 three looks, the copy and the removal.
    assert len(seen) <= 10
    assert store_for(target).read(target) == DATA
    assert names(target) == ["copy.bin"]


def test_a_small_file_is_not_worth_it(xrootd: XrootdCluster, s3_url: str) -> None:
    source, target = f"{xrootd.url}small-{os.urandom(4).hex()}", f"{s3_url}small"
    store_for(source).write(source, b"few bytes")
    assert not [one for one in transfer(source, target) if one.method == "COPY"]
    assert store_for(target).read(target) == b"few bytes"


def test_a_refused_push_becomes_a_stream(
    source: str, s3_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = S3Landing.grant
    secret = "0123456789abcdef" * 4

    def forged(self: S3Landing, seconds: float) -> Grant:
        return Grant(Secret(original(self, seconds).url.rpartition("=")[0] + "=" + secret))

    monkeypatch.setattr(S3Landing, "grant", forged)
    target = f"{s3_url}copy.bin"
    with caplog.at_level(logging.WARNING):
        seen = transfer(source, target)
    assert moved(seen) > 2 * len(DATA)
    assert store_for(target).read(target) == DATA
    assert names(target) == ["copy.bin"]
    assert "pass through this process" in caplog.text
    assert "403" in caplog.text
    assert secret not in caplog.text
    assert all(secret not in one.url for one in seen)


def test_other_bytes_than_promised_are_not_published(
    source: str, s3_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pushes = ThirdPartyCopies.push

    def push_another(self: ThirdPartyCopies, url: str, *arguments: Any) -> None:
        pushes(self, other, *arguments)

    other = source + ".other"
    store_for(other).write(other, DATA[::-1])
    monkeypatch.setattr(ThirdPartyCopies, "push", push_another)
    target = f"{s3_url}copy.bin"
    transfer(source, target)
    assert "its md5 is" in caplog.text
    assert store_for(target).read(target) == DATA
    store_for(other).remove(other)


def test_an_object_that_is_there_is_not_replaced(source: str, s3_url: str) -> None:
    target = f"{s3_url}copy.bin"
    store_for(target).write(target, b"before")
    with pytest.raises(ResourceExistsError):
        transfer(source, target, overwrite=False)
    assert store_for(target).read(target) == b"before"


def test_a_missing_source(xrootd: XrootdCluster, s3_url: str) -> None:
    with pytest.raises(ResourceNotFoundError):
        transfer(f"{xrootd.url}missing", f"{s3_url}copy.bin")
    assert not store_for(s3_url).exists(f"{s3_url}copy.bin")
