"""Several files at a time in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ("add_up",)

_T = TypeVar("_T")


def add_up(do: Callable[[_T], int], things: Iterable[_T], threads: int) -> int:
    """Do something to each of many things, and return the sum of the results.

    Parameters
    ----------
    do : `~collections.abc.Callable`
        Returns a number of bytes.
    things : `~collections.abc.Iterable`
        What it is done to.
    threads : `int`
        How many at a time.

    Returns
    -------
    total : `int`
        Bytes.
    """
    if threads == 1:
        return sum(map(do, things))
    with ThreadPoolExecutor(threads) as executor:
        return sum(executor.map(do, things))
