"""Ctrl-C, and a batch system's SIGTERM: what is in flight is ended, for which there is some time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import click

__all__ = ("Interruption",)

_GRACE_SECONDS = 10.0
"""A transfer is ended where it next hears of its server: one that is stalled may not for 30 s."""


class Interruption:
    """A context in which the first signal ends what is in flight, and the second leaves it as it is.

    Parameters
    ----------
    leave : `~collections.abc.Callable`
        What is to be done before the process ends, whether all was ended in time or not.
    """

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave
        self._status = 0
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._status and isinstance(error, KeyboardInterrupt):
            self._leave()
            sys.exit(self._status)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._status:
            self._leave_at_once()
        self._status = 128 + number
        click.echo("ending what is in flight; once more to leave it as it is", err=True)
        timer = threading.Timer(_GRACE_SECONDS, self._leave_at_once)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    def _leave_at_once(self) -> None:
        # Every other way to end waits for the workers' threads. The connections are closed by it.
        try:
            self._leave()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(self._status)
