r"""Whether a server takes some keys for others, so that a write to one would replace another.

S3 keeps ``a//b``, ``/a`` and ``a\b`` apart from ``a/b`` and ``a``. Servers that keep objects in directories
may not: SeaweedFS 4.48 replaces and removes ``a/b`` when it is asked for any of these. So it is tried, once
for each endpoint, kind and process, with an object of a name that nobody else has, before the first such key
is written or removed. What is read is what the server says it is.
"""

from __future__ import annotations

import logging

from ..errors import DcacheError, UnsupportedError
from ..transport.deadline import Deadline
from ..transport.ownership import mark
from .address import S3Address
from .endpoint import S3Endpoint

__all__ = ("Folding",)

_log = logging.getLogger(__name__)

_KINDS = {"//": "a component without a name", "\\": "a backslash"}


class Folding:
    """What an endpoint was found to do with unusual keys.

    Parameters
    ----------
    endpoint : `S3Endpoint`
        The endpoint.

    Notes
    -----
    Thread-safe: several threads may find out the same.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self._endpoint = endpoint
        self._folds: dict[str, bool] = {}

    def check(self, address: S3Address, *, operation: str, deadline: Deadline) -> None:
        """Refuse to change what the server would take for something else.

        Parameters
        ----------
        address : `S3Address`
            What is to be written or removed.
        operation : `str`
            For messages.
        deadline : `Deadline`
            When to give up finding it out.

        Raises
        ------
        UnsupportedError
            Raised if the server takes it for another key.
        DcacheError
            Raised by cause if that could not be found out.
        """
        key = f"/{address.key}"
        for kind, words in _KINDS.items():
            place = key.find(kind)
            if place < 0:
                continue
            if kind not in self._folds:
                directory = address.with_key(key[1 : key.rfind("/", 0, place + 1) + 1].lstrip("/"))
                self._folds[kind] = self._try(kind, directory, deadline)
            if self._folds[kind]:
                raise UnsupportedError(
                    f"the server takes a key with {words} for the one without it, which may be another's",
                    operation=operation,
                    url=address.url,
                    hint="Use another name.",
                )

    def _try(self, kind: str, directory: S3Address, deadline: Deadline) -> bool:
        name = f"{mark()}probe"
        # Directly in the directory, where there is one: some servers keep what became empty for a while.
        first = directory.key.removesuffix("/") if directory.key or kind == "//" else name
        plain = directory.with_key(f"{first}/{name}".removeprefix("/"))
        probe = directory.with_key(f"{first}{kind}{name}" if first else f"/{name}")
        with self._endpoint.open("PUT", probe.key, body=b"", deadline=deadline) as answer:
            if answer.status != 200:
                raise self._endpoint.failure(answer, operation="write", url=probe.url)
        try:
            with self._endpoint.open("HEAD", plain.key, deadline=deadline) as answer:
                if answer.status not in (200, 404):
                    raise self._endpoint.failure(answer, operation="write", url=plain.url)
                return answer.status == 200
        finally:
            self._clean_up(probe, deadline)

    def _clean_up(self, probe: S3Address, deadline: Deadline) -> None:
        try:
            with self._endpoint.open("DELETE", probe.key, deadline=deadline) as answer:
                if answer.status not in (200, 204, 404):
                    raise self._endpoint.failure(answer, operation="clean up", url=probe.url)
        except DcacheError as error:
            # Whoever may write need not have the right to remove.
            _log.warning("what found out how the server takes names is left behind: %s", error)
