"""What is sent after the head of a request."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import BinaryIO, cast

from .connection import Connection
from .deadline import Deadline

__all__ = ("NOTHING", "Body", "Payload")

Body = bytes | bytearray | memoryview | BinaryIO | Iterable[bytes | bytearray | memoryview]
"""Bytes; a binary file, from its position to its end; or pieces, whose total length may be announced."""

_SMALL_BYTES = 128 * 1024
"""More than what goes through a door: a copy costs less than a system call and a packet of its own."""
_PIECE_BYTES = 256 * 1024


class Payload:
    """The body of one request, which can be sent again if it can be had again.

    Parameters
    ----------
    body : `Body` or `None`
        What is sent.
    announced : `int` or `None`, optional
        Total length of the pieces of an iterator.

    Attributes
    ----------
    length : `int` or `None`
        Bytes, if that is known.
    small : bytes-like or `None`
        All of it, if it is so small that it travels with the head.
    """

    def __init__(self, body: Body | None, announced: int | None = None) -> None:
        self._bytes: memoryview | None = None
        self._file: BinaryIO | None = None
        self._pieces: Iterable[bytes | bytearray | memoryview] | None = None
        self._start = 0
        self._begun = False
        self.length: int | None = 0
        self.small: memoryview | bytes | None = b""
        if body is None:
            return
        if isinstance(body, bytes | bytearray | memoryview):
            self._bytes = memoryview(body).cast("B")
            self.length = len(self._bytes)
            self.small = self._bytes if self.length <= _SMALL_BYTES else None
            return
        if not hasattr(body, "read"):
            self._pieces = body
            self.length = announced
        elif not (file := cast(BinaryIO, body)).seekable():
            self._pieces = iter(partial(file.read, _PIECE_BYTES), b"")
            self.length = announced
        else:
            self._file = file
            self._start = file.tell()
            self.length = file.seek(0, os.SEEK_END) - self._start
            file.seek(self._start)
        if self._pieces is not None or self.length != 0:
            self.small = None

    @property
    def can_be_sent(self) -> bool:
        """Whether all of it can be sent, for the first time or again."""
        return self._pieces is None or not self._begun

    def send(self, connection: Connection, deadline: Deadline, silence: float) -> int:
        """Send all of it.

        Parameters
        ----------
        connection : `~.connection.Connection`
            Where to.
        deadline : `~.deadline.Deadline`
            Limits the whole.
        silence : `float`
            Longest time without progress in seconds.

        Returns
        -------
        sent : `int`
            Number of bytes.

        Raises
        ------
        ConnectionLostError
            If the server does not take it.
        ValueError
            If it is longer or shorter than it was announced.
        """
        self._begun = True
        if self._bytes is not None:
            connection.send(self._bytes, deadline, silence)
            return len(self._bytes)
        if self._file is not None and self.length is not None:
            self._file.seek(self._start)
            connection.send_file(self._file, self.length, deadline, silence)
            return self.length
        if self._pieces is None:
            return 0
        chunked = self.length is None
        sent = 0
        end = b""
        for piece in self._pieces:
            view = memoryview(piece).cast("B")
            if not view:
                continue  # an empty chunk would end the body
            sent += len(view)
            if self.length is not None and sent > self.length:
                raise ValueError(f"the body is longer than the {self.length} bytes announced")
            if chunked:
                connection.send(b"%s%x\r\n" % (end, len(view)), deadline, silence)
                end = b"\r\n"
            connection.send(view, deadline, silence)
        if chunked:
            connection.send(end + b"0\r\n\r\n", deadline, silence)
        elif sent != self.length:
            raise ValueError(f"the body has {sent} bytes, not the {self.length} announced")
        return sent


NOTHING = Payload(None)
"""No body at all."""
