"""One piece of work in a process of its own: a job comes as JSON, figures go as JSON.

What a peer needs before it can begin (imports, its session, first contact) is prepared before the clock
starts; see `measure`, which interleaves such processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from .histogram import Histogram
from .load import LoadError, drive
from .observation import Observation
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


def measured(run: Callable[[], Outcome], who: int) -> dict[str, Any]:
    """Run something and take its figures.

    Parameters
    ----------
    run : `~collections.abc.Callable`
        What is measured.
    who : `int`
        ``resource.RUSAGE_SELF`` or ``resource.RUSAGE_CHILDREN``: whose CPU time counts.

    Returns
    -------
    figures : `dict`
        Seconds of wall and CPU, peak memory over the one at the beginning, and what ``run`` returned.
    """
    _forget_peak()
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
    """Do the job on the first line of the standard input, when the second says so.

    It is a number: seconds since the epoch, where many begin at one moment, or 0.
    """
    job = Job.from_json(json.loads(sys.stdin.readline()))
    with _private_output() as out:
        _do(job, out)


@contextlib.contextmanager
def _private_output() -> Iterator[TextIO]:
    """The standard output for our own words; whatever else is written there goes to the standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        yield out


def _do(job: Job, out: TextIO) -> None:
    os.environ.update(job.access.environment)
    try:
        peer = load(job.peer)
        run = peer.prepare(job) or drive(peer, job)
        idle = _Usage(0.0, 0.0, 0.0) if peer.idle is None else _idle(peer.idle, peer.who)
        _say(out, {"ready": True})
        start_at = sys.stdin.readline()
        if not start_at:
            return  # nobody wants to know any more
        _wait_until(float(start_at))
        figures = _figures(job, run, peer.who)
    except UnsupportedWorkError as reason:
        _say(out, {"unsupported": str(reason)})
        return
    except (LoadError, ProgramFailedError) as failure:
        raise SystemExit(str(failure)) from None
    figures["idle_wall_seconds"] = idle.wall
    for name in ("wall", "user", "system"):
        figures[f"{name}_seconds"] = max(figures[f"{name}_seconds"] - getattr(idle, name), 0.0)
    _say(out, figures)


def _wait_until(moment: float) -> None:
    """Wait for a moment; 0 is at once."""
    early = moment - time.time() if moment else 0.0
    if early < -_LATEST_SECONDS:
        raise LoadError(f"was ready {-early:.1f} s after the others had begun")
    time.sleep(max(early, 0.0))


def _figures(job: Job, run: Callable[[], Outcome], who: int) -> dict[str, Any]:
    with _alarm(job.deadline_seconds):
        if not job.observe or job.peer not in OURS:
            return measured(run, who)
        with Observation() as seen:
            figures = measured(run, who)
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
    yield
    alarm.cancel()


def _end(deadline_seconds: float) -> None:
    os.write(2, f"did not end within {deadline_seconds:g} s\n".encode())
    os._exit(1)


def _say(out: TextIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
