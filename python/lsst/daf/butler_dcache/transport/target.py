"""Where the bytes of a whole file go."""

from __future__ import annotations

from typing import Protocol

__all__ = ("Target",)


class Target(Protocol):
    """Where a file goes."""

    @property
    def is_local(self) -> bool:
        """Whether bytes may come in any order."""
        ...

    def begin(self, size: int | None) -> None:
        """Be told how many bytes will come, if that is known."""
        ...

    def take(self, piece: memoryview) -> None:
        """Write the next bytes."""
        ...

    def reserve(self, size: int) -> None:
        """Get ready for bytes in any order."""
        ...

    def put(self, offset: int, piece: memoryview) -> None:
        """Write bytes where they belong, from any thread."""
        ...

    def done(self, size: int) -> None:
        """All bytes have been put."""
        ...

    def restart(self) -> bool:
        """Forget everything; return whether that is possible."""
        ...
