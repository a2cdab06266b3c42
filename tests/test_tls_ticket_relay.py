"""A TLS ticket after the first answer is not the end of a connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.sources import StaticSource
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.certificates import make_certificates
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer
from tls_ticket_relay import TlsTicketRelay

REQUESTS = 20


@pytest.fixture(scope="module")
def door() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tls=False, limiter=False) as dcache:
        dcache.place("there", b"content")
        yield dcache


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return make_certificates(tmp_path)[0]


@pytest.fixture
def relay(door: EmbeddedDcache, authority: Path) -> Iterator[TlsTicketRelay]:
    port = urlsplit(door.url).port
    assert port is not None
    with TlsTicketRelay(port, authority.with_name("host.pem")) as running:
        yield running


def alice(door: EmbeddedDcache) -> tuple[str, str]:
    return door.user, Path(door.password_file).read_text().strip()


def test_the_naive_way_is_a_handshake_per_request(
    door: EmbeddedDcache, relay: TlsTicketRelay, authority: Path
) -> None:
    """As on a real dCache; without this the other tests would show nothing."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(authority)
        for _ in range(REQUESTS):
            answer = session.head(f"https://localhost:{relay.port}/data/there", auth=alice(door), timeout=20)
            assert (answer.status_code, answer.headers["Content-Length"]) == (200, "7")
            assert relay.tickets.acquire(timeout=20)
    assert relay.connections == REQUESTS


def test_the_control_plane_makes_one(door: EmbeddedDcache, relay: TlsTicketRelay, authority: Path) -> None:
    base = f"https://localhost:{relay.port}/"
    settings = EndpointSettings(base, trusted_authorities=str(authority))
    control = ControlPlane(settings, StaticSource(Credential.basic(*alice(door))), Pacer(0))
    for number in range(REQUESTS):
        answer = control.request("HEAD", base + "data/there", deadline=Deadline(20))
        assert (answer.status, answer.headers["Content-Length"]) == (200, "7")
        if number == 0:
            assert relay.tickets.acquire(timeout=20)
    assert (relay.connections, relay.requests) == (1, REQUESTS)
    control.close()


def test_the_data_plane_makes_one(door: EmbeddedDcache, relay: TlsTicketRelay, authority: Path) -> None:
    base = f"https://localhost:{relay.port}/"
    settings = EndpointSettings(base, trusted_authorities=str(authority))
    data = DataPlane(settings, StaticSource(Credential.basic(*alice(door))))
    for number in range(REQUESTS):
        with data.open("HEAD", base + "data/there", authenticate=True, deadline=Deadline(20)) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, "7")
        if number == 0:
            assert relay.tickets.acquire(timeout=20)
    assert (relay.connections, relay.requests) == (1, REQUESTS)
    data.close()
