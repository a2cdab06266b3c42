"""A binary file that forgets what is written to it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Buffer

__all__ = ("Discard",)


class Discard(io.RawIOBase):
    """A place where bytes go at no cost."""

    def writable(self) -> bool:
        """Return `True`."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Forget bytes, and return how many.

        Parameters
        ----------
        data : bytes-like
            They.
        """
        return memoryview(data).nbytes
