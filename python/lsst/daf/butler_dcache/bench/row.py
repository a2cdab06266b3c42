"""Rows of a table of figures: work, who does it, and what shall come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from .work import Work

__all__ = ("FASTEST", "Claim", "Row")

FASTEST = "the fastest"
"""As a claim's peer: the fastest of the others."""


@dataclass(frozen=True)
class Claim:
    """A figure to reach.

    Parameters
    ----------
    quantity : `str`
        ``wall`` or ``cpu``: seconds; ``cpu_excess``: CPU seconds per GiB more than the peer; ``peak``: bytes;
        ``door``, ``pool``, ``requests``: their number; ``connections``: to pools; ``each``: median seconds of
        one operation; ``bytes``: bytes that the server sent, over those that were asked for; ``rate``: door
        requests per second that were let through; ``refused``: those that were not.
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
        Against which servers.
    claims : `tuple` [`Claim`, ...]
        What shall come out.
    make_file : `~collections.abc.Callable`, optional
        Makes the one file that is read, where its contents matter.
    needs : `~collections.abc.Callable`, optional
        Says how many bytes of that file are wanted.
    """

    name: str
    title: str
    work: Work
    peers: tuple[str, ...]
    targets: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    make_file: Callable[[Work], bytes] | None = None
    needs: Callable[[bytes], int] | None = None

    def scaled(self, factor: float) -> Row:
        """Return the same with less to do; its figures are good for nothing but a test of the benchmark.

        Parameters
        ----------
        factor : `float`
            Of the number of files or, where there is one, of its size and the number of pieces.

        Returns
        -------
        row : `Row`
            With at least two pieces, of what there are several.
        """
        if factor == 1:
            return self
        work = self.work
        count = work.count if work.count < 3 else max(2, round(work.count * factor))
        if work.operation in ("get", "put", "look", "delete") and work.count > 1:
            return dataclasses.replace(self, work=dataclasses.replace(work, count=count))
        # All the pieces must fit in.
        least = max(work.piece_bytes * count * 2, 1000)
        size = max(round(work.size_bytes * factor), least)
        return dataclasses.replace(self, work=dataclasses.replace(work, size_bytes=size, count=count))
