"""Looking for many names: by directory where a listing answers for all, by thousands where it does not.

A name that a listing shows is there. One that it does not show may be there all the same: dCache reports the
listing of a directory that broke off half-way as a success, and one that it refuses as an empty directory
(protocol page, section 4.1). So what is missing is asked for, each name by itself, or a thousand in one
question to the frontend's tape API, which looks up each path and says ``No such file`` of those that are not
there (section 7.5). Only a 404 of the directory settles all its names at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import CredentialError, DcacheError, ResourceNotFoundError
from ..model import FileInfo, Locality
from ..rest.tape import TapeApi
from ..transport.deadline import Deadline
from ..webdav.addresses import parent
from ..webdav.door import Door
from .bulk import Listings, at_once, by_directory, found
from .frontend import Frontends

__all__ = ("Looking",)

_log = logging.getLogger(__name__)

_TAPE_SECONDS = 10.0
_TAPE_SECONDS_PER_NAME = 0.02
"""What a frontend may take before the door is asked instead; 2.9 s for 1,000 paths (section 7.5)."""

Look = Callable[[str], FileInfo]


class Looking:
    """Looks for many names with few requests.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    listings : `Listings`
        Lists directories, where that is worth it.
    frontends : `Frontends`
        The frontend, if there is one.
    """

    def __init__(self, door: Door, listings: Listings, frontends: Frontends) -> None:
        self._door = door
        self._listings = listings
        self._frontends = frontends

    def exists_many(self, urls: Iterable[str], stat: Look) -> dict[str, bool]:
        """Tell which of many names exist.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            The names.
        stat : `~collections.abc.Callable`
            Asks for one name.

        Returns
        -------
        existence : `dict` [ `str`, `bool` ]
            By URL, in the order in which they came.

        Raises
        ------
        DcacheError
            Raised if the server refuses or fails: nothing is called missing that the server did not call so.
        """
        wanted = list(dict.fromkeys(urls))
        known = {url: info is not None for url, info in self._by_listings(wanted, stat).items()}
        known |= self._by_tape(wanted, known)
        single = [url for url in wanted if url not in known]
        infos = at_once(lambda url: found(stat, url), single)
        known.update((url, info is not None) for url, info in zip(single, infos, strict=True))
        return {url: known[url] for url in wanted}

    def info_many(self, urls: Iterable[str], stat: Look) -> dict[str, FileInfo | None]:
        """Return what is known of many names, `None` for those that are not there.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            The names.
        stat : `~collections.abc.Callable`
            Asks for one name.

        Returns
        -------
        infos : `dict` [ `str`, `FileInfo` or `None` ]
            By URL, in the order in which they came.

        Raises
        ------
        DcacheError
            As `exists_many`.
        """
        wanted = list(dict.fromkeys(urls))
        known = self._by_listings(wanted, stat)
        existence = self._by_tape(wanted, known)
        known |= {url: None for url, is_there in existence.items() if not is_there}
        single = [url for url in wanted if url not in known]
        known.update(zip(single, at_once(lambda url: found(stat, url), single), strict=True))
        return {url: known[url] for url in wanted}

    def _by_listings(self, urls: Sequence[str], stat: Look) -> dict[str, FileInfo | None]:
        """Return what listings say for sure."""
        groups = by_directory(urls)

        def look(directory: str) -> dict[str, FileInfo | None]:
            names = groups[directory]
            try:
                return {**self._listings.among(directory, names)}
            except ResourceNotFoundError:
                return dict.fromkeys(names)
            except CredentialError:
                raise
            except DcacheError:
                # An error that holds for the names as well, such as a dead door, ends it here; the others are
                # asked for later, several at a time.
                return {names[0]: found(stat, names[0])}

        listed = [one for one, names in groups.items() if self._listings.is_worth(one, len(names))]
        return {url: info for part in at_once(look, listed) for url, info in part.items()}

    def _by_tape(self, wanted: Sequence[str], known: Mapping[str, object]) -> dict[str, bool]:
        """Return what the tape API says of the names that are still unknown, if they are many."""
        single = [url for url in wanted if url not in known]
        if len(single) < self._door.settings.bulk.archive_info_from_names:
            return {}
        # Asked for as well: what the door knows to be there, or else a directory that should be.
        witness = next((url for url in wanted if known.get(url)), parent(single[0]))
        rows = self._rows([witness, *single], witness)
        if isinstance(rows.pop(witness, None), DcacheError):
            # A frontend takes a path that begins with its own root for one that is complete already
            # (`ArchiveInfoCollector.computeFsPath`): such a one means something else by all of them.
            _log.info("the frontend does not know what is there, so it is not believed: %s", witness)
            return {}
        # Any other error is one of the question.
        return {
            url: not isinstance(row, ResourceNotFoundError)
            for url, row in rows.items()
            if isinstance(row, Locality | ResourceNotFoundError)
        }

    def _rows(self, urls: Sequence[str], witness: str) -> dict[str, Locality | DcacheError]:
        """Return what the tape API says, if by a path the frontend means the same file as the door."""
        deadline = self._door.deadline()
        try:
            frontend = self._frontends.get(deadline)
            if frontend is None or frontend.is_away or not frontend.prove(witness, deadline):
                return {}
            urls = frontend.bulk.namable(urls, deadline)  # archiveinfo mistakes the same names
            if witness not in urls:
                return {}
            tape = TapeApi(self._frontends.tape(deadline))
        except CredentialError:
            raise  # the door will not know us any better, and the third refusal blocks this host
        except DcacheError as error:
            _log.info("whether the frontend may be asked is not known, so the door is: %s", error)
            return {}
        share = Deadline(deadline.limit(_TAPE_SECONDS + len(urls) * _TAPE_SECONDS_PER_NAME))
        try:
            return tape.archive_info(urls, deadline=share)
        except DcacheError as error:
            frontend.leave(error)
            return {}
