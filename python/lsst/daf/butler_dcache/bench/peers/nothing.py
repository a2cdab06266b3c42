"""A client that does nothing, at once: what is measured with it is the benchmark itself."""

from __future__ import annotations

from ..work import Job
from .client import Client, Done, Sink, Source

__all__ = ("Nothing", "make")


class Nothing(Client):
    """Says that all is well."""

    def connect(self, job: Job) -> None:
        self._done = Done(job.work.size_bytes)

    def get(self, name: str, sink: Sink) -> Done:
        return self._done

    def put(self, name: str, source: Source) -> Done:
        return self._done

    def exists(self, name: str) -> bool:
        return True


def make(name: str) -> Nothing:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return Nothing(name)
