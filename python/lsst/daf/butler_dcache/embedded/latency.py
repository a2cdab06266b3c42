"""How long a real dCache takes, off unless asked for (protocol page, surprise 25: medians on two cores)."""

from __future__ import annotations

import threading

__all__ = ["Latency"]

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
        self.stopping = threading.Event()

    def spend(self, operation: str, count: int = 1) -> None:
        """Wait for the length of ``count`` operations of a kind."""
        if self.factor > 0:
            self.stopping.wait(self.factor * count * _SECONDS[operation])
