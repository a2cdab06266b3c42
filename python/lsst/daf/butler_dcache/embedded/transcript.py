"""What was asked of the servers: one record per request."""

from __future__ import annotations

import copy
import itertools
import threading
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Record", "Transcript"]


@dataclass
class Record:
    """One request in the transcript; its fields can also be had by subscription, as in ``record["status"]``.

    Parameters
    ----------
    server : `str`
        ``"door"``, ``"pool"`` or ``"frontend"``.
    method : `str`
        The verb.
    path : `str`
        The decoded path, without the query.
    status : `int`
        Status of the final answer, 0 while there is none.
    connection : `int`
        Number of the connection, unique within the instance.
    received : `int`
        Bytes of the request's body that arrived (without framing).
    sent : `int`
        Bytes of the answer's body that were sent (without framing).
    authorization : `bool`
        Whether a credential of any form came along.
    resumed : `bool`
        Whether the connection's TLS handshake went on with an earlier session.
    """

    server: str
    method: str
    path: str
    status: int = 0
    connection: int = 0
    received: int = 0
    sent: int = 0
    authorization: bool = False
    resumed: bool = False

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or ``default`` if there is none of that name."""
        return getattr(self, name) if name in _NAMES else default

    def keys(self) -> list[str]:
        """Return the names of the fields, so that ``dict(record)`` works."""
        return list(_NAMES)


_NAMES = tuple(field.name for field in fields(Record))


class Transcript:
    """The requests of all servers of one instance, in the order of their arrival. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._numbers = itertools.count(1)

    def next_connection(self) -> int:
        """Return a connection number that was not given before."""
        return next(self._numbers)

    def add(self, record: Record) -> None:
        """Append a record; its fields are still filled in while the request is served."""
        with self._lock:
            self._records.append(record)

    def snapshot(self, since: int = 0) -> list[Record]:
        """Return copies of the records, or of those after the first ``since``."""
        with self._lock:
            return [copy.copy(record) for record in self._records[since:]]

    def clear(self) -> None:
        """Forget all records."""
        with self._lock:
            self._records.clear()
