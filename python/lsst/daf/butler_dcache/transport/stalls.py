"""When a transfer that has not quite stopped counts as stalled.

What is counted is the time that we wait for the server, and the bytes that move meanwhile. Somebody who takes
long to use what has come, or to make what is sent, does not wait, so that no pause of ours looks like one of
the server's.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config.settings import EndpointSettings

__all__ = ("Floor", "Progress", "floor_of")


@dataclass(frozen=True, slots=True)
class Floor:
    """The slowest transfer that is worth going on with.

    Parameters
    ----------
    bytes_per_second : `int`
        Its rate.
    seconds : `float`
        For how long it may be slower.
    """

    bytes_per_second: int
    seconds: float

    def __str__(self) -> str:
        return f"fewer than {self.bytes_per_second} bytes per second for {self.seconds:g} s"


def floor_of(settings: EndpointSettings) -> Floor | None:
    """Return the floor of an endpoint, `None` if there is none.

    Parameters
    ----------
    settings : `~..config.settings.EndpointSettings`
        The endpoint.
    """
    if not settings.stall_bytes_per_second:
        return None
    return Floor(settings.stall_bytes_per_second, settings.stall_seconds)


class Progress:
    """How a body gets along.

    Parameters
    ----------
    floor : `Floor`
        Below which it counts as stalled.
    """

    __slots__ = ("_bytes", "_waited", "floor")

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self._bytes = 0
        self._waited = 0.0

    def moved(self, count: int) -> None:
        """Take note of bytes that were sent or came.

        Parameters
        ----------
        count : `int`
            How many.
        """
        self._bytes += count

    def has_stalled(self, seconds: float) -> bool:
        """Take note of a wait for the server.

        Parameters
        ----------
        seconds : `float`
            How long it was.

        Returns
        -------
        stalled : `bool`
            Whether the transfer has been below its floor for too long.
        """
        self._waited += seconds
        if self._waited < self.floor.seconds:
            return False
        if self._bytes < self.floor.bytes_per_second * self._waited:
            return True
        self._bytes, self._waited = 0, 0.0
        return False
