"""How long a real dCache takes, off unless asked for.

Medians of single requests on two cores are those of the protocol page, surprise 25. What many names cost at a
time is drawn through its figures: a listing of 1,000 files 0.9 s, by REST 0.4 s, with checksums 0.85 s; of
10,000 directories 24 s; a bulk removal of 40 files 1.3 s; archiveinfo of 1,000 paths 2.9 s (sections 4.2, 7.5
and 7.6). Two requests are worked on at a time, which is how that server came to end at 200 small GETs a
second.
"""

from __future__ import annotations

import threading

__all__ = ["Latency"]

_CORES = 2

_SECONDS = {
    "head": 0.0045,
    "propfind": 0.0065,
    "get": 0.010,
    "redirect_put": 0.025,
    "pool_put": 0.008,
    "pool_get": 0.0006,
    "move": 0.012,
    "rest_move": 0.008,
    "proxied_put": 0.039,
    "delete": 0.010,
    "mkcol": 0.009,
    "rest": 0.005,
    "list_file": 0.0009,
    "list_directory": 0.003,
    "rest_list_entry": 0.0004,
    "rest_list_entry_in_full": 0.00085,
    "bulk_request": 1.2,
    "bulk_target": 0.0025,
    "archive_info_path": 0.0029,
}


class Latency:
    """Waits as long as the real server takes.

    Parameters
    ----------
    factor : `float`
        Factor on all times; 0 switches the model off.
    """

    def __init__(self, factor: float = 0.0) -> None:
        self.factor = factor
        self._cores = threading.Semaphore(_CORES)
        self.stopping = threading.Event()

    def length(self, operation: str, count: int = 1) -> float:
        """Return how long ``count`` operations of a kind take, seconds."""
        return self.factor * count * _SECONDS[operation]

    def spend(self, operation: str, count: int = 1) -> None:
        """Wait for a free core, and for the length of ``count`` operations of a kind."""
        if self.factor <= 0:
            return
        while not self._cores.acquire(timeout=0.5):
            if self.stopping.is_set():
                return
        try:
            self.stopping.wait(self.length(operation, count))
        finally:
            self._cores.release()
