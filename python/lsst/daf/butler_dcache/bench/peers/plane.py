"""The data plane alone: one redirect and the bytes, without checksum, temporary name or rename."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from ...auth.sources import source_for
from ...config.loading import settings_for
from ...transport.data import DataPlane
from ...transport.deadline import Deadline
from ...transport.pacing import pacer_for
from ..work import Job, Outcome, UnsupportedWorkError
from .parallel import add_up

__all__ = ("make",)

_PIECE_BYTES = 1024 * 1024
_DEADLINE_SECONDS = 600.0
_REDIRECTS = frozenset({301, 302, 307, 308})


class _Plane:
    who = resource.RUSAGE_SELF
    idle: Callable[[], Outcome] | None = None

    def prepare(self, job: Job) -> Callable[[], Outcome]:
        work = job.work
        do = {"get": self._get, "put": self._put}.get(work.operation)
        if do is None or work.sink == "memory":
            raise UnsupportedWorkError("the plane alone moves whole files")
        settings = settings_for(job.access.url)
        self._plane = DataPlane(settings, source_for(settings), pacer_for(settings))
        self._signed_in = job.access.token_file is not None or job.access.user is not None
        self._source = job.source
        self._sink = job.scratch if work.sink == "file" else ""
        urls = [f"{job.access.url}{name}" for name in job.names]

        def run() -> Outcome:
            moved = add_up(do, urls, work.threads)
            return Outcome(moved, ["no checksum, and what is written is written in place"])

        return run

    def _get(self, url: str) -> int:
        deadline = Deadline(_DEADLINE_SECONDS)
        with self._plane.open("GET", url, deadline=deadline, authenticate=self._signed_in) as answer:
            if answer.status not in _REDIRECTS:
                raise RuntimeError(f"{answer.status} from the door")
            place = answer.headers["Location"]
        memory = memoryview(bytearray(_PIECE_BYTES))
        moved = 0
        path = os.path.join(self._sink, url.rpartition("/")[2]) if self._sink else os.devnull
        with (
            open(path, "wb", buffering=0) as file,
            self._plane.open("GET", place, deadline=deadline) as answer,
        ):
            while count := answer.readinto(memory):
                moved += file.write(memory[:count]) if self._sink else count
        return moved

    def _put(self, url: str) -> int:
        deadline = Deadline(_DEADLINE_SECONDS)
        with open(self._source, "rb") as file:
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
            return file.tell()


def make(name: str) -> _Plane:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Plane()
