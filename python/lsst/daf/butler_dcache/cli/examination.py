"""What the doctor does at every endpoint, whatever the protocol: compare clocks, write, read and delete."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

import click

from ..auth.clock import TOLERABLE_OFFSET
from ..errors import DcacheError
from ..model import FileInfo
from ..store.registry import store_for
from ..transport.exchange import Exchange

__all__ = ("Examination", "FailedStepError", "MissingError", "Step")

Step = tuple[str, Callable[[], str]]
"""Title and function of a step; the function returns what it found, or raises. Only `MissingError` lets the
next step follow."""


class FailedStepError(Exception):
    """A step failed.

    Parameters
    ----------
    text : `str`
        What is wrong.
    advice : `str`
        What to do about it.
    """

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


class MissingError(Exception):
    """The server does not do something that is not needed for everything.

    Parameters
    ----------
    text : `str`
        What it does not do, and why.
    consequence : `str`
        What that means.
    """

    def __init__(self, text: str, consequence: str) -> None:
        super().__init__(text)
        self.consequence = consequence


class Examination(ABC):
    """The steps, in order; each uses what those before it found.

    Parameters
    ----------
    url : `str`
        A directory in which this user may write.
    """

    server: ClassVar[str]
    """What the server is called in sentences."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") + "/"
        self.exchanges: list[Exchange] = []
        self._clock_offset: timedelta | None = None
        self._file = ""
        self._contents = b""

    @abstractmethod
    def steps(self) -> list[Step]:
        """Return title and function of each step; the functions return what they found or raise."""

    def advice(self, error: Exception) -> str | None:
        """Say what to do about an error, where more is known than the error tells."""
        return None

    @abstractmethod
    def test_size(self) -> int:
        """Return the size of the file that is written, bytes."""

    @abstractmethod
    def server_checksum(self, written: FileInfo) -> tuple[str, str] | None:
        """Return the checksum of a file that the server knows, too."""

    @abstractmethod
    def served_by(self) -> str:
        """Say who had the bytes of this step."""

    def clock(self) -> str:
        """Compare this machine's clock with the server's."""
        offset = self._clock_offset
        if offset is None:
            return f"the {self.server} does not tell its time"
        seconds = abs(offset.total_seconds())
        if abs(offset) <= TOLERABLE_OFFSET:
            return f"that of this machine and the {self.server}'s agree ({seconds:.0f} s)"
        side = "ahead of" if offset > timedelta(0) else "behind"
        raise FailedStepError(
            f"the clock of this machine is {seconds:.0f} s {side} the {self.server}'s",
            "have it set by NTP (timedatectl): tokens and signatures are judged by it, and seem untimely",
        )

    def write(self) -> str:
        """Write a file."""
        self.exchanges.clear()
        self._contents = secrets.token_bytes(self.test_size())
        file = f"{self.url}.doctor-{os.getpid()}-{secrets.token_hex(4)}"
        info = store_for(file).write(file, self._contents)
        self._file = file
        by, checksum = self.server_checksum(info) or ("size", "only")
        return f"{len(self._contents)} bytes, verified by {by} {checksum}, by {self.served_by()}"

    def read(self) -> str:
        """Read it back."""
        self.exchanges.clear()
        data = store_for(self._file).read(self._file)
        if data != self._contents:
            raise FailedStepError(
                "the bytes that came back are not those that were sent", "tell the administrators"
            )
        return f"{len(data)} bytes, the same, by {self.served_by()}"

    def delete(self) -> str:
        """Remove it."""
        store_for(self._file).remove(self._file)
        self._file = ""
        return "the temporary file is gone"

    def clean(self) -> None:
        """Remove the temporary file if a step left it behind."""
        if self._file:
            try:
                store_for(self._file).remove(self._file)
            except DcacheError as exc:
                click.echo(f"left behind: {self._file} ({exc})", err=True)
