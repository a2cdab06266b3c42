"""Event channels of the frontend: inotify over server-sent events.

A channel belongs to one user, keeps a backlog and has at most one reader; a second reader evicts the first. A
subscription watches one directory, not what lies below it (protocol page, section 7.7).
"""

import base64
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

__all__ = ["Channel", "EventHub", "Subscription", "TooManyChannelsError"]

BACKLOG = 16383
CHANNELS_PER_USER = 128
IDLE_SECONDS = 300.0

FLAGS = (
    "IN_ACCESS", "IN_ATTRIB", "IN_CLOSE_WRITE", "IN_CLOSE_NOWRITE", "IN_CREATE", "IN_DELETE",
    "IN_DELETE_SELF", "IN_MODIFY", "IN_MOVE_SELF", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_OPEN",
    "IN_IGNORED", "IN_ISDIR",
)  # fmt: skip


class TooManyChannelsError(Exception):
    """The user has as many channels as one may have."""


@dataclass(frozen=True)
class Subscription:
    """One watched directory.

    Parameters
    ----------
    identifier : `str`
        Last part of its URL.
    directory : `str`
        Identifier of the directory in the namespace: a watch follows a
        rename.
    path : `str`
        The path as it was asked for.
    flags : `frozenset` [`str`]
        What to report.
    url : `str`
        Where the subscription is found.
    """

    identifier: str
    directory: str
    path: str
    flags: frozenset[str]
    url: str


@dataclass(frozen=True)
class _Event:
    number: int
    kind: str
    data: str

    def block(self) -> bytes:
        return f"event: {self.kind}\nid: {self.number}\ndata: {self.data}\n\n".encode()


@dataclass
class Channel:
    """A user's queue of events.

    Parameters
    ----------
    identifier : `str`
        Last part of its URL.
    owner : `int`
        User id.
    client : `str`
        The ``client-id`` of its maker, or empty.
    clock : `~collections.abc.Callable`
        Seconds that only grow.
    """

    identifier: str
    owner: int
    client: str
    clock: Callable[[], float]
    timeout_seconds: float = IDLE_SECONDS
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    _events: deque[_Event] = field(default_factory=lambda: deque(maxlen=BACKLOG))
    _next: int = 0
    _reader: object | None = None
    _idle_since: float = 0.0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._idle_since = self.clock()

    def is_expired(self) -> bool:
        """Tell whether nobody has read for longer than the channel lives.

        Returns
        -------
        expired : `bool`
            `False` while there is a reader.
        """
        with self._changed:
            return self._reader is None and self.clock() - self._idle_since > self.timeout_seconds

    def subscribe(
        self, directory: str, path: str, flags: frozenset[str], base: str
    ) -> tuple[Subscription, bool]:
        """Watch a directory, or widen a watch of it.

        Parameters
        ----------
        directory : `str`
            Its identifier.
        path : `str`
            Its path as asked for.
        flags : `frozenset` [`str`]
            What to report.
        base : `str`
            URL of the channel.

        Returns
        -------
        subscription : `Subscription`
            The watch.
        created : `bool`
            `False` if there was one already, which is widened.
        """
        with self._changed:
            old = next((s for s in self.subscriptions.values() if s.directory == directory), None)
            identifier = old.identifier if old else base64.urlsafe_b64encode(secrets.token_bytes(18)).decode()
            url = f"{base}/subscriptions/inotify/{identifier}"
            both = flags | (old.flags if old else frozenset())
            new = Subscription(identifier, directory, path, both, url)
            self.subscriptions[identifier] = new
        if old is None:
            self.emit("SYSTEM", {"type": "NEW_SUBSCRIPTION", "subscription": url})
        return new, old is None

    def emit(self, kind: str, data: Mapping[str, object]) -> None:
        """Append an event and wake the reader.

        Parameters
        ----------
        kind : `str`
            Event type: ``inotify`` or ``SYSTEM``.
        data : `~collections.abc.Mapping`
            Its content.
        """
        with self._changed:
            self._events.append(_Event(self._next, kind, json.dumps(data, separators=(",", ":"))))
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End the channel and its reader."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self, last_seen: int | None, pause_seconds: float = 0.5) -> Generator[bytes, None, None]:
        """Follow the channel; whoever reads it now is evicted.

        Parameters
        ----------
        last_seen : `int` or `None`
            Number of the last event that the client has, to resume from the
            backlog; `None` starts with what comes.
        pause_seconds : `float`, optional
            How often to yield nothing, so that the caller can look whether
            its client is still there.

        Yields
        ------
        block : `bytes`
            One event as it goes on the wire, or nothing.
        """
        me = object()
        with self._changed:
            self._reader = me
            self._changed.notify_all()
            at = self._next if last_seen is None else last_seen + 1
            oldest = self._events[0].number if self._events else self._next
            lost = at < oldest or at > self._next
            at = oldest if lost else at
        if lost:
            yield _Event(at, "SYSTEM", '{"type":"EVENT_LOSS"}').block()
        try:
            while True:
                with self._changed:
                    if self._reader is me and not self._closed and at >= self._next:
                        self._changed.wait(pause_seconds)
                    evicted, closed = self._reader is not me, self._closed
                    ready = [event for event in self._events if event.number >= at]
                    at = self._next
                if evicted:
                    yield _Event(at, "SYSTEM", '{"type":"COMPETING_CLIENT"}').block()
                    return
                yield b"".join(event.block() for event in ready)
                if closed:
                    return
        finally:
            with self._changed:
                if self._reader is me:
                    self._reader = None
                    self._idle_since = self.clock()


class EventHub:
    """All channels of one dCache.

    Parameters
    ----------
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow; tests move it.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}

    def channels(self, owner: int) -> list[Channel]:
        """List a user's channels, without those that have been idle for too long.

        Parameters
        ----------
        owner : `int`
            User id.

        Returns
        -------
        channels : `list` [`Channel`]
            The living ones.
        """
        with self._lock:
            for channel in [c for c in self._channels.values() if c.is_expired()]:
                del self._channels[channel.identifier]
            return [channel for channel in self._channels.values() if channel.owner == owner]

    def open(self, owner: int, client: str) -> Channel:
        """Make a channel.

        Parameters
        ----------
        owner : `int`
            User id.
        client : `str`
            The client's own name for it, or empty.

        Returns
        -------
        channel : `Channel`
            The new channel.

        Raises
        ------
        TooManyChannelsError
            If the user has 128 already.
        """
        if len(self.channels(owner)) >= CHANNELS_PER_USER:
            raise TooManyChannelsError
        identifier = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        channel = Channel(identifier, owner, client, self._clock)
        with self._lock:
            self._channels[identifier] = channel
        return channel

    def close(self, channel: Channel) -> None:
        """Remove a channel and end its reader.

        Parameters
        ----------
        channel : `Channel`
            One of `channels`.
        """
        with self._lock:
            self._channels.pop(channel.identifier, None)
        channel.close()

    def close_all(self) -> None:
        """End every channel: the frontend stops."""
        with self._lock:
            channels = list(self._channels.values())
            self._channels.clear()
        for channel in channels:
            channel.emit("SYSTEM", {"type": "SHUTDOWN"})
            channel.close()

    def notify(
        self, directory: str, flag: str, name: str, cookie: str = "", is_directory: bool = False
    ) -> None:
        """Tell the watchers of a directory what happened in it.

        Parameters
        ----------
        directory : `str`
            Identifier of the directory.
        flag : `str`
            One of inotify's.
        name : `str`
            Name of the entry.
        cookie : `str`, optional
            Joins the two halves of a rename.
        is_directory : `bool`, optional
            Whether the entry is a directory.
        """
        with self._lock:
            channels = list(self._channels.values())
        for channel in channels:
            for subscription in list(channel.subscriptions.values()):
                if subscription.directory == directory and flag in subscription.flags:
                    mask = [flag, "IN_ISDIR"] if is_directory else [flag]
                    event = {"name": name, **({"cookie": cookie} if cookie else {}), "mask": mask}
                    channel.emit("inotify", {"event": event, "subscription": subscription.url})
