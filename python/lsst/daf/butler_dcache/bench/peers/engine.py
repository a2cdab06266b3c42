"""HTTP engines against one server without a door: which of them should carry the bytes.

Each gets and puts whole files on one kept connection, into memory that it may reuse, from a file, with the
certificate verified. ``access.url`` is the pool's own address here, and every URL carries the key that the
pool wants to see.
"""

from __future__ import annotations

import http.client
import importlib
import re
import resource
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from ...config.settings import EndpointSettings
from ...transport.data import DataPlane
from ...transport.deadline import Deadline
from ..work import Access, Job, Outcome, UnsupportedWorkError
from .client import Client, Done, Sink, Source
from .program import run_program

__all__ = ("make",)

_KEY = "?dcache-http-uuid=bench"
_PIECE_BYTES = 1024 * 1024
_DEADLINE_SECONDS = 600.0


class _Engine(Client):
    def connect(self, job: Job) -> None:
        if job.work.operation not in ("get", "put") or job.work.threads > 1:
            raise UnsupportedWorkError("engines get and put, one file after the other")
        self._base = job.access.url
        try:
            self.begin(job.access)
        except ModuleNotFoundError as error:
            raise UnsupportedWorkError(f"{error.name} is not installed") from error
        if job.work.operation == "put" and type(self).send is _Engine.send:
            raise UnsupportedWorkError("this engine only reads")

    def get(self, name: str, sink: Sink) -> Done:
        return Done(self.fetch(f"{self._base}{name}{_KEY}"))

    def put(self, name: str, source: Source) -> Done:
        self.send(f"{self._base}{name}{_KEY}", Path(source.path))
        return Done(source.size)

    def begin(self, access: Access) -> None:
        """Make what is needed once, without a connection."""
        raise NotImplementedError

    def fetch(self, url: str) -> int:
        """Read a file to nowhere and return its size."""
        raise NotImplementedError

    def send(self, url: str, source: Path) -> None:
        """Send a file."""
        raise NotImplementedError


def _check(status: int) -> None:
    if status not in (200, 201, 204):
        raise RuntimeError(f"status {status}")


class _Ours(_Engine):
    def begin(self, access: Access) -> None:
        # The server is a pool of an endpoint that lies elsewhere.
        base = "https://localhost:1/" if access.ca_file else "http://localhost:1/"
        self._plane = DataPlane(EndpointSettings(base, trusted_authorities=access.ca_file))
        self._memory = memoryview(bytearray(_PIECE_BYTES))

    def fetch(self, url: str) -> int:
        moved = 0
        with self._plane.open("GET", url, deadline=Deadline(_DEADLINE_SECONDS)) as answer:
            _check(answer.status)
            while count := answer.readinto(self._memory):
                moved += count
        return moved

    def send(self, url: str, source: Path) -> None:
        with (
            source.open("rb") as file,
            self._plane.open("PUT", url, body=file, deadline=Deadline(_DEADLINE_SECONDS)) as answer,
        ):
            answer.read()
            _check(answer.status)


class _MemoryBio(_Engine):
    """What TLS could cost: `ssl.MemoryBIO`, which takes much from the socket at a time."""

    def begin(self, access: Access) -> None:
        if access.ca_file is None:
            raise UnsupportedWorkError("this is about TLS")
        self._context = ssl.create_default_context(cafile=access.ca_file)
        self._socket: socket.socket | None = None
        self._memory = memoryview(bytearray(_PIECE_BYTES))
        self._encrypted = memoryview(bytearray(_PIECE_BYTES))

    def _connect(self, host: str, port: int) -> socket.socket:
        connection = socket.create_connection((host, port))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                return connection
            except ssl.SSLWantReadError:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        if self._outgoing.pending:
            connection.sendall(self._outgoing.read())
        count = connection.recv_into(self._encrypted)
        if count == 0:
            raise RuntimeError("the server closed the connection")
        self._incoming.write(self._encrypted[:count])

    def _read(self, connection: socket.socket) -> int:
        while True:
            try:
                return cast(int, self._tls.read(len(self._memory), self._memory))
            except ssl.SSLWantReadError:
                self._take(connection)

    def fetch(self, url: str) -> int:
        parts = urlsplit(url)
        if self._socket is None:
            self._socket = self._connect(parts.hostname or "", parts.port or 443)
        request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        self._tls.write(request.encode())
        count = self._read(self._socket)
        head, _, body = bytes(self._memory[:count]).partition(b"\r\n\r\n")
        _check(int(head.split(b" ", 2)[1]))
        length = int(re.findall(rb"(?i)\ncontent-length: (\d+)", head)[0])
        moved = len(body)
        while moved < length:
            moved += self._read(self._socket)
        return moved


class _HttpClient(_Engine):
    def begin(self, access: Access) -> None:
        parts = urlsplit(access.url)
        host = parts.hostname or ""
        if access.ca_file:
            context = ssl.create_default_context(cafile=access.ca_file)
            self._connection = http.client.HTTPSConnection(host, parts.port, context=context)
        else:
            self._connection = cast(Any, http.client.HTTPConnection(host, parts.port))
        self._connection.blocksize = _PIECE_BYTES
        self._memory = memoryview(bytearray(_PIECE_BYTES))

    def fetch(self, url: str) -> int:
        parts = urlsplit(url)
        self._connection.request("GET", f"{parts.path}?{parts.query}")
        answer = self._connection.getresponse()
        _check(answer.status)
        moved = 0
        while count := answer.readinto(self._memory):
            moved += count
        return moved

    def send(self, url: str, source: Path) -> None:
        parts = urlsplit(url)
        with source.open("rb") as file:
            headers = {"Content-Length": str(source.stat().st_size)}
            self._connection.request("PUT", f"{parts.path}?{parts.query}", body=file, headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        _check(answer.status)


class _Pycurl(_Engine):
    def begin(self, access: Access) -> None:
        self._pycurl: Any = importlib.import_module("pycurl")
        self._curl = self._pycurl.Curl()
        if access.ca_file:
            self._curl.setopt(self._pycurl.CAINFO, access.ca_file)
        self._curl.setopt(self._pycurl.BUFFERSIZE, 512 * 1024)
        self._moved = 0

    def fetch(self, url: str) -> int:
        curl = self._curl
        self._moved = 0
        curl.setopt(self._pycurl.HTTPGET, 1)
        curl.setopt(self._pycurl.URL, url)
        curl.setopt(self._pycurl.WRITEFUNCTION, self._count)
        curl.perform()
        _check(curl.getinfo(self._pycurl.RESPONSE_CODE))
        return self._moved

    def _count(self, data: bytes) -> None:
        self._moved += len(data)

    def send(self, url: str, source: Path) -> None:
        curl, pycurl = self._curl, self._pycurl
        with source.open("rb") as file:
            curl.setopt(pycurl.UPLOAD, 1)
            curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 512 * 1024)
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.HTTPHEADER, ["Expect:"])
            curl.setopt(pycurl.INFILESIZE_LARGE, source.stat().st_size)
            curl.setopt(pycurl.READFUNCTION, file.read)
            curl.setopt(pycurl.WRITEFUNCTION, self._count)
            curl.perform()
        _check(curl.getinfo(pycurl.RESPONSE_CODE))


class _Urllib3(_Engine):
    def begin(self, access: Access) -> None:
        urllib3 = importlib.import_module("urllib3")
        self._pool: Any = urllib3.PoolManager(ca_certs=access.ca_file)

    def fetch(self, url: str) -> int:
        answer = self._pool.request("GET", url, preload_content=False)
        _check(answer.status)
        moved = sum(len(piece) for piece in answer.stream(_PIECE_BYTES))
        answer.release_conn()
        return moved

    def send(self, url: str, source: Path) -> None:
        with source.open("rb") as file:
            headers = {"Content-Length": str(source.stat().st_size)}
            _check(self._pool.request("PUT", url, body=file, headers=headers).status)


class _Requests(_Engine):
    def begin(self, access: Access) -> None:
        requests = importlib.import_module("requests")
        self._session: Any = requests.Session()
        self._session.trust_env = False
        if access.ca_file:
            self._session.verify = access.ca_file

    def fetch(self, url: str) -> int:
        with self._session.get(url, stream=True) as answer:
            _check(answer.status_code)
            return sum(len(piece) for piece in answer.iter_content(_PIECE_BYTES))

    def send(self, url: str, source: Path) -> None:
        with source.open("rb") as file, self._session.put(url, data=file) as answer:
            _check(answer.status_code)


class _Curl(Client):
    """The program, for comparison."""

    who = resource.RUSAGE_CHILDREN

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.idle = self._start_for_nothing

    @staticmethod
    def _start_for_nothing() -> Outcome:
        run_program(["curl", "-s", "-o", "/dev/null", "file:///dev/null"])
        return Outcome(0)

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        if work.operation not in ("get", "put") or work.threads > 1 or work.rate or job.max_rate:
            raise UnsupportedWorkError("engines get and put, one file after the other")
        lines = ["silent", "show-error", "fail", r'write-out = "%{time_total}\n"']
        if job.access.ca_file:
            lines.append(f'cacert = "{job.access.ca_file}"')
        for name in job.names:
            lines.append(f'url = "{job.access.url}{name}{_KEY}"')
            lines.append(f'upload-file = "{job.source}"' if work.operation == "put" else "output = /dev/null")
        if work.operation == "put":
            lines.append('header = "Expect:"')
        path = Path(job.scratch) / "engine.curl"
        path.write_text("\n".join(lines) + "\n")

        def run() -> Outcome:
            said = run_program(["curl", "--config", str(path)], deadline_seconds=job.deadline_seconds)
            times = list(map(float, said.split()))
            return Outcome(work.total_bytes, operations=len(times), seconds={"operation": times})

        return run


_ENGINES: dict[str, Callable[[str], Client]] = {
    "engine-ours": _Ours,
    "engine-curl": _Curl,
    "engine-memory-bio": _MemoryBio,
    "engine-http.client": _HttpClient,
    "engine-pycurl": _Pycurl,
    "engine-urllib3": _Urllib3,
    "engine-requests": _Requests,
}


def make(name: str) -> Client:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _ENGINES[name](name)
