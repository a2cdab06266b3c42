"""Many removals: by bulk requests of the frontend where that is cheaper, else one request for each name.

A bulk request removes no tree either: a directory that holds something is refused. What the frontend does
not settle is left to single requests: all of it if it does not serve, the names that no bulk request can
mean, and those of which nobody knows what became of them, after a look which are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack

from ..errors import (
    CredentialError,
    DcacheError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ResourceNotFoundError,
    ServerBusyError,
    UnsupportedError,
)
from ..transport.deadline import Deadline
from ..webdav.door import Door
from .bulk import Listings, at_once, files_among
from .frontend import Frontend, Frontends
from .removal import Remover

__all__ = ("ManyRemovals",)

_log = logging.getLogger(__name__)


class ManyRemovals:
    """Removes many files and empty directories.

    Parameters
    ----------
    door : `Door`
        The endpoint's doors.
    frontends : `Frontends`
        Its frontend, where one is known.
    remover : `Remover`
        Removes a single name.
    listings : `~.bulk.Listings`
        Tell files from directories where nobody else does.
    exist : `~collections.abc.Callable`
        Looks which of many names are there.
    changing : `~collections.abc.Callable`
        Gives the context in which a name is removed: what this process knows of it is forgotten.
    """

    def __init__(
        self,
        door: Door,
        frontends: Frontends,
        remover: Remover,
        listings: Listings,
        exist: Callable[[Iterable[str]], dict[str, bool]],
        changing: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self._door = door
        self._frontends = frontends
        self._remover = remover
        self._listings = listings
        self._exist = exist
        self._changing = changing

    def remove(self, urls: Iterable[str]) -> dict[str, DcacheError | None]:
        """Remove many names.

        Parameters
        ----------
        urls : `~collections.abc.Iterable` [ `str` ]
            Files, and empty directories.

        Returns
        -------
        results : `dict` [ `str`, `DcacheError` or `None` ]
            By URL; `None` for what is removed.
        """
        wanted = list(dict.fromkeys(urls))
        results: dict[str, DcacheError | None] = {}
        unsettled: set[str] = set()
        deadline = self._door.deadline()
        if frontend := self._frontend_for(wanted, deadline):
            results = self._in_bulk(frontend, wanted, deadline)
            unsettled = self._look(results)
        single = [url for url in wanted if url not in results]
        refusals = [error for error in results.values() if isinstance(error, CredentialError)]
        files: set[str] = set()
        if single and not refusals and self._remover.must_look(self._door.deadline()):
            # Without a macaroon one listing of each directory takes the place of a look at each name.
            files = files_among(self._listings, single)

        def one(url: str) -> DcacheError | None:
            if refusals:
                # Who is not known has no right to any of them, and the third 401 blocks this host.
                return refusals[0]
            try:
                with self._changing(url):
                    self._remover.remove(url, deadline=self._door.deadline(), known_file=url in files)
            except CredentialError as error:
                refusals.append(error)
                return error
            except ResourceNotFoundError as error:
                return None if url in unsettled else error
            except DcacheError as error:
                return error
            return None

        results |= zip(single, at_once(one, single), strict=True)
        return {url: results[url] for url in wanted}

    def _frontend_for(self, urls: Sequence[str], deadline: Deadline) -> Frontend | None:
        """Return the frontend, if so many names are worth a bulk request and it means the same by them."""
        if len(urls) < self._door.settings.bulk.delete_from_files:
            return None
        if self._door.dialect not in ("dcache", "auto"):
            return None
        try:
            frontend = self._frontends.get(deadline)
            if frontend is None or frontend.is_away:
                return None
            # The proof needs a name that exists.
            for url in (urls[0], urls[len(urls) // 2], urls[-1]):
                try:
                    return frontend if frontend.prove(url, deadline) else None
                except ResourceNotFoundError:
                    continue
        except DcacheError as error:
            _log.info("whether a frontend may remove is not known, so the door does: %s", error)
        return None

    def _in_bulk(
        self, frontend: Frontend, urls: Sequence[str], deadline: Deadline
    ) -> dict[str, DcacheError | None]:
        """Return the results of what the frontend was asked to remove."""
        try:
            targets = frontend.bulk.namable(urls, deadline)
        except CredentialError as refusal:
            return dict.fromkeys(urls, refusal)
        except DcacheError as failure:
            frontend.leave(failure)
            return {}
        with ExitStack() as changes:
            for url in targets:
                changes.enter_context(self._changing(url))
            results = frontend.bulk.run("DELETE", targets, deadline=deadline)
        refused = [
            url
            for url, error in results.items()
            if isinstance(error, (DoorUnavailableError, ServerBusyError, UnsupportedError))
        ]
        for url in refused:
            error = results.pop(url)
            assert error is not None
            frontend.leave(error)
        return results

    def _look(self, results: dict[str, DcacheError | None]) -> set[str]:
        """Find out which names are gone of which nobody knows, and return the others, to be removed."""
        unknown = [url for url, error in results.items() if isinstance(error, OutcomeUnknownError)]
        if not unknown:
            return set()
        _log.info("what became of %d names is not known, so they are looked for", len(unknown))
        try:
            there = self._exist(unknown)
        except DcacheError as error:
            _log.info("they cannot be looked for: %s", error)
            return set()
        for url in unknown:
            if there[url]:
                del results[url]
            else:
                results[url] = None
        return {url for url in unknown if there[url]}
