"""One piece of work in a process of its own: a job comes as JSON, figures go as JSON.

What a peer needs before it can begin (imports, its session, first contact) is prepared before the clock
starts; see `measure`, which interleaves such processes. A process may be given several jobs, one after the
other, so that what it imports is imported once. Each has a new session: connections and what is known of
files are those of a new process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from .histogram import Histogram
from .load import LoadError, drive
from .observation import Observation
from .peers.client import Client
from .peers.program import ProgramFailedError
from .peers.registry import OURS, load
from .work import Job, Outcome, UnsupportedWorkError

__all__ = ("main", "measured")

_IDLE_RUNS = 3
_GRACE_SECONDS = 5.0
"""After its deadline the work may end by itself, and say how far it came."""
_LATEST_SECONDS = 1.0
"""Who begins later than the others is not measured with them."""


@dataclasses.dataclass(frozen=True)
class _Usage:
    wall: float
    user: float
    system: float

    def __sub__(self, other: _Usage) -> _Usage:
        return _Usage(self.wall - other.wall, self.user - other.user, self.system - other.system)


def _usage(who: int) -> _Usage:
    used = resource.getrusage(who)
    return _Usage(time.perf_counter(), used.ru_utime, used.ru_stime)


def _memory(field: str) -> int | None:
    """A field of ``/proc/self/status`` in bytes; `None` elsewhere than on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)


def _forget_peak() -> None:
    """Let the peak of the resident memory begin at what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def measured(run: Callable[[], Outcome], who: int, resident: int | None = None) -> dict[str, Any]:
    """Run something and take its figures.

    Parameters
    ----------
    run : `~collections.abc.Callable`
        What is measured.
    who : `int`
        ``resource.RUSAGE_SELF`` or ``resource.RUSAGE_CHILDREN``: whose CPU time counts.
    resident : `int`, optional
        Bytes of memory over which the peak is taken; those of now by default.

    Returns
    -------
    figures : `dict`
        Seconds of wall and CPU, peak memory, and what ``run`` returned.
    """
    _forget_peak()
    if resident is None:
        resident = _memory("VmRSS")
    began = time.time()
    before = _usage(who)
    outcome = run()
    used = _usage(who) - before
    peak = _memory("VmHWM")
    is_alone = who == resource.RUSAGE_SELF and outcome.cpu_seconds is None
    record = {
        each.name: getattr(outcome, each.name)
        for each in dataclasses.fields(outcome)
        if each.name not in ("seconds", "histograms", "cpu_seconds")
    }
    made = {name: Histogram(times).encode() for name, times in outcome.seconds.items()}
    return {
        "wall_seconds": used.wall,
        "user_seconds": used.user if outcome.cpu_seconds is None else outcome.cpu_seconds,
        "system_seconds": used.system if outcome.cpu_seconds is None else 0.0,
        "peak_bytes": None if peak is None or resident is None or not is_alone else max(peak - resident, 0),
        "began_at": began,
        "ended_at": began + used.wall,
        **record,
        "histograms": {**outcome.histograms, **made},
    }


def _idle(run: Callable[[], Outcome], who: int) -> _Usage:
    """What a program costs that starts and does nothing."""
    costs = []
    for _ in range(_IDLE_RUNS):
        before = _usage(who)
        run()
        costs.append(_usage(who) - before)
    return _Usage(
        *(statistics.median(getattr(cost, name) for cost in costs) for name in ("wall", "user", "system"))
    )


def main() -> None:
    """Do jobs: each comes on a line of the standard input, and begins when the next line says so.

    That is a number: seconds since the epoch, where many begin at one moment, or 0.
    """
    with _private_output() as out:
        worker = _Worker(out)
        while line := sys.stdin.readline():
            worker.do(Job.from_json(json.loads(line)))


@contextlib.contextmanager
def _private_output() -> Iterator[TextIO]:
    """The standard output for our own words; whatever else is written there goes to the standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        yield out


class _Worker:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._idle: _Usage | None = None
        self._resident: int | None = None

    def do(self, job: Job) -> None:
        """Say that all is ready, wait for the word, and say the figures."""
        os.environ.update(job.access.environment)
        peer = load(job.peer)
        answer: dict[str, Any] | None
        # What it writes goes with it.
        with tempfile.TemporaryDirectory(dir=job.scratch or None) as folder, contextlib.closing(peer):
            try:
                answer = self._figures(peer, dataclasses.replace(job, scratch=folder))
            except UnsupportedWorkError as reason:
                answer = {"unsupported": str(reason)}
            except (LoadError, ProgramFailedError) as failure:
                raise SystemExit(str(failure)) from None
        gc.collect()  # connections that nobody has closed
        if answer is not None:
            self._say(answer)

    def _figures(self, peer: Client, job: Job) -> dict[str, Any] | None:
        run = peer.prepare(job) or drive(peer, job)
        if self._idle is None:
            self._idle = _Usage(0.0, 0.0, 0.0) if peer.idle is None else _idle(peer.idle, peer.who)
            # What an earlier job leaves in memory counts as used by the later ones.
            self._resident = _memory("VmRSS")
        self._say({"ready": True})
        start_at = sys.stdin.readline()
        if not start_at:
            return None  # nobody wants to know any more
        _wait_until(float(start_at))
        figures = _observed(job, run, peer.who, self._resident)
        figures["idle_wall_seconds"] = self._idle.wall
        for name in ("wall", "user", "system"):
            figures[f"{name}_seconds"] = max(figures[f"{name}_seconds"] - getattr(self._idle, name), 0.0)
        return figures

    def _say(self, answer: dict[str, Any]) -> None:
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def _wait_until(moment: float) -> None:
    """Wait for a moment; 0 is at once."""
    early = moment - time.time() if moment else 0.0
    if early < -_LATEST_SECONDS:
        raise LoadError(f"was ready {-early:.1f} s after the others had begun")
    time.sleep(max(early, 0.0))


def _observed(job: Job, run: Callable[[], Outcome], who: int, resident: int | None) -> dict[str, Any]:
    with _alarm(job.deadline_seconds):
        if not job.observe or job.peer not in OURS:
            return measured(run, who, resident)
        with Observation() as seen:
            figures = measured(run, who, resident)
    figures["counted"] = figures["counted"] or seen.counted()  # a crowd has asked its processes
    figures["histograms"].update((name, times.encode()) for name, times in seen.histograms().items())
    return figures


@contextlib.contextmanager
def _alarm(deadline_seconds: float) -> Iterator[None]:
    """End this process if an operation does not end."""
    if not deadline_seconds:
        yield
        return
    alarm = threading.Timer(deadline_seconds + _GRACE_SECONDS, _end, (deadline_seconds,))
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _end(deadline_seconds: float) -> None:
    os.write(2, f"did not end within {deadline_seconds:g} s\n".encode())
    os._exit(1)


if __name__ == "__main__":
    main()
