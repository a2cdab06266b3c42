"""What is said while a command waits, so that nobody has to guess whether it still does something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ("told_while_waiting",)

_FIRST_SECONDS = 10.0
_LONGEST_SECONDS = 600.0


@contextmanager
def told_while_waiting(text: Callable[[], str], is_wanted: bool = True) -> Iterator[None]:
    """Print a line on standard error when something takes long, and ever more rarely as it goes on.

    Parameters
    ----------
    text : `~collections.abc.Callable`
        Returns the line; called in another thread.
    is_wanted : `bool`, optional
        `False` where a line on the terminal tells it.
    """
    is_over = threading.Event()

    def tell() -> None:
        seconds = _FIRST_SECONDS
        while not is_over.wait(seconds):
            click.echo(text(), err=True)
            seconds = min(seconds * 2, _LONGEST_SECONDS)

    thread = threading.Thread(target=tell, name="told-while-waiting", daemon=True)
    if is_wanted:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        if is_wanted:
            thread.join()
