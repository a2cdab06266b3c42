"""Rows of a table of figures: work, who does it, and what shall come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from .peers.registry import PEERS
from .work import Work

__all__ = ("COUNTED", "FASTEST", "QUANTITIES", "Claim", "Row")

FASTEST = "the fastest"
"""As a claim's peer: the fastest of the others."""

QUANTITIES = {
    "wall": "wall time, s",
    "cpu": "CPU time, s",
    "cpu_excess": "CPU s/GiB",
    "cpu_each": "CPU seconds per operation",
    "server_cpu": "server's CPU time, s",
    "peak": "peak memory, bytes",
    "p50": "median of one operation, s",
    "p90": "p90 of one operation, s",
    "p99": "p99 of one operation, s",
    "p999": "p99.9 of one operation, s",
    "max": "longest operation, s",
    "first_byte": "median until the first byte, s",
    "operations": "operations per second",
    "door": "door requests",
    "pool": "pool requests",
    "requests": "requests",
    "connections": "pool connections",
    "handshakes": "full TLS handshakes",
    "bytes": "bytes sent / bytes needed",
    "rate": "door requests per second",
    "refused": "door requests refused (429)",
    "retries": "repeated requests",
    "errors": "failed operations",
}
"""What a claim can be about, in words."""

COUNTED = ("door", "pool", "requests", "connections", "handshakes", "bytes", "refused", "retries", "peak")
"""Those that do not depend on how fast the machine is."""

_AT_DCACHE = ("door", "pool", "bytes")


@dataclass(frozen=True)
class Claim:
    """A figure to reach.

    Parameters
    ----------
    quantity : `str`
        A key of `QUANTITIES`. ``cpu_excess`` is what a GiB costs more than with the peer; ``bytes`` are
        those that the server sent, over those that were asked for; ``rate`` counts door requests that were
        let through, ``refused`` those that were not.
    limit : `float`
        At most this, or at least this for ``at_least``.
    peer : `str`
        Divided by the peer's figure of the same repetition; empty: our own figure. ``the fastest``: the
        peer with the least median of wall time, the clients of this package left out.
    at_least : `bool`
        Which side of the limit is good.
    client : `str`
        Whose figure.
    """

    quantity: str
    limit: float
    peer: str = ""
    at_least: bool = False
    client: str = "ours"

    @property
    def text(self) -> str:
        """What it is about, in words."""
        name = QUANTITIES[self.quantity]
        if self.peer and self.quantity != "cpu_excess":
            name = name.removesuffix(", s").removesuffix(", bytes")
        if self.client != "ours":
            name += f" of {self.client}"
        if not self.peer:
            return name
        return f"{name} {'over' if self.quantity == 'cpu_excess' else '/'} {self.peer}"

    @property
    def is_counted(self) -> bool:
        """Whether a machine's speed does not matter."""
        return self.quantity in COUNTED


@dataclass(frozen=True)
class Row:
    """One row of a table of figures.

    Parameters
    ----------
    name : `str`
        Short, for the command line.
    title : `str`
        What it is.
    work : `~.work.Work`
        What is done.
    peers : `tuple` [`str`, ...]
        By whom.
    targets : `tuple` [`str`, ...]
        Against which servers, if nobody says so.
    claims : `tuple` [`Claim`, ...]
        What shall come out.
    make_file : `~collections.abc.Callable`, optional
        Makes the one file that is read, where its contents matter.
    needs : `~collections.abc.Callable`, optional
        Says how many bytes of that file are wanted.
    group : `str`
        Chapter of the report.
    kinds : `tuple` [`str`, ...]
        ``webdav``, ``s3``: which servers this can be done at.
    """

    name: str
    title: str
    work: Work
    peers: tuple[str, ...]
    targets: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    make_file: Callable[[Work], bytes] | None = None
    needs: Callable[[bytes], int] | None = None
    group: str = "whole files"
    kinds: tuple[str, ...] = ("webdav",)

    def at(self, kind: str) -> Row:
        """Return the row for one kind of server.

        Parameters
        ----------
        kind : `str`
            ``webdav`` or ``s3``.

        Returns
        -------
        row : `Row`
            Without the clients that do not speak with such a server, and at S3 without what is claimed of
            doors and pools: there large files go in several requests.
        """
        return dataclasses.replace(
            self,
            peers=tuple(peer for peer in self.peers if kind in PEERS[peer].kinds),
            claims=tuple(claim for claim in self.claims if kind != "s3" or claim.quantity not in _AT_DCACHE),
        )

    def scaled(self, factor: float) -> Row:
        """Return the same with less to do; its figures are good for nothing but a test of the benchmark.

        Parameters
        ----------
        factor : `float`
            Of the number of operations and, where there are few of them, of the files' size.

        Returns
        -------
        row : `Row`
            With at least two of what there are several.
        """
        if factor == 1:
            return self
        work = self.work
        count, batch = (
            number if number < 3 else max(2, round(number * factor)) for number in (work.count, work.batch)
        )
        files = min(work.files, count)
        work = dataclasses.replace(work, count=count, batch=batch, files=files)
        if (
            work.operation == "mix"
            or not work.operation_bytes
            or (self.work.count > 2 and not work.piece_bytes)
        ):
            return dataclasses.replace(self, work=work)
        # All the pieces must fit in.
        least = max(work.piece_bytes * count * batch * 2, 1000)
        size = min(max(round(work.size_bytes * factor), least), work.size_bytes)
        return dataclasses.replace(self, work=dataclasses.replace(work, size_bytes=size))
