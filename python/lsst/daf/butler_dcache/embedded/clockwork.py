"""Things that happen later, without anybody waiting: flushes to tape, restores, bulk requests."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Clockwork"]

_LOG = logging.getLogger(__name__)


class Clockwork:
    """One thread that runs tasks at their time.

    Notes
    -----
    Thread-safe. Tasks must be short: they run one after the other.
    """

    def __init__(self) -> None:
        self._tasks: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="embedded-dcache-clockwork", daemon=True)
        self._thread.start()

    def after(self, seconds: float, task: Callable[[], None]) -> None:
        """Run a task later.

        Parameters
        ----------
        seconds : `float`
            How much later; 0 is as soon as possible.
        task : `~collections.abc.Callable`
            What to run.
        """
        with self._changed:
            heapq.heappush(self._tasks, (time.monotonic() + seconds, next(self._numbers), task))
            self._changed.notify()

    def stop(self) -> None:
        """Forget all tasks and end the thread."""
        with self._changed:
            self._stopped = True
            self._tasks.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._tasks or self._tasks[0][0] > time.monotonic()):
                    self._changed.wait(self._tasks[0][0] - time.monotonic() if self._tasks else None)
                if self._stopped:
                    return
                task = heapq.heappop(self._tasks)[2]
            try:
                task()
            except Exception:  # one task's mistake must not stop the clock for the others
                _LOG.exception("a task of the embedded dCache failed")
