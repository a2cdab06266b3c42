"""Several doors that serve the same files: which one is used, and what if it does not answer."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from ..errors import DoorUnavailableError
from .addresses import origin, to_http

__all__ = ("Doors",)

_log = logging.getLogger(__name__)

Answered = TypeVar("Answered")


class Doors:
    """The doors of a site.

    Parameters
    ----------
    base_url : `str`
        URL by which the endpoint is known; a door itself if no others are named.
    others : `~collections.abc.Sequence` [ `str` ]
        Base URLs of the doors that take its place (``frontend_base_urls`` of the site's file).

    Notes
    -----
    Processes spread over the doors, each keeps to one and to its connections. Thread-safe: threads that find
    the same door silent go on to the same next one.
    """

    def __init__(self, base_url: str, others: Sequence[str]) -> None:
        self._origin = origin(base_url)
        self._doors = tuple(door.rstrip("/") for door in others)
        self._chosen = random.randrange(len(self._doors)) if self._doors else 0

    def place(self, url: str) -> str:
        """Return the URL that goes to the door that is used at this moment.

        Parameters
        ----------
        url : `str`
            URL at this endpoint, in the user's own form.
        """
        asked = to_http(url)
        if not self._doors or origin(asked) != self._origin:
            return asked
        parts = urlsplit(asked)
        return self._doors[self._chosen] + urlunsplit(("", "", parts.path, parts.query, ""))

    def ask(self, send: Callable[[], Answered]) -> Answered:
        """Send a request by the door that is used, and by each other one if that does not answer.

        Parameters
        ----------
        send : `~collections.abc.Callable`
            Sends the request to `place`. It raises `DoorUnavailableError` only for a request that was not
            sent, or for a read.

        Returns
        -------
        answer : `object`
            What it returned.
        """
        for left in range(max(len(self._doors), 1) - 1, -1, -1):
            chosen = self._chosen
            try:
                return send()
            except DoorUnavailableError as error:
                if left == 0:
                    raise
                _log.warning("a door does not answer, the next one is asked: %s", error)
                self._chosen = (chosen + 1) % len(self._doors)
        raise AssertionError("the last door returns or raises")
