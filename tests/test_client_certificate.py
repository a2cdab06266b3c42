"""To whom the client certificate is presented."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import Pacer
from lsst.daf.butler_dcache.webdav.door import Door
from xrootd_server import write_certificates


class Asking:
    """A TLS server that asks for a certificate, notes whether it got one, and gives one answer to all."""

    def __init__(self, folder: Path, *rows: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "host.pem", folder / "host.key")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._rows = rows
        self.presented: list[bool] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with self._context.wrap_socket(plain, server_side=True) as sock:
                request = sock.recv(65536)
                if request:
                    self.presented.append(bool(sock.getpeercert()))
                    head = "\r\n".join([*self._rows, "Content-Length: 0", "Connection: close"])
                    sock.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture(params=["dCache/11.2.4", "XrootD/v6.2.1"])
def servers(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, Asking, Asking]]:
    behind = Asking(folder, "200 OK", f"Server: {request.param}")
    door = Asking(folder, "307 Temporary Redirect", f"Server: {request.param}", f"Location: {behind.url}f")
    yield request.param, door, behind
    door.close()
    behind.close()


@pytest.mark.parametrize("dialect", ["auto", "known"])
def test_who_is_shown_the_certificate(
    servers: tuple[str, Asking, Asking], folder: Path, dialect: str
) -> None:
    """Doors, and data servers of XRootD that decide by it; never a pool of dCache."""
    software, door_server, behind = servers
    settings = EndpointSettings(
        door_server.url,
        trusted_authorities=str(folder / "ca.pem"),
        user_certificate=str(folder / "user.pem"),
        user_key=str(folder / "user.key"),
        dialect=software.lower().partition("/")[0] if dialect == "known" else "auto",
    )
    credentials = source_for(settings)
    data = DataPlane(settings, credentials, Pacer(0))
    door = Door(settings, ControlPlane(settings, credentials, Pacer(0)), data, credentials)
    deadline = Deadline(10)
    door.ask("PROPFIND", door_server.url + "f", operation="look", deadline=deadline, accept=(200,))
    answer = door.open("GET", door_server.url + "f", deadline=deadline)
    place = door.data_url(answer, door_server.url + "f", operation="read")
    answer.close()
    data.open("GET", place, deadline=deadline).close()
    assert door_server.presented == [True, True]
    assert behind.presented == [software.startswith("XrootD")] * 2
