"""How a run ends before it is done: Ctrl-C, SIGTERM, or no time left.

Theory of operation
-------------------
A signal may come at any moment, and what is half done then must not be left behind. So the handlers only
note it. It is raised as `StoppedError` in the main thread where that does no harm: inside `Stop.open`, which
stands around waits for clients and servers. Starting and cleaning are never interrupted, and what comes after
the first signal is ignored, so that a second Ctrl-C does not disturb the cleaning. Since a server that
answers no more could hold even that up, there is a last resort: when the time is over for good, all
processes below this one are killed, the folder is removed, and the process ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Self

__all__ = ("Stop", "StoppedError")

_SIGNALS = {signal.SIGINT: "interrupted by Ctrl-C", signal.SIGTERM: "ended by SIGTERM"}


class StoppedError(BaseException):
    """The run ends now.

    Parameters
    ----------
    reason : `str`
        Why.
    status : `int`
        Exit status of the command.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Stop:
    """Signals and the end of the time, turned into one error for as long as the context lasts.

    Parameters
    ----------
    seconds : `float`
        After so long nothing is measured any more.
    cleaning_seconds : `float`
        After so much more the process ends, whatever it is doing.

    Notes
    -----
    For the main thread. After an error signals stay ignored: what is left is to say so and to end.
    """

    def __init__(self, seconds: float, cleaning_seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._cleaning_seconds = cleaning_seconds
        self._folders: list[Path] = []
        self._is_open = False
        self.error: StoppedError | None = None
        """What came first, if anything did."""

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._expire)
        signal.setitimer(signal.ITIMER_REAL, max(self._ends - time.monotonic(), 0.001))
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler if self.error is None else signal.SIG_IGN)

    @property
    def seconds_left(self) -> float:
        """Seconds until nothing is measured any more."""
        return max(self._ends - time.monotonic(), 0.0)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let a signal be raised at once: where nothing is half done."""
        self._is_open = True
        try:
            if self.error is not None:
                raise self.error
            yield
        finally:
            self._is_open = False

    def watch(self, folder: Path) -> None:
        """Remove a folder if everything else fails.

        Parameters
        ----------
        folder : `~pathlib.Path`
            With all that it holds.
        """
        self._folders.append(folder)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._stop(StoppedError(_SIGNALS[signal.Signals(number)], 128 + number))

    def _expire(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() >= self._ends + self._cleaning_seconds:
            self._give_up()
        signal.setitimer(signal.ITIMER_REAL, self._cleaning_seconds)
        self._stop(StoppedError("no time was left: twice the budget is over", 1))

    def _stop(self, error: StoppedError) -> None:
        if self.error is None:
            self.error = error
            # Whatever hangs then has as long as at the end of the time.
            self._ends = min(self._ends, time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, self._cleaning_seconds)
            if self._is_open:
                raise error

    def _give_up(self) -> None:
        os.write(sys.stderr.fileno(), b"\nsomething did not end in time; all processes are killed\n")
        for session in _sessions_below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(session, signal.SIGKILL)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1 if self.error is None else self.error.status)


def _sessions_below(parent: int) -> set[int]:
    """Leaders of the sessions of all processes below one, its own left out; empty without ``/proc``."""
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)], sessions[int(path.parent.name)] = int(fields[1]), int(fields[3])
    found, todo = set(), [parent]
    while todo:
        above = todo.pop()
        below = [process for process, one in parents.items() if one == above]
        found |= {sessions[process] for process in below}
        todo += below
    return found - {os.getsid(0), 0}
