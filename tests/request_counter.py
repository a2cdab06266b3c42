"""Counting what an operation asks of the embedded dCache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class Counter:
    """Requests of one block of a test."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    @property
    def at_door(self) -> int:
        """Requests to doors and frontend."""
        return sum(record["server"] != "pool" for record in self.records)

    @property
    def at_pool(self) -> int:
        """Requests to pools."""
        return sum(record["server"] == "pool" for record in self.records)

    def methods(self) -> list[str]:
        """Return server and method of each request, in order, for instance ``door GET``."""
        return [f"{record['server']} {record['method']}" for record in self.records]

    def __str__(self) -> str:
        return f"{self.at_door} d + {self.at_pool} p: {', '.join(self.methods())}"


@contextlib.contextmanager
def counted(server: Any) -> Iterator[Counter]:
    """Count the requests that the block sends."""
    counter = Counter()
    before = len(server.transcript())
    yield counter
    counter.records = server.transcript()[before:]
