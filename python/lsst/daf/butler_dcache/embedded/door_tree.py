"""MKCOL, DELETE and MOVE at the door (protocol page, section 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .access import PermissionDeniedError
from .answers import DoorRefusalError
from .caveats import Activity, normal_path
from .entry import Entry
from .exchange import Exchange, decode_path
from .namespace import EntryExistsError, EntryMissingError, NamespaceError, NotADirectoryEntryError

if TYPE_CHECKING:
    from .site import Site

__all__ = ["DoorTree"]


def _above(path: str) -> str:
    return normal_path(path).rsplit("/", 1)[0] or "/"


class DoorTree:
    """Answers what changes the tree.

    Parameters
    ----------
    site : `Site`
        The dCache.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def _source(self, exchange: Exchange) -> Entry:
        access = self._site.access
        real = access.real_path(exchange.login, exchange.path)
        access.require_passage(exchange.login, real)
        entry = self._site.namespace.find(real)
        if entry is None:
            raise DoorRefusalError(404)
        return entry

    def mkcol(self, exchange: Exchange) -> None:
        """Make one directory; of racing clients one is told 201, all others 405."""
        site, login = self._site, exchange.login
        real = site.access.real_path(login, exchange.path)
        site.access.require_passage(login, real)
        if site.namespace.find(real) is not None:
            raise DoorRefusalError(405)
        parent = site.namespace.parent_of(real)
        if parent is None or not parent.is_directory:
            raise DoorRefusalError(409)
        site.access.require(login, Activity.MANAGE, _above(exchange.path))
        site.access.require_mode(login, parent, 2)
        site.latency.spend("mkcol")
        try:
            site.namespace.mkdir(real, login.uid, login.gids[0])
        except EntryExistsError as exc:
            raise DoorRefusalError(405) from exc
        except (EntryMissingError, NotADirectoryEntryError) as exc:
            raise DoorRefusalError(409) from exc
        exchange.answer(201, framing="chunked")

    # ---- DELETE
    def delete(self, exchange: Exchange) -> None:
        """Remove a file, or a directory with all below it."""
        entry = self._source(exchange)
        self._site.access.require(exchange.login, Activity.DELETE, exchange.path)
        etag = entry.etag
        self._remove_all(exchange, entry)
        exchange.answer(204, [("Accept-Ranges", "bytes"), ("ETag", etag)], framing="none")

    def _remove_all(self, exchange: Exchange, entry: Entry) -> None:
        """Remove depth first, entry by entry; at the first problem part of the tree is gone."""
        site = self._site
        shown = site.access.shown_path(exchange.login, entry.path)
        for child in self._children(exchange, entry, shown):
            self._remove_all(exchange, child)
        site.access.require(exchange.login, Activity.DELETE, shown)
        site.access.require_mode(exchange.login, entry.parent, 2)
        site.latency.spend("delete")
        try:
            site.namespace.remove(entry)
        except EntryMissingError:  # another client was faster: gone is what was asked for
            return
        except NamespaceError as exc:
            raise DoorRefusalError(500, str(exc)) from exc

    def _children(self, exchange: Exchange, entry: Entry, shown: str) -> list[Entry]:
        """Return what a removal finds below an entry: nothing where it may not look.

        A real door swallows the refusal of a listing (``DcacheDirectoryResource.getChildren``), so that its
        name space is asked to remove a directory that is not empty, and refuses.
        """
        access = self._site.access
        try:
            access.require(exchange.login, Activity.LIST, shown)
            access.require_mode(exchange.login, entry, 4)
        except PermissionDeniedError:
            return []
        return list(self._site.namespace.children(entry))

    # ---- MOVE
    def _destination(self, exchange: Exchange) -> str:
        if "destination" not in exchange.headers:
            raise DoorRefusalError(500, "null")
        return decode_path(urlsplit(exchange.headers.get("destination")).path)

    def move(self, exchange: Exchange) -> None:
        """Rename; what has the name is removed before, and not in the same step."""
        site, login = self._site, exchange.login
        namespace, access = site.namespace, site.access
        entry = self._source(exchange)
        shown = self._destination(exchange)
        real = access.real_path(login, shown)
        access.require_passage(login, real)
        parent = namespace.parent_of(real)
        if parent is None or not parent.is_directory:
            raise DoorRefusalError(409)
        target = namespace.find(real)
        if target is not None and exchange.headers.get("overwrite").upper() != "T":
            raise DoorRefusalError(412)
        # a real door's look and act are database calls apart: `Overwrite: F` is not exclusive
        site.faults.stopping.wait(site.pause_seconds)
        may_delete = access.allows(login, Activity.DELETE, shown)
        try:
            access.require(login, Activity.MANAGE, _above(exchange.path))
            access.require(login, Activity.MANAGE, _above(shown))
            access.require_mode(login, entry.parent, 2)
            access.require_mode(login, parent, 2)
            if target is not None:
                access.require(login, Activity.DELETE, shown)
        except PermissionDeniedError as exc:
            if site.version.forbids_move:
                raise
            raise DoorRefusalError(500, "Permission denied") from exc
        etag = entry.etag
        if target is not None:
            self._remove_all(exchange, target)
        site.latency.spend("move")
        namespace.rename(entry, real, overwrite=may_delete)
        rows = [("Accept-Ranges", "bytes"), ("ETag", etag)]
        if target is None:
            exchange.answer(201, rows, framing="chunked")
        else:
            exchange.answer(204, rows, framing="none")
