"""How far the clocks of this machine and of a server are apart: whether a token is over depends on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

__all__ = ("TOLERABLE_OFFSET", "clock_offset")

TOLERABLE_OFFSET = timedelta(seconds=30)
"""More than this is worth a word: tokens may live for minutes, and issuers allow for 60 s."""


def clock_offset(date: str, sent: datetime, received: datetime) -> timedelta | None:
    """Return by how much this machine's clock is ahead of a server's.

    Parameters
    ----------
    date : `str`
        Header ``Date`` of an answer. Doors and frontends of dCache send it, its pools do not (protocol page,
        section 1.1).
    sent, received : `datetime.datetime`
        When the request was sent and the answer was there, by our clock and with time zone.

    Returns
    -------
    offset : `datetime.timedelta` or `None`
        Negative if ours is behind, and 0 if both may be right: the header has whole seconds, and was written
        at some moment in between. `None` if it is no date.
    """
    try:
        theirs = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    try:
        if sent > theirs + timedelta(seconds=1):
            return sent - theirs - timedelta(seconds=1)
        return min(received - theirs, timedelta(0))
    except OverflowError:
        return None
