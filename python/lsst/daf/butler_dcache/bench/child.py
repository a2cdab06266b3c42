"""One piece of work in a process of its own: a job comes as JSON, figures go as JSON.

What a peer needs before it can begin (imports, its session, first contact) is prepared before the clock
starts; see `measure`, which interleaves such processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .peers.registry import load
from .work import Job, Outcome, UnsupportedWorkError

__all__ = ("main", "measured")

_IDLE_RUNS = 3


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
    before = _usage(who)
    outcome = run()
    used = _usage(who) - before
    peak = _memory("VmHWM")
    return {
        "wall_seconds": used.wall,
        "user_seconds": used.user,
        "system_seconds": used.system,
        "peak_bytes": None
        if peak is None or resident is None or who != resource.RUSAGE_SELF
        else max(peak - resident, 0),
        **dataclasses.asdict(outcome),
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
    """Do the job on the first line of the standard input, as soon as there is a second."""
    job = Job.from_json(json.loads(sys.stdin.readline()))
    os.environ.update(job.access.environment)
    try:
        peer = load(job.peer)
        run = peer.prepare(job)
    except UnsupportedWorkError as reason:
        _say({"unsupported": str(reason)})
        return
    idle = _Usage(0.0, 0.0, 0.0) if peer.idle is None else _idle(peer.idle, peer.who)
    _say({"ready": True})
    sys.stdin.readline()
    figures = measured(run, peer.who)
    if job.work.total_bytes and figures["bytes_moved"] != job.work.total_bytes:
        raise SystemExit(f"{job.peer} moved {figures['bytes_moved']} bytes of {job.work.total_bytes}")
    figures["idle_wall_seconds"] = idle.wall
    for name in ("wall", "user", "system"):
        figures[f"{name}_seconds"] = max(figures[f"{name}_seconds"] - getattr(idle, name), 0.0)
    _say(figures)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
