"""A line on the terminal that says how far a command is."""

from __future__ import annotations

import collections
import shutil
import sys
import threading
import time

from .quantities import human

__all__ = ("Meter", "TerminalLine")

_SECONDS_BETWEEN = 0.2
_WINDOW_SECONDS = 20.0
_LEAST_SECONDS = 1.0
_WIPE = "\r\x1b[K"


class TerminalLine:
    """A line of the standard error that is written over; nothing where that is no terminal.

    Parameters
    ----------
    quiet : `bool`, optional
        Whether to show nothing anyway.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._stream = sys.stderr
        self.is_shown = not quiet and self._stream.isatty()
        self._shown_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is shown, and is old."""
        return self.is_shown and time.monotonic() - self._shown_at >= _SECONDS_BETWEEN

    def show(self, text: str) -> None:
        """Replace the line, cut to the width of the terminal."""
        if self.is_shown:
            self._shown_at = time.monotonic()
            self._write(_WIPE + text[: shutil.get_terminal_size().columns - 1])

    def wipe(self) -> None:
        """Leave the line to whoever writes next."""
        if self.is_shown:
            self._write(_WIPE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Meter:
    """Counts files and bytes, and shows them on the standard error if it is a terminal.

    Parameters
    ----------
    verb : `str`
        What is done to the files: ``copied``.
    quiet : `bool`
        Whether to show nothing anyway.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, verb: str, *, quiet: bool) -> None:
        self._terminal = TerminalLine(quiet=quiet)
        self._verb = verb
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._files = self._bytes = self._carried = 0
        self._all_files: int | None = None
        self._all_bytes = 0

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def expect(self, files: int, size: int) -> None:
        """Be told how many there will be in all, as far as that is known."""
        self._all_files, self._all_bytes = files, size

    def advance(self, files: int, size: int = 0, carried: int = 0) -> None:
        """Count files and bytes that are done, and of the bytes those that were carried just now."""
        with self._lock:
            self._files += files
            self._bytes += size
            if not self._carried:
                self._samples.append((time.monotonic(), 0))
            self._carried += carried
            if self._terminal.is_due:
                self._terminal.show(self._line(time.monotonic() - self._begun))

    def wipe(self) -> None:
        """Leave the line to whoever writes next."""
        if self._terminal.is_shown:
            with self._lock:
                self._terminal.wipe()

    def _line(self, elapsed: float) -> str:
        line = f"{self._verb} {self._files}"
        if self._all_files is not None:
            line += f" of {self._all_files}"
        line += " files"
        if self._bytes or self._all_bytes:
            line += f", {human(self._bytes)}"
            if self._all_bytes:
                line += f" of {human(self._all_bytes)}"
            if rate := self._rate():
                line += f", {human(rate)}/s"
                left = int((self._all_bytes - self._bytes) / rate)
                if left > 0:
                    line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        else:
            line += f", {self._files / elapsed if elapsed else 0:.0f}/s"
        return line

    def _rate(self) -> float:
        """Return the bytes per second of the last seconds; 0 as long as that would be a guess."""
        if not self._samples:
            return 0.0
        now = time.monotonic()
        self._samples.append((now, self._carried))
        while now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        begun, before = self._samples[0]
        return (self._carried - before) / (now - begun) if now - begun > _LEAST_SECONDS else 0.0
