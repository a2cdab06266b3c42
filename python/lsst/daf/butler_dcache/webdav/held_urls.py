"""How many URLs at pools this process keeps alive.

Each of them occupies a place among the transfers of its pool, a hundred by default, whether bytes flow or not
(protocol page, section 2.5): a program that opens thousands of files and reads a little of each now and then
would shut everybody else out. So the one that was used longest ago is given back when there is one too many;
who reads on there asks the door again, and continues only with the same file.

There is no lock: the garbage collector closes files that were forgotten, in any thread and at any moment,
also while that thread is in here. Each step is one operation of a `dict`, and a URL too many for a moment is
no harm.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ("Holder", "hold", "let_go")


class Holder(Protocol):
    """Who keeps a URL alive."""

    def release_if_idle(self) -> bool:
        """Give the URL back unless it is in use at this very moment; return whether it was given back."""
        ...


_held: dict[int, weakref.ref[Holder]] = {}
"""The one that was used longest ago first."""


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
    _held.pop(key, None)
    _held[key] = weakref.ref(holder)
    if len(_held) <= most:
        return
    for other in list(_held):
        reference = _held.get(other)
        if reference is not None and reference() is None:
            _drop(other, reference)
    others = list(_held)
    for other in others[: max(0, len(others) - most)]:
        reference = _held.get(other)
        found = None if reference is None else reference()
        if other != key and reference is not None and (found is None or found.release_if_idle()):
            _drop(other, reference)


def _drop(key: int, reference: weakref.ref[Holder]) -> None:
    # Another holder may have got the number of one that is gone.
    if _held.get(key) is reference:
        _held.pop(key, None)


def let_go(holder: Holder) -> None:
    """Note that a URL is held no longer.

    Parameters
    ----------
    holder : `Holder`
        Whose URL it was.
    """
    _held.pop(id(holder), None)


os.register_at_fork(after_in_child=_held.clear)
