"""Many names at once: by directory where one listing answers for all of them, several requests at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import DcacheError, ResourceNotFoundError
from ..webdav.addresses import decoded_path, parent
from ..webdav.door import Door

__all__ = ("at_once", "exists_many", "files_among")

_WORKERS = 8
"""Together they stay below the door's limit, which the pacer sees to."""

_LIST_FROM = 3
"""Names in one directory from which on a listing is cheaper than asking for each."""

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


def exists_many(door: Door, urls: Iterable[str], exists: Callable[[str], bool]) -> dict[str, bool]:
    """Tell which of many names exist.

    Parameters
    ----------
    door : `Door`
        Whom to ask.
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
    not in one is asked for by itself. A directory that does not exist settles all its names.
    """
    wanted = list(dict.fromkeys(urls))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for url in wanted:
        groups[parent(url)].append(url)
    listed = [directory for directory, names in groups.items() if len(names) >= _LIST_FROM]
    known = {
        url: value
        for part in at_once(lambda one: _by_listing(door, one, groups[one]), listed)
        for url, value in part.items()
    }
    single = [url for url in wanted if url not in known]
    known.update(zip(single, at_once(exists, single), strict=True))
    return {url: known[url] for url in wanted}


def _by_listing(door: Door, directory: str, urls: list[str]) -> dict[str, bool]:
    """Return what a listing says for sure."""
    try:
        entries = door.propfind(directory, 1, operation="look for many", deadline=door.deadline())
    except ResourceNotFoundError:
        return dict.fromkeys(urls, False)
    there = {decoded_path(entry.url) for entry in entries[1:]}
    return {url: True for url in urls if decoded_path(url) in there}


def files_among(door: Door, urls: Sequence[str]) -> set[str]:
    """Return which names are files according to listings of their directories.

    Parameters
    ----------
    door : `Door`
        Whom to ask.
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
            entries = door.propfind(directory, 1, operation="look for many", deadline=door.deadline())
        except DcacheError:
            # Each name is asked for by itself then, and tells its own error.
            return set()
        files = {decoded_path(entry.url) for entry in entries[1:] if entry.is_file}
        return {url for url in groups[directory] if decoded_path(url) in files}

    found: set[str] = set()
    for part in at_once(look, [one for one, names in groups.items() if len(names) >= _LIST_FROM]):
        found |= part
    return found
