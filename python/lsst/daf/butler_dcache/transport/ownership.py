"""Whose upload a temporary name is: host, process, and since when that process runs.

A process that is killed cannot clean up. Its temporary names tell whose they were, so that somebody else can,
and without asking anybody: a process is named by its number *and* its start, since numbers are used again,
and both mean something among those alone who see the same processes: on one host, since it was booted, in
one container.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Owner", "mark", "own", "owner_of")

_NAME = re.compile(r"^\.dcb-([a-z0-9]{1,16})-([0-9a-f]{8})-(\d{1,10})-([0-9a-f]{1,16})-[0-9a-f]{16}\.")
_PROC = Path("/proc")
_UNKNOWN_START = 0


@dataclass(frozen=True)
class Owner:
    """A process.

    Parameters
    ----------
    host : `str`
        Short name of its host, for people.
    place : `str`
        Stands for the host since it was booted, and the container; equal where processes see one another.
    process : `int`
        Its number there.
    start : `int`
        When it began, in the host's own units; 0 where that is not to be had.
    """

    host: str
    place: str
    process: int
    start: int

    def is_gone(self) -> bool:
        """Tell whether this process is known to have ended; `False` where that cannot be known."""
        if self.place != own().place:
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # somebody else's; when it began is compared all the same
        state, start = _state_of(self.process)
        # Of a process that has ended and that nobody has waited for there is still an entry.
        return state in ("Z", "X") or (_UNKNOWN_START not in (start, self.start) and start != self.start)


_own: Owner | None = None


def own() -> Owner:
    """Return the process that asks."""
    global _own
    process = os.getpid()
    if _own is None or _own.process != process:
        host = re.sub(r"[^a-z0-9]", "", os.uname().nodename.partition(".")[0].lower())[:16] or "host"
        _own = Owner(host, _place(), process, _state_of(process)[1])
    return _own


def mark() -> str:
    """Return the beginning of a new temporary name of this process."""
    me = own()
    return f".dcb-{me.host}-{me.place}-{me.process}-{me.start:x}-{uuid.uuid4().hex[:16]}."


def owner_of(name: str) -> Owner | None:
    """Return whose a temporary name is, `None` if it does not say.

    Parameters
    ----------
    name : `str`
        Last component of a path.
    """
    found = _NAME.match(name)
    return None if found is None else Owner(found[1], found[2], int(found[3]), int(found[4], 16))


def _place() -> str:
    parts = [os.uname().nodename]
    try:
        # A host that was booted anew counts from 1 again; so does each container.
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink(_PROC / "self/ns/pid"))
    except OSError:
        parts.append("without proc")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _state_of(process: int) -> tuple[str, int]:
    """Return the state of a process and the ticks from the host's boot to its start (proc(5), ``stat``)."""
    try:
        text = (_PROC / str(process) / "stat").read_text(errors="replace")
        # The name of the program is in brackets and may hold anything.
        fields = text.rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", _UNKNOWN_START
