"""The embedded dCache in a process of its own, and load for it: what predictions are compared with.

``python -m ... server OPTIONS`` serves until its standard input ends; ``python -m ... load OPTIONS`` sends
requests as fast as they are answered and says what came of it. Both take and give one line of JSON. The load
comes from bare sockets, since a real client needs more of the machine than the server.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...embedded import EmbeddedDcache
from ...embedded.latency import Latency
from ...transport.retry import Phase, rule_for
from ..processes import cpu_seconds

__all__ = ("StandIn", "running")

_FILE = "/data/file"
_SIZE = 1000
_LISTED = "/data/listed/"
_LISTED_FILES = 200


class _PoolLatency(Latency):
    """Waits at the pool alone."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def spend(self, operation: str, count: int = 1) -> None:
        """Wait before the body of a GET at the pool."""
        if operation == "pool_get":
            self.stopping.wait(self._seconds)


def _serve(limiter: bool, tls: bool, movers: int, pool_seconds: float) -> None:
    with EmbeddedDcache(tls=tls, limiter=limiter, pools=1, frontend=False) as dcache:
        dcache.place(_FILE, bytes(_SIZE))
        for number in range(_LISTED_FILES):
            dcache.place(f"{_LISTED}{number}", b"x")
        dcache.site.pools[0].movers.slots = movers
        if pool_seconds:
            dcache.site.latency = _PoolLatency(pool_seconds)
        port = int(dcache.url.rsplit(":", 1)[1].split("/")[0])
        hello = {
            "port": port,
            "ca_file": dcache.ca_file,
            "user": dcache.user,
            "password_file": dcache.password_file,
        }
        print(json.dumps(hello), flush=True)
        sys.stdin.read()


class _Client:
    """One client with a connection to the door and one to the pool; sockets and nothing else."""

    def __init__(self, port: int, ca_file: str | None, headers: str, connections: str) -> None:
        self._port, self._headers, self._connections = port, headers, connections
        self._context = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._open: dict[int, socket.socket] = {}
        self._session: ssl.SSLSession | None = None
        self._sequence = 0
        self._place = ""

    def _connection(self, port: int) -> socket.socket:
        found = self._open.get(port)
        if found is None:
            raw = socket.create_connection(("127.0.0.1", port), timeout=30.0)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                session = self._session if self._connections == "resumed" else None
                raw = self._context.wrap_socket(raw, server_hostname="localhost", session=session)
            found = self._open[port] = raw
        return found

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1].close()

    def ask(
        self, port: int, method: str, target: str, headers: str = "", body: bytes = b""
    ) -> tuple[int, str]:
        """Send a request; return the status and the place of a redirect."""
        connection = self._connection(port)
        login = self._headers if port == self._port else ""  # a pool needs none
        length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost:{port}\r\n{login}{length}{headers}\r\n"
        connection.sendall(head.encode() + body)
        if hasattr(socket, "TCP_QUICKACK"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive(connection)
        head, rest = data[:end].decode("latin-1").lower(), data[end + 4 :]
        status = int(head.split(" ", 2)[1])
        if method == "HEAD" or status == 204:
            pass
        elif "transfer-encoding: chunked" in head:
            while not rest.endswith(b"0\r\n\r\n"):
                rest += self._receive(connection)
        elif "content-length: " in head:
            left = int(head.split("content-length: ", 1)[1].split("\r\n", 1)[0])
            while len(rest) < left:
                rest += self._receive(connection)
        place = ""
        if status in (302, 307):
            place = data[:end].decode("latin-1").split("\r\nLocation: ", 1)[1].split("\r\n", 1)[0]
        if isinstance(connection, ssl.SSLSocket):
            self._session = connection.session
        if "connection: close" in head or self._connections != "kept" or (method == "PUT" and status == 307):
            self._open.pop(port).close()
        return status, place

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def do(self, kind: str) -> int:
        """Do an operation; return the last status."""
        port = self._port
        match kind:
            case "propfind":
                return self.ask(port, "PROPFIND", _FILE, "Depth: 0\r\n")[0]
            case "list":
                return self.ask(port, "PROPFIND", _LISTED, "Depth: 1\r\n")[0]
            case "options":
                return self.ask(port, "HEAD", _FILE)[0]
            case "range":
                if not self._place:
                    self._place = self.ask(port, "GET", _FILE)[1]
                return self.ask(*_split(self._place, "GET"), "Range: bytes=0-99\r\n")[0]
            case "get":
                status, place = self.ask(port, "GET", _FILE)
                return status if status != 302 else self.ask(*_split(place, "GET"))[0]
            case "put_proxied" | "put":
                self._sequence += 1
                name = f"/data/new-{id(self)}-{self._sequence}"
                if kind == "put_proxied":
                    return self.ask(port, "PUT", name, body=bytes(_SIZE))[0]
                status, place = self.ask(port, "PUT", name, "Expect: 100-continue\r\n")
                return status if status != 307 else self.ask(*_split(place, "PUT"), body=bytes(_SIZE))[0]
            case "move":
                self._sequence += 1
                old, new = (
                    f"/data/moved-{id(self)}-{number}" for number in (self._sequence - 1, self._sequence)
                )
                if self._sequence == 1:
                    self.ask(port, "PUT", old, body=b"x")
                return self.ask(port, "MOVE", old, f"Destination: http://localhost:{port}{new}\r\n")[0]
        raise ValueError(kind)


def _split(place: str, method: str) -> tuple[int, str, str]:
    port, _, target = place.split("://", 1)[1].partition(":")[2].partition("/")
    return int(port), method, f"/{target}"


def _load(
    port: int,
    ca_file: str | None,
    user: str,
    password_file: str,
    kind: str,
    threads: int,
    warm_up: float,
    seconds: float,
    connections: str,
    addresses: int,
    seed: int,
) -> None:
    password = Path(password_file).read_text().strip()
    login = f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"
    counts: Counter[str] = Counter()
    stop = threading.Event()
    begun, ended = threading.Event(), threading.Event()
    problems: list[BaseException] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        address = f"X-Forwarded-For: 10.0.0.{number % addresses}\r\n" if addresses else ""
        client = _Client(port, ca_file, login + address, connections)
        rule = rule_for(Phase.ANSWERED, "GET", 429)
        assert rule is not None
        try:
            while not stop.is_set():
                tries = 0
                while (status := client.do(kind)) == 429 and not stop.is_set():
                    tries += 1
                    if begun.is_set() and not ended.is_set():
                        with lock:
                            counts["refused"] += 1
                    stop.wait(rule.backoff.delay(tries, draw.random))
                if status >= 400 and status != 429:
                    raise RuntimeError(f"the embedded dCache answers {status} to {kind}")
                if begun.is_set() and not ended.is_set():
                    with lock:
                        counts["done"] += 1
        except (OSError, RuntimeError) as error:
            problems.append(error)
        finally:
            client.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(warm_up)
    print("begin", flush=True)
    sys.stdin.readline()
    begun.set()
    began, cpu = time.monotonic(), time.process_time()
    time.sleep(seconds)
    ended.set()
    took = time.monotonic() - began
    used = time.process_time() - cpu
    print("end", flush=True)
    sys.stdin.readline()
    stop.set()
    for worker in workers:
        worker.join()
    if problems:
        raise problems[0]
    print(json.dumps({"seconds": took, "cpu_seconds": used, **counts}), flush=True)


class StandIn:
    """An embedded dCache that is being measured.

    Parameters
    ----------
    process : `subprocess.Popen`
        Its process.
    hello : `dict`
        What it said first.
    """

    def __init__(self, process: subprocess.Popen[str], hello: dict[str, Any]) -> None:
        self._process = process
        self._hello = hello

    def load(
        self,
        kind: str,
        *,
        threads: int = 1,
        processes: int = 1,
        seconds: float = 2.0,
        warm_up: float = 0.5,
        connections: str = "kept",
        addresses: int = 0,
        seed: int = 1,
    ) -> dict[str, float]:
        """Send requests as fast as they are answered, and return what came of it.

        Parameters
        ----------
        kind : `str`
            A kind of request at a door; ``get`` and ``put`` go on to the pool, ``range`` is one there,
            ``list`` one for a directory of 200 files.
        threads, processes : `int`, optional
            Clients in each process, and processes.
        seconds, warm_up : `float`, optional
            How long is counted, and how long not before.
        connections : `str`, optional
            ``kept``, or ``fresh`` for a new one for each request, or ``resumed`` for one that resumes the TLS
            session of the last.
        addresses : `int`, optional
            As so many clients they show themselves to the limiter; 0 is their own address.
        seed : `int`, optional
            Of the waits after a refusal.

        Returns
        -------
        figures : `dict` [`str`, `float`]
            ``done`` and ``refused`` operations, ``seconds``, the clients' ``cpu_seconds`` and the server's
            ``server_cpu_seconds``.
        """
        options = {
            **self._hello,
            "kind": kind,
            "threads": threads,
            "warm_up": warm_up,
            "seconds": seconds,
            "connections": connections,
            "addresses": addresses,
        }
        figures: defaultdict[str, float] = defaultdict(float)
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(_child("load", {**options, "seed": seed + number}))
                for number in range(processes)
            ]
            for child in children:
                _read(child)
            before = cpu_seconds({self._process.pid})
            for child in children:
                _go_on(child)
            for child in children:
                _read(child)
            figures["server_cpu_seconds"] = cpu_seconds({self._process.pid}) - before
            for child in children:
                _go_on(child)
            lasted = 0.0
            for child in children:
                answer = json.loads(_read(child))
                lasted = max(lasted, answer.pop("seconds"))
                for name, value in answer.items():
                    figures[name] += value
        return {"done": 0.0, "refused": 0.0, **figures, "seconds": lasted}


@contextlib.contextmanager
def running(
    *, limiter: bool = False, tls: bool = False, movers: int = 100, pool_seconds: float = 0.0
) -> Iterator[StandIn]:
    """Run an embedded dCache with one door and one pool as long as the context lasts.

    Parameters
    ----------
    limiter, tls : `bool`, optional
        Whether it limits rates, and encrypts.
    movers : `int`, optional
        Mover slots of its pool.
    pool_seconds : `float`, optional
        What the pool waits before it sends a body.

    Yields
    ------
    standin : `StandIn`
        It.
    """
    options = {"limiter": limiter, "tls": tls, "movers": movers, "pool_seconds": pool_seconds}
    with _child("server", options) as process:
        yield StandIn(process, json.loads(_read(process)))


@contextlib.contextmanager
def _child(what: str, options: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, what, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt at the terminal is for us, who end them
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the measurement ended early")
    return line


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        _serve(**json.loads(sys.argv[2]))
    else:
        _load(**json.loads(sys.argv[2]))
