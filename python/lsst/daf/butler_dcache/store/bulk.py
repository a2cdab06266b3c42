"""Many names at once: by directory where one listing answers for all of them, several requests at a time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import (
    AccessDeniedError,
    CredentialError,
    DcacheError,
    DeadlineError,
    ProtocolError,
    ResourceNotFoundError,
)
from ..model import FileInfo
from ..transport.deadline import Deadline
from ..webdav.addresses import decoded_path, parent
from ..webdav.door import Door
from ..webdav.listing import read_listing

__all__ = ("Listings", "at_once", "exists_many", "files_among", "found")

_log = logging.getLogger(__name__)

_WORKERS = 8
"""Together they stay below the door's limit, which the pacer sees to."""

_LIST_FROM = 3
"""Names in one directory from which on a listing is cheaper than asking for each."""

_ENTRIES_PER_QUESTION = 20
"""Entries of a listing that cost as much as one more question: 1 ms each at the server, where a question
takes 7 ms (protocol page, "What surprised us", 17 and 25) and uses up some of the limiter's patience."""

_LISTING_SECONDS = 2.0
_LISTING_SECONDS_PER_NAME = 0.1
"""What a listing may take before the names are asked for instead: one of 10,000 entries is silent for up to
42 s (protocol page, section 4.2)."""

_MOST_REMEMBERED = 1000
_REMEMBERED_SECONDS = 600.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call a function for many items in a few threads; the first error ends it all.

    Parameters
    ----------
    function : `~collections.abc.Callable`
        What to do with an item.
    items : `~collections.abc.Sequence`
        The items.

    Returns
    -------
    results : `list`
        In the order of the items.
    """
    # One goes ahead, so that an error which holds for all is met once: the third 401 within 20 s blocks this
    # host (protocol page, section 1.2).
    first = [function(item) for item in items[:1]]
    if len(items) <= 1:
        return first
    with ThreadPoolExecutor(min(_WORKERS, len(items) - 1), thread_name_prefix="dcache") as workers:
        futures = [workers.submit(function, item) for item in items[1:]]
        try:
            return first + [future.result() for future in futures]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def found(look: Callable[[str], FileInfo], url: str) -> FileInfo | None:
    """Return what a look at a name finds, `None` if the server says that there is nothing.

    Parameters
    ----------
    look : `~collections.abc.Callable`
        Asks for one name.
    url : `str`
        The name.
    """
    try:
        return look(url)
    except ResourceNotFoundError:
        return None


class Listings:
    """Listings in the place of many questions, where they are worth it.

    Parameters
    ----------
    door : `Door`
        Whom to ask.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    How large a directory is shows only when it is listed. So a listing has a share of time by the number of
    names that it is to answer for, and what came of it is remembered for ten minutes. Thread-safe.
    """

    def __init__(self, door: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._clock = clock
        self._lock = threading.Lock()
        self._worth: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def after_fork(self) -> None:
        """Make the lock of a forked child its own."""
        self._lock = threading.Lock()

    def is_worth(self, directory: str, names: int) -> bool:
        """Tell whether a listing is cheaper than a question for each name.

        Parameters
        ----------
        directory : `str`
            URL of the directory.
        names : `int`
            How many names in it are asked for.
        """
        if names < _LIST_FROM:
            return False
        known = self._worth.get(decoded_path(directory))
        return known is None or self._clock() - known[0] > _REMEMBERED_SECONDS or names >= known[1]

    def entries(self, directory: str, names: int) -> list[FileInfo]:
        """Return what a directory holds.

        Parameters
        ----------
        directory : `str`
            URL of the directory.
        names : `int`
            How many names in it are asked for.

        Raises
        ------
        DcacheError
            Raised by cause; but for `ResourceNotFoundError` and `CredentialError` it says nothing of the
            names.
        """
        share = Deadline(
            min(
                _LISTING_SECONDS + names * _LISTING_SECONDS_PER_NAME,
                self._door.settings.total_timeout_seconds,
            )
        )
        try:
            entries = read_listing(self._door, directory, operation="look for many", deadline=share)[1:]
        except CredentialError:
            raise
        except (AccessDeniedError, DeadlineError, ProtocolError) as error:
            _log.info("a directory is not listed, its names are asked for: %s", error)
            self._remember(directory, math.inf)
            raise
        self._remember(directory, len(entries) / _ENTRIES_PER_QUESTION)
        return entries

    def _remember(self, directory: str, names: float) -> None:
        path = decoded_path(directory)
        with self._lock:
            self._worth[path] = self._clock(), names
            self._worth.move_to_end(path)
            while len(self._worth) > _MOST_REMEMBERED:
                self._worth.popitem(last=False)


def exists_many(listings: Listings, urls: Iterable[str], exists: Callable[[str], bool]) -> dict[str, bool]:
    """Tell which of many names exist.

    Parameters
    ----------
    listings : `Listings`
        Lists directories.
    urls : `~collections.abc.Iterable` [ `str` ]
        The names.
    exists : `~collections.abc.Callable`
        Asks for one name.

    Returns
    -------
    found : `dict` [ `str`, `bool` ]
        By URL.

    Raises
    ------
    DcacheError
        Raised if the server refuses or fails: nothing is called missing that the server did not call so.

    Notes
    -----
    Listings of dCache may be short without saying so (protocol page, section 4.1), so that a name which is
    not in one is asked for by itself, and so is every name if a listing is refused, too large or too slow. A
    directory that does not exist settles all its names.
    """
    wanted = list(dict.fromkeys(urls))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for url in wanted:
        groups[parent(url)].append(url)
    listed = [directory for directory, names in groups.items() if listings.is_worth(directory, len(names))]
    known = {
        url: value
        for part in at_once(lambda one: _by_listing(listings, one, groups[one], exists), listed)
        for url, value in part.items()
    }
    single = [url for url in wanted if url not in known]
    known.update(zip(single, at_once(exists, single), strict=True))
    return {url: known[url] for url in wanted}


def _by_listing(
    listings: Listings, directory: str, urls: list[str], exists: Callable[[str], bool]
) -> dict[str, bool]:
    """Return what a listing says for sure."""
    try:
        entries = listings.entries(directory, len(urls))
    except ResourceNotFoundError:
        return dict.fromkeys(urls, False)
    except CredentialError:
        raise
    except DcacheError:
        # An error that holds for the names as well, such as a dead door, ends it here; the others are asked
        # for later, several at a time.
        return {urls[0]: exists(urls[0])}
    there = {decoded_path(entry.url) for entry in entries}
    return {url: True for url in urls if decoded_path(url) in there}


def files_among(listings: Listings, urls: Sequence[str]) -> set[str]:
    """Return which names are files according to listings of their directories.

    Parameters
    ----------
    listings : `Listings`
        Lists directories.
    urls : `~collections.abc.Sequence` [ `str` ]
        The names.

    Returns
    -------
    files : `set` [ `str` ]
        Those that surely are; for the others nothing is said.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for url in urls:
        groups[parent(url)].append(url)

    def look(directory: str) -> set[str]:
        try:
            entries = listings.entries(directory, len(groups[directory]))
        except DcacheError:
            # Each name is asked for by itself then, and tells its own error.
            return set()
        files = {decoded_path(entry.url) for entry in entries if entry.is_file}
        return {url for url in groups[directory] if decoded_path(url) in files}

    found: set[str] = set()
    for part in at_once(look, [one for one, names in groups.items() if listings.is_worth(one, len(names))]):
        found |= part
    return found
