"""Movers: a pool URL stands for one transfer, and this is how long it lives (protocol page, section 2.5).

A mover starts with a timer of 300 s. Whatever request finds it stops the timer for good and counts one
*open*. Opens are released

- when the connection that made them closes: all of them at once;
- right after the body of a full GET, and after a range GET with ``Connection: close``: *once more*, since the
  close of the connection counts them again. That is how one client can end the URL of another;
- when a PUT is over.

When the count is zero (or less) the mover is over and its URL is dead. A PUT on a read URL ends the mover at
once. A PUT answers only when its mover is over: after a HEAD or GET on a write URL it waits for the
connection of that one to close.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from .connection import Connection
from .content import Replica
from .entry import Entry

__all__ = ["Mover", "MoverTable"]


@dataclass(eq=False)
class Mover:
    """One transfer.

    Parameters
    ----------
    entry : `Entry`
        The file.
    path : `str`
        The path that was requested at the door: a request at the pool must name the same.
    is_write : `bool`
        Whether it takes an upload.
    replica : `Replica` or `None`
        For reads: the bytes, open, so that whatever happens to the entry does not disturb it.
    announced : `int`
        For uploads: the length that the door was told; binding if greater than zero.
    wanted : `tuple` [`str`, ...]
        For uploads: checksum types to compute beside adler32.
    expected : `dict` [`str`, `str`]
        For uploads: the checksums (hex by type) announced at the door.
    disposition : `str`
        ``attachment`` or ``inline``.
    """

    entry: Entry
    path: str
    is_write: bool
    replica: Replica | None = None
    announced: int = 0
    wanted: tuple[str, ...] = ()
    expected: dict[str, str] = field(default_factory=dict)
    disposition: str = "attachment"
    deadline: float = 0.0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_exclusive: bool = False
    was_used: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    opens: dict[Connection, int] = field(default_factory=dict)
    count: int = 0
    bytes_moved: int = 0
    started: float = field(default_factory=time.time)


class MoverTable:
    """The movers of one pool. Thread-safe.

    Parameters
    ----------
    connect_timeout : `float`
        Seconds after which an unused URL dies (``pool.mover.http.timeout.connect``).
    slots : `int`
        How many movers may be active; more have to wait.
    """

    def __init__(self, connect_timeout: float = 300.0, slots: int = 100) -> None:
        self.connect_timeout = connect_timeout
        self.slots = slots
        self._changed = threading.Condition()
        self._movers: dict[str, Mover] = {}

    def start(self, make: Callable[[], Mover], patience: float) -> Mover | None:
        """Start a mover, waiting up to ``patience`` seconds for a slot; `None` if there was none."""
        deadline = time.monotonic() + patience
        with self._changed:
            while True:
                self._expire()
                if len(self._movers) < self.slots:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, 0.1))
            mover = make()
            mover.deadline = time.monotonic() + self.connect_timeout
            self._movers[mover.id] = mover
            return mover

    def _expire(self) -> None:
        now = time.monotonic()
        for mover in list(self._movers.values()):
            if not mover.was_used and mover.deadline < now:
                self._end(mover)

    def _end(self, mover: Mover) -> None:
        self._movers.pop(mover.id, None)
        if not mover.over.is_set():
            mover.over.set()
            if mover.replica is not None:
                mover.replica.close()
                mover.replica = None
        self._changed.notify_all()

    def active(self) -> list[Mover]:
        """Return the movers that live now."""
        with self._changed:
            self._expire()
            return list(self._movers.values())

    def find(self, identifier: str) -> Mover | None:
        """Return the mover of a URL, or `None` if it is dead, or another PUT has it to itself."""
        with self._changed:
            self._expire()
            mover = self._movers.get(identifier)
            return None if mover is None or mover.is_exclusive else mover

    def open(self, mover: Mover, connection: Connection, *, exclusive: bool = False) -> bool:
        """Count a use of a mover; return whether it is (still) there."""
        with self._changed:
            if mover.over.is_set() or mover.is_exclusive:
                return False
            if not mover.opens.get(connection):
                connection.on_close.append(lambda: self.close(mover, connection))
            mover.was_used = True
            mover.is_exclusive = exclusive
            mover.opens[connection] = mover.opens.get(connection, 0) + 1
            mover.count += 1
            return True

    def replica(self, mover: Mover) -> Replica | None:
        """Return a replica of one's own, or `None` if the mover is over."""
        with self._changed:
            return None if mover.replica is None else mover.replica.duplicate()

    def release(self, mover: Mover) -> None:
        """Take back one use, without forgetting that its connection made it."""
        with self._changed:
            mover.count -= 1
            if mover.count <= 0:
                self._end(mover)

    def close(self, mover: Mover, connection: Connection) -> None:
        """Take back every use that a connection made."""
        with self._changed:
            mover.count -= mover.opens.pop(connection, 0)
            if mover.count <= 0:
                self._end(mover)

    def end(self, mover: Mover) -> None:
        """End a mover whatever its count."""
        with self._changed:
            self._end(mover)

    def stop(self) -> None:
        """End all movers."""
        with self._changed:
            for mover in list(self._movers.values()):
                self._end(mover)
