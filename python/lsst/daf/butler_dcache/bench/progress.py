"""What is going on, on the standard error: one line that changes on a terminal, a line for each step else."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

__all__ = ("Progress",)


class Progress:
    """A line of progress.

    Parameters
    ----------
    budget : `float`
        Seconds that there are.
    stream : `~typing.TextIO`, optional
        Where it goes.
    """

    def __init__(self, budget: float, stream: TextIO | None = None) -> None:
        self._budget = budget
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._is_terminal = self._stream.isatty()

    def tell(self, text: str) -> None:
        """Say something.

        Parameters
        ----------
        text : `str`
            One line; what ends with an ellipsis has only begun, and is not said but on a terminal.
        """
        if text.endswith("…") and not self._is_terminal:
            return
        spent = time.monotonic() - self._begun
        line = f"{spent:4.0f}/{self._budget:.0f} s  {' '.join(text.split())}"
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{line[:width]}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line alone."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
