"""How many URLs at pools this process keeps alive.

Each of them occupies a place among the transfers of its pool, a hundred by default, whether bytes flow or not
(protocol page, section 2.5): a program that opens thousands of files and reads a little of each now and then
would shut everybody else out. So the one that was used longest ago is given back when there is one too many;
who reads on there asks the door again, and continues only with the same file.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Protocol

__all__ = ("Holder", "hold", "let_go")


class Holder(Protocol):
    """Who keeps a URL alive."""

    def release_if_idle(self) -> bool:
        """Give the URL back unless it is in use at this very moment; return whether it was given back."""
        ...


_lock = threading.Lock()
_held: OrderedDict[int, weakref.ref[Holder]] = OrderedDict()


def hold(holder: Holder, most: int) -> None:
    """Note that a URL is used now; give others back if there are too many.

    Parameters
    ----------
    holder : `Holder`
        Whose URL it is.
    most : `int`
        How many the process may hold. URLs over which bytes flow at this moment in other threads are not
        given back, even if that leaves more.
    """
    key = id(holder)
    with _lock:
        _held.pop(key, None)
        _held[key] = weakref.ref(holder)
        if len(_held) > most:
            for lost in [other for other, reference in _held.items() if reference() is None]:
                del _held[lost]
        surplus = list(_held.items())[: max(0, len(_held) - most)]
    for other, reference in surplus:
        found = reference()
        if other != key and (found is None or found.release_if_idle()):
            with _lock:
                if _held.get(other) is reference:
                    del _held[other]


def let_go(holder: Holder) -> None:
    """Note that a URL is held no longer.

    Parameters
    ----------
    holder : `Holder`
        Whose URL it was.
    """
    with _lock:
        _held.pop(id(holder), None)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
