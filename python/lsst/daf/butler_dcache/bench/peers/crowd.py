"""Another peer in many processes: all are ready, with everything imported, before the first may begin."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..histogram import Histogram
from ..work import Job, Outcome, UnsupportedWorkError
from .client import Client
from .program import ProgramFailedError

__all__ = ("make",)

_CHILD = f"{__name__.rpartition('.peers.')[0]}.child"
_FORGOTTEN_AFTER_SECONDS = 11.0
"""The door forgets a client that was silent for 10 s: each crowd comes to a door that does not know it."""


class _Crowd(Client):
    def prepare(self, job: Job) -> Callable[[], Outcome]:
        begun = time.monotonic()
        count = job.work.processes
        one = dataclasses.replace(
            job,
            peer=self.name.removeprefix("crowd-"),
            work=dataclasses.replace(job.work, processes=1),
            contact="",  # it belongs to the work here
            max_rate=job.max_rate / count,
        )
        children = [_start(one) for _ in range(count)]
        for child in children:
            ready = _read(child)
            if "unsupported" in ready:
                _kill(children)
                raise UnsupportedWorkError(ready["unsupported"])
        time.sleep(max(0.0, begun + _FORGOTTEN_AFTER_SECONDS - time.monotonic()))
        return lambda: _run(children)


def _start(job: Job) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _tell(child, json.dumps(job.to_json()))
    return child


def _run(children: list[subprocess.Popen[str]]) -> Outcome:
    for child in children:
        _tell(child, "0")  # at once
    try:
        figures = [_read(child) for child in children]
    finally:
        _kill(children)
    cpu = sum(figure["user_seconds"] + figure["system_seconds"] for figure in figures)
    slowest = max(figure["wall_seconds"] for figure in figures)
    times: dict[str, Histogram] = {}
    counted: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for figure in figures:
        counted.update(figure["counted"])
        errors.update(figure["errors"])
        for name, encoded in figure["histograms"].items():
            times.setdefault(name, Histogram()).add(Histogram.decode(encoded))
    return Outcome(
        bytes_moved=sum(figure["bytes_moved"] for figure in figures),
        notes=[f"the slowest process took {slowest:.1f} s"],
        operations=sum(figure["operations"] for figure in figures),
        errors=dict(errors),
        histograms={name: histogram.encode() for name, histogram in times.items()},
        counted=dict(counted),
        cpu_seconds=cpu,
    )


def _kill(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        child.kill()
        child.communicate()


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def _read(child: subprocess.Popen[str]) -> Any:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise ProgramFailedError("a process of the crowd ended before its work was done")
    return json.loads(line)


def make(name: str) -> _Crowd:
    """Return the peer of this name.

    Parameters
    ----------
    name : `str`
        A key of `~.registry.PEERS`.
    """
    return _Crowd(name)
