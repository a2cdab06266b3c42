"""Which servers have answered this process, and which of those are away.

A server that has answered and now takes no connection is one that restarts: it is waited for, by the row AWAY
of the table (`.retry`). One that has never answered is a wrong name or port and is told at once, and so is
one that was waited for in vain, until it answers again: whoever asks for ten thousand files waits once.

A kept connection costs nothing here. Single operations on dictionaries need no lock, and so none is held by a
thread that a child after ``fork`` does not have; the child knows what its parent knew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..config.settings import Origin
from .retry import Phase

__all__ = ("absence_of", "has_answered", "is_away", "phase_unconnected", "waited_in_vain")

_MOST_SERVERS = 1024


@dataclass(slots=True)
class _Absence:
    since: float
    in_vain: bool = False


_UNHEARD = _Absence(0.0, True)
_known: dict[Origin, _Absence | None] = {}
"""The servers that have answered; `None` for those that answered last time."""


def has_answered(origin: Origin) -> None:
    """Take note of an answer on a new connection, whatever it says.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port of a door, a frontend or an S3 service; never of a pool, for whose files one
        goes back to the door.
    """
    if _known.get(origin, _UNHEARD) is not None:
        if len(_known) >= _MOST_SERVERS:
            _known.clear()
        _known[origin] = None


def phase_unconnected(origin: Origin, now: float | None = None) -> Phase:
    """Return how far a request came that found no connection, and remember that.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    now : `float`, optional
        Monotonic time in seconds, if it is not to be asked from the clock.

    Returns
    -------
    phase : `~.retry.Phase`
        `~.retry.Phase.AWAY` or `~.retry.Phase.NOT_SENT`.
    """
    absence = _known.get(origin, _UNHEARD)
    if absence is None:
        absence = _known[origin] = _Absence(time.monotonic() if now is None else now)
    return Phase.NOT_SENT if absence.in_vain else Phase.AWAY


def is_away(origin: Origin) -> bool:
    """Tell whether a server took no connection the last time, and is worth waiting for.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    """
    absence = _known.get(origin)
    return absence is not None and not absence.in_vain


def waited_in_vain(origin: Origin) -> None:
    """Take note that a server did not come back in time; it is not waited for again before it answers.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    """
    absence = _known.get(origin)
    if absence is not None:
        absence.in_vain = True


def absence_of(origin: Origin, now: float | None = None) -> str:
    """Return what to say of a server that takes no connection.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    now : `float`, optional
        Monotonic time in seconds, if it is not to be asked from the clock.

    Returns
    -------
    hint : `str`
        Empty for one that has never answered.
    """
    absence = _known.get(origin)
    if absence is None:
        return ""
    lasts = (time.monotonic() if now is None else now) - absence.since
    return (
        f"The server has answered this process before, and has taken no connection for {lasts:.0f} s: "
        "it restarts, or is switched off. Try again later, or ask the site."
    )
