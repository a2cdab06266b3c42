"""A running server as the benchmarks see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from .work import Access, Work

__all__ = ("TARGETS", "Counts", "Target", "TargetGoneError")

TARGETS = {
    "door": "HAProxy door and nginx pools, http (not dCache)",
    "door-tls": "HAProxy door and nginx pools, TLS on both (not dCache)",
    "pool": "nginx alone, http (not dCache)",
    "pool-tls": "nginx alone, TLS (not dCache)",
    "xrootd": "XRootD 6 cluster, http (not dCache)",
    "xrootd-tls": "XRootD 6 cluster, TLS on both (not dCache)",
    "seaweedfs": "SeaweedFS, http (not dCache)",
    "seaweedfs-tls": "SeaweedFS, TLS (not dCache)",
    "unlimited": "embedded dCache as 11.1, which does not limit its clients, http (not dCache)",
    "embedded": "embedded dCache, http (not dCache)",
    "embedded-tls": "embedded dCache, TLS on both (not dCache)",
    "rehearsal": "embedded dCache with dCache's latencies, http (not dCache)",
    "rehearsal-tls": "embedded dCache with dCache's latencies, TLS on both (not dCache)",
}
"""Servers that are started here, and what they are."""


class TargetGoneError(Exception):
    """A server that was there is not there any more; the text says what is known."""


@dataclass(frozen=True)
class Counts:
    """What servers counted.

    Parameters
    ----------
    door_requests, pool_requests : `int`
        Requests.
    door_connections, pool_connections : `int`
        Connections that carried them.
    sent_bytes : `int`
        Bytes of bodies that pools and door sent; -1 where nobody counts them.
    refused : `int`
        Requests that the door refused since there were too many; -1 where nobody counts them.
    door_handshakes, pool_handshakes : `int`
        Full TLS handshakes; -1 where nobody counts them.
    resumed : `int`
        TLS handshakes that went on with an earlier session, at doors and pools; -1 where nobody counts them.
    """

    door_requests: int
    door_connections: int
    pool_requests: int
    pool_connections: int
    sent_bytes: int = -1
    refused: int = -1
    door_handshakes: int = -1
    pool_handshakes: int = -1
    resumed: int = -1

    def since(self, earlier: Counts) -> Counts:
        """Return what came after an earlier look.

        Parameters
        ----------
        earlier : `Counts`
            The earlier look.

        Returns
        -------
        counts : `Counts`
            The differences.
        """
        pairs = ((getattr(self, one.name), getattr(earlier, one.name)) for one in fields(self))
        return Counts(*(-1 if now < 0 or then < 0 else now - then for now, then in pairs))


class Target(Protocol):
    """A running server."""

    @property
    def name(self) -> str:
        """Which one; a key of `TARGETS`, or a URL."""
        ...

    @property
    def kind(self) -> str:
        """What it speaks: ``webdav`` or ``s3``."""
        ...

    @property
    def title(self) -> str:
        """What it is, for reports; no stand-in is called dCache."""
        ...

    @property
    def is_dcache(self) -> bool:
        """Whether it is a dCache: not started here, and saying so itself."""
        ...

    @property
    def server_header(self) -> str:
        """The ``Server`` field of its door; empty if there is none."""
        ...

    @property
    def rtt_seconds(self) -> float:
        """The shortest of some TCP handshakes of a client with its door."""
        ...

    @property
    def child_prefix(self) -> tuple[str, ...]:
        """What goes before the command of a client, so that it runs at its end of the link."""
        ...

    @property
    def version(self) -> str:
        """What the server is, in its own words."""
        ...

    @property
    def access(self) -> Access:
        """How clients reach it."""
        ...

    def provide(self, stem: str, size: int, data: bytes | None = None) -> str:
        """Place a file without a client, unless it is there, and return its name.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Bytes of `~.work.contents`.
        data : `bytes`, optional
            Or these.
        """
        ...

    def provide_many(self, stems: Sequence[str], size: int) -> tuple[str, ...]:
        """Place files of one size, several at a time where that is faster, and return their names.

        Parameters
        ----------
        stems : `~collections.abc.Sequence` [`str`]
            Beginnings of the names.
        size : `int`
            Bytes of each.
        """
        ...

    def new_name(self, stem: str, size: int) -> str:
        """Return a name for an upload of `contents` of this size.

        Parameters
        ----------
        stem : `str`
            Beginning of the name.
        size : `int`
            Size in bytes.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file as the server's side sees it; `None` if it is not there.

        Parameters
        ----------
        name : `str`
            Its name.
        """
        ...

    def clear(self, prefix: str) -> None:
        """Remove all files whose names begin so.

        Parameters
        ----------
        prefix : `str`
            Beginning of the names.
        """
        ...

    def counts(self) -> Counts | None:
        """Return what the servers counted so far; `None` where they do not count."""
        ...

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that its processes have used."""
        ...

    def admit(self, work: Work) -> str:
        """Return why this may not be asked of it now; empty if it may, and then it counts as asked.

        Parameters
        ----------
        work : `~.work.Work`
            What one client is to do.
        """
        ...

    def rate_limit(self, work: Work) -> float:
        """Return how many operations a second all clients together may begin; 0 is no limit.

        Parameters
        ----------
        work : `~.work.Work`
            What they do.
        """
        ...

    def check(self) -> None:
        """Look whether it is still there.

        Raises
        ------
        TargetGoneError
            If it is not.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, as JSON can hold it."""
        ...
