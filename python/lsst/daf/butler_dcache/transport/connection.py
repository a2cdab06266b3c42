"""One connection of the data plane: a socket, what was read ahead, and how long to wait for more.

A pool writes head and body of an answer in separate segments with Nagle's algorithm on; the second waits
until the first is acknowledged, and our kernel delays that by 40 ms on a connection that has been used
before. ``TCP_QUICKACK`` has the kernel acknowledge at once what has come, but only until it thinks otherwise,
so it is set whenever there is nothing to read and we begin to wait (protocol page, "What surprised us", 21).

The socket never blocks. Waiting is done by `poll`, whose time limit no signal prolongs.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from typing import BinaryIO

from ..config.settings import Origin
from ..errors import DeadlineError, ProtocolError
from .deadline import Deadline
from .exchange import Opening
from .fork import next_connection_number
from .http1 import MAX_HEAD_BYTES, Head, read_head
from .lateness import Lateness
from .stalls import Progress

__all__ = ("Connection", "ConnectionLostError")

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_NO_MATTER = contextlib.suppress(OSError)
_HEAD_PIECE_BYTES = 8 * 1024
_FILE_PIECE_BYTES = 256 * 1024
"""Fits into the processor's cache together with the kernel's copy."""


class ConnectionLostError(Exception):
    """The connection ended before it should."""


class Connection:
    """A connection to one server, used for one request after the other; this one without encryption.

    Parameters
    ----------
    sock : `socket.socket`
        From `~.sockets.open_socket`.
    origin : `tuple`
        Scheme, host and port of the server.

    Notes
    -----
    Not thread-safe.
    """

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.sock = sock
        self.origin = origin
        self.number = next_connection_number()
        self.requests = 0
        self.opening: Opening | None = None
        self.idle_since = 0.0
        self.usable = True
        self.is_unread = False  # whether there is more to come of an answer, which may be forgotten half read
        self._buffer = bytearray(MAX_HEAD_BYTES)  # what was read ahead lies in [_at, _end)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.progress: Progress | None = None  # of the body that is sent or read at this moment
        self.lateness: Lateness | None = None  # of the answer that is waited for at this moment
        self._drained = False  # whether there is hardly anything to read, so that we wait at once

    @property
    def is_alive(self) -> bool:
        """Whether another request can be sent."""
        return (
            self.usable
            and not self.is_unread
            and self._at == self._end
            and self.sock.fileno() >= 0  # in a child process it is closed
            and self._is_quiet()
        )

    def _is_quiet(self) -> bool:
        """Tell whether the server has said nothing that nobody asked for, and not closed."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close it; closing twice is not an error."""
        self.usable = False
        with contextlib.suppress(OSError):
            self.sock.close()

    def interrupt(self) -> None:
        """End the waiting of another thread that uses it, which closes it."""
        self.usable = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    # -- sending

    def send(self, data: bytes | memoryview, deadline: Deadline, silence: float) -> None:
        """Send all of some bytes.

        Parameters
        ----------
        data : bytes-like
            What is sent.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest time without progress in seconds.

        Raises
        ------
        ConnectionLostError
            If the server does not take it.
        DeadlineError
            If there is no time left, or it takes it too slowly.
        """
        self._transmit(memoryview(data).cast("B"), deadline, silence)

    def _transmit(self, view: memoryview, deadline: Deadline, silence: float) -> None:
        self._drained = True
        while view:
            try:
                count = self.sock.send(view)
                view = view[count:]
                if self.progress is not None:
                    self.progress.moved(count)
            except BlockingIOError:
                self._await_room(deadline, silence)
            except OSError as exc:
                raise self._lost(exc) from exc

    def _await_room(self, deadline: Deadline, silence: float) -> None:
        usable, self.usable = self.usable, False
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        if not self._wait(poll, self._patience(deadline, silence)):
            raise ConnectionLostError("the server stopped taking bytes")
        self.usable = usable

    def _lost(self, error: OSError) -> ConnectionLostError:
        """Give the connection up; return what is to be raised."""
        self.usable = False
        return ConnectionLostError(_text(error))

    def send_file(self, file: BinaryIO, length: int, deadline: Deadline, silence: float) -> None:
        """Send the next bytes of a file.

        Parameters
        ----------
        file : `~typing.BinaryIO`
            Positioned at the first byte.
        length : `int`
            How many bytes.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest time without progress in seconds.

        Raises
        ------
        ConnectionLostError
            If the server does not take it.
        ValueError
            If the file is shorter.
        """
        buffer = bytearray(min(length, _FILE_PIECE_BYTES) or 1)
        view = memoryview(buffer)
        readinto = getattr(file, "readinto", None)
        while length:
            wanted = min(length, len(buffer))
            if readinto is not None:
                count = readinto(view[:wanted]) or 0
                piece: bytes | memoryview = view[:count]
            else:
                piece = file.read(wanted)
                count = len(piece)
            if count == 0:
                self.usable = False
                raise ValueError("the file became shorter while it was sent")
            self.send(piece, deadline, silence)
            length -= count

    # -- receiving

    def _receive(self, view: memoryview, deadline: Deadline, silence: float) -> int:
        """Read what is there, and wait for it if need be; 0 at the end of the stream."""
        timeout = self._patience(deadline, silence)
        while True:
            try:
                if not self._drained:
                    count = self.sock.recv_into(view)
                    self._drained = count < len(view)
                    if self.progress is not None:
                        self.progress.moved(count)
                    return count
            except BlockingIOError:
                pass
            except OSError as exc:
                raise self._lost(exc) from exc
            self._drained = False
            if _QUICKACK is not None:
                with _NO_MATTER:
                    self.sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if not self._wait(self._poll, timeout):
                self.usable = False
                raise DeadlineError(f"nothing came for {timeout:g} s")

    def _patience(self, deadline: Deadline, silence: float) -> float:
        if self.progress is not None:
            silence = min(silence, self.progress.floor.seconds)
        return deadline.limit(silence)

    def _wait(self, poll: select.poll, seconds: float) -> bool:
        """Wait for the server; return whether it did anything."""
        lateness, until = self.lateness, time.monotonic() + seconds
        while lateness is not None and (left := lateness.left) < seconds:
            if poll.poll(left * 1000):
                return True
            if not lateness.act():
                self.lateness = lateness = None
            seconds = max(0.0, until - time.monotonic())
        progress = self.progress
        if progress is None:
            return bool(poll.poll(seconds * 1000))
        begun = time.monotonic()
        something = bool(poll.poll(seconds * 1000))
        if something and progress.has_stalled(time.monotonic() - begun):
            self.usable = False
            raise DeadlineError(f"the transfer has stalled: {progress.floor}")
        return something

    def _fill(self, deadline: Deadline, silence: float) -> bool:
        """Read once into the buffer, keeping what is left in it; `False` at the end of the stream."""
        if self._at:
            self._buffer[: self._end - self._at] = self._buffer[self._at : self._end]
            self._at, self._end = 0, self._end - self._at
        # A body that follows is better read straight to where it belongs.
        piece = self._view[self._end : self._end + _HEAD_PIECE_BYTES]
        count = self._receive(piece, deadline, silence)
        self._end += count
        return count > 0

    def read_head(self, deadline: Deadline, silence: float) -> Head:
        """Read the next head, interim ones included.

        Parameters
        ----------
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        head : `~.http1.Head`
            Status, reason and headers.

        Raises
        ------
        ConnectionLostError
            If the connection ends first.
        DeadlineError
            If nothing comes.
        ProtocolError
            If it is no head, or one without end.
        """
        while True:
            end = self._buffer.find(b"\r\n\r\n", self._at, self._end)
            if end >= 0:
                data = bytes(self._buffer[self._at : end])
                self._at = end + 4
                return read_head(data)
            if self._end - self._at >= MAX_HEAD_BYTES:
                self.usable = False
                raise ProtocolError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
            begun = self._end > self._at
            if not self._fill(deadline, silence):
                self.usable = False
                when = "in the middle of" if begun else "before"
                raise ConnectionLostError(f"the server closed the connection {when} its answer")

    def read_line(self, limit: int, deadline: Deadline, silence: float) -> bytes:
        """Read up to the end of a line, which is removed.

        Parameters
        ----------
        limit : `int`
            Longest line in bytes.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        line : `bytes`
            Without CR and LF.

        Raises
        ------
        ConnectionLostError
            If the connection ends first.
        ProtocolError
            If the line is longer.
        """
        while True:
            end = self._buffer.find(b"\r\n", self._at, self._end)
            if end >= 0:
                line = bytes(self._buffer[self._at : end])
                self._at = end + 2
                return line
            if self._end - self._at > limit:
                self.usable = False
                raise ProtocolError("a line of the answer is too long")
            if not self._fill(deadline, silence):
                self.usable = False
                raise ConnectionLostError("the server closed the connection in the middle of its answer")

    def read_into(self, view: memoryview, deadline: Deadline, silence: float) -> int:
        """Read what is there, at most as much as fits.

        Parameters
        ----------
        view : `memoryview`
            Where the bytes go; not empty.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest wait for bytes in seconds.

        Returns
        -------
        count : `int`
            Number of bytes, 0 at the end of the stream.

        Raises
        ------
        ConnectionLostError
            If the connection broke.
        DeadlineError
            If nothing comes.
        """
        waiting = self._end - self._at
        if waiting:
            count = min(waiting, len(view))
            view[:count] = self._buffer[self._at : self._at + count]
            self._at += count
            return count
        return self._receive(view, deadline, silence)

    def answered(self) -> None:
        """Note that an answer has come."""
        self.requests += 1

    def rest(self) -> None:
        """Note that the connection is idle from now on."""
        self.idle_since = time.monotonic()


def _text(error: OSError) -> str:
    if error.errno == errno.EPIPE:
        return "the server closed the connection"
    return error.strerror or str(error) or type(error).__name__
