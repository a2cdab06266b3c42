"""Servers for the tests of the client.

`dcache`, `base_url`
    The embedded dCache over TLS or, where the environment names another server in ``DCACHE_URL``, that one
    with the site's own configuration file and credential. Most tests of the client want nothing else.
`embedded`
    The embedded dCache in any case, for a test that turns its fault knobs or reads its transcript. With
    ``DCACHE_URL`` such a test stands aside, and the report names it.
`xrootd`
    A cluster of real XRootD servers, where one is built (see ``.ci/xrootd-build``). A test that cannot have
    it is skipped with the reason, and fails in CI.
`xrootd_tape`
    One real XRootD server with its tape API, likewise.
`seaweed`
    A SeaweedFS, a real S3 server; one process of tests starts one, when it first wants it.
`s3`, `s3_url`
    That SeaweedFS or, where the environment names another S3 server in ``S3_URL`` (``s3://bucket/prefix/``,
    with the endpoint and the keys in the variables that every S3 client reads), that one, and a directory.

`leak_guard` watches all of them: a test in which a secret comes to light fails.

Each of them sets the environment variables that the client reads, for as long as it runs. All are one per
module, so that neither a rate limiter nor a fault reaches the tests of another.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import fsspec
import pytest
import seaweed_server
import xrootd_server
from leak_guard import LeakGuard
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.transport import presence

STANDS_ASIDE = "stands aside: needs the fault knobs or the transcript of the embedded dCache"
STANDS_ASIDE_S3 = "stands aside: needs the SeaweedFS that the tests start themselves"


GUARD = LeakGuard()


def pytest_configure(config: pytest.Config) -> None:
    """Watch for secrets from here on."""
    GUARD.begin()
    config.pluginmanager.register(GUARD, "leak-guard")
    config.add_cleanup(GUARD.end)
    if config.option.log_level is None:
        # All loggers are at DEBUG now; what tests and reports are shown of that stays as it was.
        config.option.log_level = "WARNING"


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what stays: a collection costs 0.1 s with the stack loaded."""
    gc.collect()
    gc.freeze()


class HasEnvironment(Protocol):
    """What sets a client up."""

    @property
    def environment(self) -> Mapping[str, str]: ...


class Server(HasEnvironment, Protocol):
    """What every server offers, whoever runs it."""

    url: str


class ExternalServer:
    """The server that ``DCACHE_URL`` names, in a directory of this process's own."""

    def __init__(self, url: str) -> None:
        self.url = f"{url.rstrip('/')}/dcache-butler-test-{uuid.uuid4().hex[:12]}/"
        self.environment: dict[str, str] = {}

    def clean(self) -> None:
        """Remove what the tests of this process left behind, if there is anything."""
        remove_tree(self.url)


def remove_tree(url: str) -> None:
    """Remove a directory and all below it, which need not exist."""
    scheme = url.partition(":")[0]
    filesystem = fsspec.filesystem(scheme, skip_instance_cache=True)
    if filesystem.exists(url):
        filesystem.rm(url, recursive=True)


def external_url() -> str | None:
    """URL of the server that the tests shall use instead of the embedded one, if any."""
    return os.environ.get("DCACHE_URL") or None


@pytest.fixture(scope="module", autouse=True)
def strange_servers() -> None:
    """Know no server of other modules: its port may be nobody's by now, and would be waited for."""
    presence._known.clear()


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedDcache]:
    """Embedded dCache over TLS, which the client of this process is set up for."""
    if external_url() is not None:
        pytest.skip(STANDS_ASIDE)
    with EmbeddedDcache() as server, client_environment(server):
        yield server


@pytest.fixture(scope="module")
def dcache(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Server under test: the embedded dCache, or the one that ``DCACHE_URL`` names."""
    url = external_url()
    if url is None:
        yield request.getfixturevalue("embedded")
        return
    server = ExternalServer(url)
    try:
        yield server
    finally:
        server.clean()


@pytest.fixture
def base_url(dcache: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL, with its trailing slash, of a directory of this test's own; nobody has made it yet."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    url = f"{dcache.url}{name}-{uuid.uuid4().hex[:8]}/"
    yield url
    if external_url() is not None:
        remove_tree(url)


@pytest.fixture(scope="module")
def xrootd() -> Iterator[xrootd_server.XrootdCluster]:
    """Cluster of XRootD servers, which the client of this process is set up for."""
    with xrootd_server.run(_xrootd_prefix()) as cluster, client_environment(cluster):
        yield cluster


@pytest.fixture(scope="module")
def xrootd_tape() -> Iterator[xrootd_server.XrootdTape]:
    """XRootD with its tape API, which the client of this process is set up for."""
    with xrootd_server.run_tape(_xrootd_prefix()) as server, client_environment(server):
        yield server


def _xrootd_prefix() -> Path:
    prefix = xrootd_server.find()
    if prefix is None:
        reason = "no XRootD 6 server here, neither as .xrootd nor on PATH: build one with .ci/xrootd-build"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return prefix


@pytest.fixture(scope="session")
def seaweed_process() -> Iterator[seaweed_server.SeaweedServer]:
    """SeaweedFS of this process, which nobody is set up for yet."""
    with seaweed_server.run() as server:
        yield server


@pytest.fixture(scope="module")
def seaweed(request: pytest.FixtureRequest) -> Iterator[seaweed_server.SeaweedServer]:
    """SeaweedFS with one bucket, which the client of this process is set up for, over http."""
    if seaweed_server.external_url() is not None:
        pytest.skip(STANDS_ASIDE_S3)
    server: seaweed_server.SeaweedServer = request.getfixturevalue("seaweed_process")
    with client_environment(server):
        yield server


@pytest.fixture(scope="module")
def s3(request: pytest.FixtureRequest) -> str:
    """URL, with its trailing slash, of a directory at the S3 server under test."""
    external = seaweed_server.external_url()
    if external is None:
        return f"s3://{request.getfixturevalue('seaweed').bucket}/"
    return external


@pytest.fixture
def s3_url(s3: str, request: pytest.FixtureRequest) -> str:
    """URL, with its trailing slash, of an S3 directory of this test's own; nobody has made it yet."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    return f"{s3}{name}-{uuid.uuid4().hex[:8]}/"


@contextlib.contextmanager
def client_environment(server: HasEnvironment) -> Iterator[None]:
    """Set the environment variables of a server for the client of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each test that stood aside for ``DCACHE_URL`` or ``S3_URL``."""
    aside = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
        and (STANDS_ASIDE in report.longrepr[2] or STANDS_ASIDE_S3 in report.longrepr[2])
    ]
    if aside:
        terminalreporter.section(f"{len(aside)} tests stood aside: they need the embedded servers")
        for nodeid in sorted(aside):
            terminalreporter.line(nodeid)
