"""A server on loopback that says exactly what a test has it say, connection by connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

Script = Callable[["Talk"], None]


class Talk:
    """One accepted connection, as the script sees it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.buffer = b""

    def head(self) -> bytes:
        """Read a request's head; empty at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def body(self, size: int) -> bytes:
        """Read bytes of a body; fewer at the end of the connection."""
        pieces = [self.buffer]
        left = size - len(self.buffer)
        while left > 0 and (data := self.sock.recv(65536)):
            pieces.append(data)
            left -= len(data)
        self.buffer = b"".join(pieces)
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return body

    def until(self, end: bytes) -> bytes:
        """Read up to and including some bytes."""
        while end not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                return self.buffer
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(end)
        return text + end

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)


class ScriptedServer:
    """Runs one script per connection, in threads, and keeps what was asked.

    The last script serves all further connections. Errors of scripts because the client went away are its
    right; assertions inside scripts are not seen, so tests look at what the scripts noted.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.heads: list[bytes] = []
        self.connections = 0
        self._talks: list[Talk] = []
        self._threads: list[threading.Thread] = []
        self._last: object = None

    def __enter__(self) -> ScriptedServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Connections are accepted in their order: whoever came before this one gets its script.
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(("127.0.0.1", self.port))
            self._acceptor.join()
        self._listener.close()
        for talk in self._talks:
            with contextlib.suppress(OSError):
                talk.sock.shutdown(socket.SHUT_RD)  # what has come can still be read, then it ends
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            sock, peer = self._listener.accept()
            if peer == self._last:
                sock.close()
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            talk = _Noting(sock, self.connections, self.heads)
            self._talks.append(talk)
            thread = threading.Thread(target=self._run, args=(script, talk), daemon=True)
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _run(script: Script, talk: Talk) -> None:
        with talk.sock, contextlib.suppress(OSError):
            script(talk)


class _Noting(Talk):
    def __init__(self, sock: socket.socket, number: int, heads: list[bytes]) -> None:
        super().__init__(sock, number)
        self._heads = heads

    def head(self) -> bytes:
        head = super().head()
        if head:
            self._heads.append(head)
        return head


def answering(*answers: bytes, again: bool = True) -> Script:
    """Script that gives one answer per request, the last one for ever unless told otherwise."""

    def script(talk: Talk) -> None:
        number = 0
        while talk.head():
            talk.say(answers[min(number, len(answers) - 1)])
            number += 1
            if not again and number == len(answers):
                return

    return script


def ok(body: bytes = b"", *headers: bytes) -> bytes:
    """Bytes of a 200 answer."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
