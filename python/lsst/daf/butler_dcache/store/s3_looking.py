"""What has many names in a bucket: by listings where they are fewer than questions.

Theory of operation: one request lists a thousand keys, and tells of all names that begin with what it was
asked for. So all names are looked for in a listing of what begins as all of them do, whatever directories
they are in. It has a number of pages in proportion to the names; if it does not come to its end within them,
what was found is found, and the others are sorted by the next character and looked for again, group by group.
All pages together are a fraction of the names; a name that remains is asked for by itself. An absent name is
one that a listing which came to its end does not have: nothing is concluded from the order of keys (see
`..s3.listing`).
"""

from __future__ import annotations

import logging
import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence

from ..errors import AccessDeniedError, CredentialError, ResourceNotFoundError
from ..model import EntryKind, FileInfo
from ..s3.address import S3Address
from ..s3.listing import Listing, info_of
from ..transport.deadline import Deadline
from .bulk import at_once

__all__ = ("look_for",)

_log = logging.getLogger(__name__)

_LIST_FROM = 3
"""Names from which on a listing is cheaper than a question for each."""

_NAMES_PER_PAGE = 50
"""A page of a thousand keys costs the server about as much as so many questions."""

_MOST_PAGES = 0.25
"""All pages of listings that did not come to their end, as a share of the names."""


def look_for(
    listing: Listing,
    addresses: Sequence[S3Address],
    look: Callable[[S3Address], FileInfo | None],
    deadline: Deadline,
) -> dict[S3Address, FileInfo | None]:
    """Return what has many names.

    Parameters
    ----------
    listing : `~..s3.listing.Listing`
        Lists keys.
    addresses : `~collections.abc.Sequence` [ `~..s3.address.S3Address` ]
        The names, each once.
    look : `~collections.abc.Callable`
        Asks for one name; `None` if nothing has it.
    deadline : `~..transport.deadline.Deadline`
        When to give up.

    Returns
    -------
    infos : `dict`
        By name, `None` where there is nothing; without checksums where a listing told.

    Raises
    ------
    DcacheError
        Raised if the server refuses or fails: nothing is called missing that the server did not call so.
    """
    found: dict[S3Address, FileInfo | None] = {}
    # SeaweedFS 4.48 lists what has ``//`` in its key under another one.
    groups = [[address for address in addresses if address.key and "//" not in address.key]]
    left = len(addresses) * _MOST_PAGES
    while groups := [group for group in groups if len(group) >= _LIST_FROM]:
        further: list[list[S3Address]] = []
        for group, (there, is_complete) in zip(
            groups, at_once(lambda one: _look(listing, one, deadline), groups), strict=True
        ):
            found.update(there)
            rest = [address for address in group if address not in there]
            if is_complete:
                found.update(dict.fromkeys(rest))
                continue
            left -= _pages(group)
            further += _split(rest)
        groups = further if left > 0 else []
    single = [address for address in addresses if address not in found]
    found.update(zip(single, at_once(look, single), strict=True))
    return found


def _look(
    listing: Listing, group: list[S3Address], deadline: Deadline
) -> tuple[dict[S3Address, FileInfo], bool]:
    """Return what a listing shows of some names, and whether it came to its end."""
    prefix = posixpath.commonprefix([address.key for address in group])
    # A name is a file, or a directory of which a slash follows, with or without having been asked for so.
    wanted = defaultdict(list)
    for address in group:
        wanted[address.key.rstrip("/")].append(address)
    objects: dict[S3Address, FileInfo] = {}
    directories: dict[S3Address, FileInfo] = {}
    pages = listing.pages(group[0], prefix, operation="look for many", deadline=deadline)
    for _ in range(_pages(group)):
        try:
            page = next(pages)
        except ResourceNotFoundError:
            return {}, True  # there is no such bucket
        except CredentialError:
            raise
        except AccessDeniedError as error:
            # Who may read and not list can still ask for each name.
            _log.info("a listing is refused, its names are asked for: %s", error)
            return objects, False
        for entry in page.objects:
            key = entry["Key"]
            for address in wanted.get(key, ()):
                if address.key == key:
                    objects[address] = info_of(address, entry)
            slash = key.find("/", max(len(prefix) - 1, 0))
            while slash >= 0:
                for address in wanted.get(key[:slash], ()):
                    directories[address] = FileInfo(address.url, EntryKind.DIRECTORY)
                slash = key.find("/", slash + 1)
        if page.is_last:
            return directories | objects, True
    # Where a directory is, an object of the same name may come later.
    return objects, False


def _pages(group: Sequence[S3Address]) -> int:
    return max(1, len(group) // _NAMES_PER_PAGE)


def _split(addresses: Sequence[S3Address]) -> list[list[S3Address]]:
    """Sort names by what follows their common beginning."""
    if not addresses:
        return []
    at = len(posixpath.commonprefix([address.key for address in addresses]))
    groups = defaultdict(list)
    for address in addresses:
        groups[address.key[at : at + 1]].append(address)
    return list(groups.values())
