"""Many names at once: by directory where one listing answers for all of them, several requests at a time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from ..config.settings import EndpointSettings
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
from ..webdav.addresses import as_directory, decoded_path, parent
from .listing import DirectoryLister

__all__ = ("Listings", "at_once", "by_directory", "files_among", "found")

_log = logging.getLogger(__name__)

_WORKERS = 8
"""Together they stay below the door's limit, which the pacer sees to."""

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
    lister : `DirectoryLister`
        Lists directories.
    settings : `EndpointSettings`
        From where on a listing is cheaper.
    clock : `~collections.abc.Callable`, optional
        Monotonic time in seconds.

    Notes
    -----
    How large a directory is shows only when it is listed. So a listing has a share of time by the number of
    names that it is to answer for, and what came of it is remembered for ten minutes. Thread-safe.
    """

    def __init__(
        self,
        lister: DirectoryLister,
        settings: EndpointSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lister = lister
        self._settings = settings
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
        if names < self._settings.bulk.list_from_names:
            return False
        known = self._worth.get(decoded_path(directory))
        return known is None or self._clock() - known[0] > _REMEMBERED_SECONDS or names >= known[1]

    def among(self, directory: str, urls: Sequence[str]) -> dict[str, FileInfo]:
        """Return what a listing says of some names in it.

        Parameters
        ----------
        directory : `str`
            URL of the directory.
        urls : `~collections.abc.Sequence` [ `str` ]
            The names.

        Returns
        -------
        found : `dict` [ `str`, `FileInfo` ]
            Those that it has. Of the others it says nothing: listings of dCache may be short without saying
            so (protocol page, section 4.1).

        Raises
        ------
        DcacheError
            Raised by cause; but for `ResourceNotFoundError` and `CredentialError` it says nothing of the
            names.
        """
        share = Deadline(
            min(
                _LISTING_SECONDS + len(urls) * _LISTING_SECONDS_PER_NAME,
                self._settings.total_timeout_seconds,
            )
        )
        wanted: defaultdict[str, list[str]] = defaultdict(list)
        for url in urls:
            wanted[decoded_path(url)].append(url)

        def pick(entries: Iterator[FileInfo]) -> tuple[int, dict[str, FileInfo]]:
            count, found = 0, {}
            for entry in entries:
                count += 1
                for url in wanted.get(_path_of(entry), ()):
                    found[url] = entry if entry.url == url else replace(entry, url=_named(url, entry))
            return count, found

        try:
            count, found = self._lister.read(directory, pick, operation="look for many", deadline=share)
        except CredentialError:
            raise
        except (AccessDeniedError, DeadlineError, ProtocolError) as error:
            _log.info("a directory is not listed, its names are asked for: %s", error)
            self._remember(directory, math.inf)
            raise
        self._remember(directory, count / self._settings.bulk.entries_per_question)
        return found

    def _remember(self, directory: str, names: float) -> None:
        path = decoded_path(directory)
        with self._lock:
            self._worth[path] = self._clock(), names
            self._worth.move_to_end(path)
            while len(self._worth) > _MOST_REMEMBERED:
                self._worth.popitem(last=False)


def by_directory(urls: Iterable[str]) -> dict[str, list[str]]:
    """Return names by the URL of the directory that holds them."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for url in urls:
        groups[parent(url)].append(url)
    return groups


def _path_of(entry: FileInfo) -> str:
    # `decoded_path` remembers what it is asked for: ten thousand entries would drive out all else.
    return unquote(urlsplit(entry.url).path).rstrip("/")


def _named(url: str, entry: FileInfo) -> str:
    return as_directory(url) if entry.is_directory else url.rstrip("/")


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
    groups = by_directory(urls)

    def look(directory: str) -> set[str]:
        try:
            entries = listings.among(directory, groups[directory])
        except DcacheError:
            # Each name is asked for by itself then, and tells its own error.
            return set()
        return {url for url, entry in entries.items() if entry.is_file}

    found: set[str] = set()
    for part in at_once(look, [one for one, names in groups.items() if listings.is_worth(one, len(names))]):
        found |= part
    return found
