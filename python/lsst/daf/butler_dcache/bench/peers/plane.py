"""The data plane alone: one redirect and the bytes, without checksum, temporary name or rename."""

from __future__ import annotations

import os
import time

from ...auth.sources import source_for
from ...config.loading import settings_for
from ...transport.data import DataPlane
from ...transport.deadline import Deadline
from ...transport.pacing import pacer_for
from ..work import Job, UnsupportedWorkError, Work
from .client import Client, Done, Sink, Source

__all__ = ("make",)

_PIECE_BYTES = 1024 * 1024
_DEADLINE_SECONDS = 600.0
_REDIRECTS = frozenset({301, 302, 307, 308})


class _Plane(Client):
    def connect(self, job: Job) -> None:
        if job.work.operation == "get" and job.work.sink == "memory":
            raise UnsupportedWorkError("the plane alone moves whole files")
        settings = settings_for(job.access.url)
        self._url = job.access.url
        self._plane = DataPlane(settings, source_for(settings), pacer_for(settings))
        self._signed_in = job.access.token_file is not None or job.access.user is not None

    def notes(self, work: Work) -> list[str]:
        return ["no checksum, and what is written is written in place"]

    def get(self, name: str, sink: Sink) -> Done:
        begun = time.perf_counter()
        deadline = Deadline(_DEADLINE_SECONDS)
        url = f"{self._url}{name}"
        with self._plane.open("GET", url, deadline=deadline, authenticate=self._signed_in) as answer:
            if answer.status not in _REDIRECTS:
                raise RuntimeError(f"{answer.status} from the door")
            place = answer.headers["Location"]
        memory = memoryview(bytearray(_PIECE_BYTES))
        moved, first = 0, None
        with (
            open(sink.path or os.devnull, "wb", buffering=0) as file,
            self._plane.open("GET", place, deadline=deadline) as answer,
        ):
            while count := answer.readinto(memory):
                first = first or time.perf_counter() - begun
                moved += file.write(memory[:count]) if sink.path else count
        return Done(moved, first)

    def put(self, name: str, source: Source) -> Done:
        deadline = Deadline(_DEADLINE_SECONDS)
        url = f"{self._url}{name}"
        with open(source.path, "rb") as file:
            door = self._plane.open(
                "PUT", url, body=file, expect=True, deadline=deadline, authenticate=self._signed_in
            )
            with door:
                if door.status not in _REDIRECTS:
                    raise RuntimeError(f"{door.status} from the door")
                place = door.headers["Location"]
            file.seek(0)
            with self._plane.open("PUT", place, body=file, deadline=deadline) as answer:
                answer.read()
                if answer.status not in (201, 204):
                    raise RuntimeError(f"{answer.status} from the pool")
            return Done(file.tell())


def make(name: str) -> _Plane:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Plane(name)
