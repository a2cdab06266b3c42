"""A body that goes on with another answer where the first one breaks off."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Protocol

from ..errors import DeadlineError, DoorUnavailableError
from ..redaction import redact_url
from .answer import DataAnswer

__all__ = ("Resumable", "Seen")

_log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
_MOST_BREAKS = 3
"""How often a body may break off before it has brought a piece more."""


class Seen(Protocol):
    """Size and checksum of bytes that go by."""

    size: int

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into account."""
        ...


class Resumable:
    """A body of which what has come is kept when it breaks off.

    Parameters
    ----------
    answer : `DataAnswer`
        The answer, its body unread.
    url : `str`
        What is read, in the user's own form.
    """

    def __init__(self, answer: DataAnswer, url: str) -> None:
        self.answer = answer
        self.url = url
        self._position = self._broken_at = self._breaks = 0

    def _rest(self, offset: int) -> DataAnswer | None:
        """Return an answer that goes on at an offset, surely with the same bytes; `None` if there is none."""
        raise NotImplementedError

    def fill(self, view: memoryview) -> int:
        """Read until the memory is full or the body ends, on another way where this one breaks off.

        Parameters
        ----------
        view : `memoryview`
            Of bytes, writable.

        Returns
        -------
        count : `int`
            Number of bytes; less than asked for at the end of the body only.

        Raises
        ------
        DoorUnavailableError
            If the body broke off for good.
        DeadlineError
            If it stood still for good.
        """
        count = 0
        while True:
            before = self.answer.received
            broken: DoorUnavailableError | DeadlineError | None = None
            try:
                count += self.answer.fill(view[count:] if count else view)
                self._position += count
                return count
            except (DoorUnavailableError, DeadlineError) as error:
                broken = error
            count += self.answer.received - before
            try:
                if not self._goes_on(self._position + count):
                    raise broken
            finally:
                # Its traceback holds the memory; in a circle it would hold it for ever so long.
                broken = None

    def views(self, seen: Seen, most: int | None = None) -> Iterator[memoryview]:
        """Yield the bytes in one piece of memory, which is filled again for the next.

        Parameters
        ----------
        seen : `Seen`
            Is told all bytes.
        most : `int`, optional
            How many there will be, if that is known.

        Yields
        ------
        piece : `memoryview`
            Next bytes.
        """
        view = memoryview(bytearray(_PIECE_BYTES if most is None else min(_PIECE_BYTES, most + 1)))
        while count := self.fill(view):
            seen.update(view[:count])
            yield view[:count]

    def read_all(self, size: int | None, seen: Seen) -> bytes:
        """Return all bytes.

        Parameters
        ----------
        size : `int` or `None`
            How many there will be, if that is known.
        seen : `Seen`
            Is told all bytes.
        """
        if size is None:
            data = self.answer.read()
            seen.update(data)
            return data
        # `io.BytesIO` lets its memory be written to and then hands it out as `bytes` without a copy.
        memory = io.BytesIO(bytes(size))
        with memory.getbuffer() as view:
            # Piece by piece, so that each is still in the processor's cache when its checksum is computed.
            while count := self.fill(view[seen.size : seen.size + _PIECE_BYTES]):
                seen.update(view[seen.size : seen.size + count])
        return memory.getvalue()

    def _goes_on(self, offset: int) -> bool:
        """Let another answer take the place of one that broke off; return whether there is one."""
        self._breaks = self._breaks + 1 if offset - self._broken_at < _PIECE_BYTES else 1
        self._broken_at = offset
        if self._breaks > _MOST_BREAKS:
            return False
        self.answer.close(False)
        answer = self._rest(offset)
        if answer is not None:
            _log.debug("reading %s goes on at byte %d", redact_url(self.url), offset)
            self.answer = answer
        return answer is not None

    def close(self, reuse: bool | None = None) -> None:
        """End it; the connection is kept if the body was read to its end.

        Parameters
        ----------
        reuse : `bool`, optional
            `False` closes the connection in any case.
        """
        self.answer.close(reuse)
