"""Listings of directories, read as they arrive.

dCache builds the whole answer before it sends the first byte, which takes 24 to 42 s for 10,000 entries
(protocol page, section 4.2), and then sends half a kilobyte for each. So the answer comes by the data plane,
whose silence limit for doors is made for that, and its entries are handed on one by one. It is complete when
its closing tag *and* the end of its chunks have come: a connection that breaks leaves an error, never a short
listing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TypeVar

from ..errors import DoorUnavailableError, ProtocolError, ServerError
from ..model import FileInfo
from ..transport.answer import DataAnswer
from ..transport.deadline import Deadline
from ..transport.failures import failure
from ..transport.retry import Phase, rounds
from .door import REDIRECTS, Door
from .propfind import PROPFIND_BODY, parse_multistatus

__all__ = ("iter_listing", "read_listing")

_HEADERS = {
    "Depth": "1",
    "Content-Type": "application/xml; charset=utf-8",
    "Accept-Encoding": "identity",
}
_MOST_HOPS = 3
_PIECE_BYTES = 64 * 1024

Result = TypeVar("Result")


def iter_listing(door: Door, url: str, *, operation: str, deadline: Deadline) -> Generator[FileInfo]:
    """Yield a directory and what it holds, in memory that does not grow with it (1 request).

    Parameters
    ----------
    door : `Door`
        Whom to ask.
    url : `str`
        The directory.
    operation : `str`
        For messages.
    deadline : `Deadline`
        When to give up; what the caller does between two entries counts.

    Yields
    ------
    entry : `FileInfo`
        The name itself first, which may be a file.

    Raises
    ------
    DoorUnavailableError
        Raised if the connection breaks after entries were yielded; before that it is asked for again.
    DcacheError
        Raised by cause.
    """
    for last in rounds(Phase.BROKEN, "PROPFIND", deadline):
        with _open(door, url, operation, deadline) as answer:
            entries = _entries(door, url, answer)
            try:
                own = next(entries)
            except DoorUnavailableError:
                if last:
                    raise
                continue
            yield own
            yield from entries
            return


def read_listing(
    door: Door,
    url: str,
    take: Callable[[Iterator[FileInfo]], Result],
    *,
    operation: str,
    deadline: Deadline,
) -> Result:
    """Return what is made of a listing, which is asked for again if it breaks off.

    Parameters
    ----------
    door : `Door`
        Whom to ask.
    url : `str`
        The directory.
    take : `~collections.abc.Callable`
        Is given the entries, as from `iter_listing`; called again for each attempt.
    operation : `str`
        For messages.
    deadline : `Deadline`
        When to give up.

    Returns
    -------
    result : `object`
        What ``take`` returned.

    Raises
    ------
    DcacheError
        Raised by cause.
    """
    for last in rounds(Phase.BROKEN, "PROPFIND", deadline):
        with _open(door, url, operation, deadline) as answer:
            try:
                return take(_entries(door, url, answer))
            except DoorUnavailableError:
                if last:
                    raise
    raise AssertionError("the last round returns or raises")


def _open(door: Door, url: str, operation: str, deadline: Deadline) -> DataAnswer:
    """Return the 207 answer, whose body is still to be read."""
    for last in rounds(Phase.FAILED, "PROPFIND", deadline):
        answer = door.open("PROPFIND", url, deadline=deadline, headers=_HEADERS, body=PROPFIND_BODY)
        for _ in range(_MOST_HOPS):
            if answer.status not in REDIRECTS:
                break
            with answer:
                place = door.data_url(answer, url, operation=operation)
            # XRootD's redirector: what its data server may know of us stands in the URL.
            answer = door.data.open(
                "PROPFIND", place, headers=_HEADERS, body=PROPFIND_BODY, deadline=deadline
            )
        if answer.status == 207:
            return answer
        with answer:
            if answer.status in REDIRECTS:
                raise ProtocolError("the server redirects again and again", operation=operation, url=url)
            error = failure(
                answer,
                operation=operation,
                url=url,
                body=answer.read_short(),
                method="PROPFIND",
                attempts=answer.attempts,
                elapsed_seconds=deadline.elapsed,
            )
        if last or not isinstance(error, ServerError):
            raise error
    raise AssertionError("the last round returns or raises")


def _entries(door: Door, url: str, answer: DataAnswer) -> Iterator[FileInfo]:
    pieces = iter(partial(answer.read_some, _PIECE_BYTES), b"")
    entries = parse_multistatus(pieces, url, encoded=door.dialect != "xrootd")
    return map(door.localities.noted, entries)
