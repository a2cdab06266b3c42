"""The namespace: names, identities and attributes; the bytes lie in a folder beside it.

Every method is one step that nobody can interrupt, as one call to dCache's PnfsManager is. What the door
makes of several steps (look, then act) is *not* exclusive, there as here: an upload with ``If-None-Match: *``
and a MOVE with ``Overwrite: F`` can both be won twice, whereas `Namespace.mkdir`, `Namespace.create` and a
`Namespace.rename` that may not overwrite are won once (protocol page, surprise 9).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .content import Content
from .entry import Entry, now_ms

__all__ = [
    "Change",
    "EntryExistsError",
    "EntryMissingError",
    "Namespace",
    "NamespaceError",
    "NotADirectoryEntryError",
    "split_path",
]


_MEMORY_LIMIT = 1 << 18


class NamespaceError(Exception):
    """The namespace refuses; the text is dCache's."""


class EntryMissingError(NamespaceError):
    """No such file or directory."""


class EntryExistsError(NamespaceError):
    """The name is taken."""


class NotADirectoryEntryError(NamespaceError):
    """A file stands where a directory is needed."""


@dataclass(frozen=True)
class Change:
    """Something that happened, for whoever watches.

    Parameters
    ----------
    kind : `str`
        ``"create"``, ``"delete"``, ``"move"``, ``"attributes"``, ``"open"``, ``"read"``, ``"written"`` (an
        upload ended, well or not) or ``"closed"`` (a reader went).
    path : `str`
        Where the entry is (was, for a delete).
    entry : `Entry`
        The entry.
    old_path : `str`
        Where it was before a move.
    """

    kind: str
    path: str
    entry: Entry
    old_path: str = ""


def split_path(path: str) -> list[str]:
    """Return the components of a path; ``.`` and ``..`` are resolved, doubled slashes count once."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            names = names[:-1]
        elif name not in ("", "."):
            names.append(name)
    return names


class Namespace:
    """Files and directories of one dCache. Thread-safe.

    Parameters
    ----------
    folder : `pathlib.Path` or `None`
        Where names and contents are kept from one run to the next; by default contents go to a temporary
        folder and names are forgotten.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._folder = folder
        base = folder if folder is not None else Path(tempfile.mkdtemp(prefix="embedded-dcache-"))
        self._base = base
        self.contents = base / "contents"
        self.contents.mkdir(parents=True, exist_ok=True)
        self.watchers: list[Callable[[Change], None]] = []
        self.root = Entry("", True, 0, 0, 0o755)
        kept = base / "namespace.json"
        if kept.exists():
            self.root = Entry.from_document(json.loads(kept.read_text()), self.contents)
        self._by_id = {entry.pnfsid: entry for entry in self.root.walk()}

    def close(self) -> None:
        """Keep what is to be kept, remove what is temporary."""
        with self._lock:
            if self._folder is None:
                shutil.rmtree(self._base, ignore_errors=True)
                return
            fresh = self._base / "namespace.json.new"
            fresh.write_text(json.dumps(self.root.as_document()))
            fresh.replace(self._base / "namespace.json")

    def tell(self, kind: str, entry: Entry, path: str = "", old_path: str = "") -> None:
        """Tell everybody who watches about a change."""
        if self.watchers:
            change = Change(kind, path or entry.path, entry, old_path)
            for watcher in list(self.watchers):
                watcher(change)

    # ---- looking
    def find(self, path: str) -> Entry | None:
        """Return the entry at a path, or `None`; also `None` below a file."""
        with self._lock:
            at = self.root
            for name in split_path(path):
                found = at.children.get(name)
                if found is None:
                    return None
                at = found
            return at

    def by_id(self, pnfsid: str) -> Entry | None:
        """Return the entry of a PNFSID, or `None`."""
        with self._lock:
            return self._by_id.get(pnfsid)

    def children(self, directory: Entry) -> list[Entry]:
        """Return the entries of a directory at this moment."""
        with self._lock:
            return list(directory.children.values())

    def parent_of(self, path: str) -> Entry | None:
        """Return the entry that would hold a path, or `None`."""
        return self.find("/".join(split_path(path)[:-1]))

    # ---- changing
    def _link(self, parent: Entry, entry: Entry) -> None:
        if len(entry.name.encode()) > 255:
            raise NamespaceError("Name too long")
        entry.parent, entry.is_removed = parent, False
        parent.children[entry.name] = entry
        parent.mtime = now_ms()
        self._by_id[entry.pnfsid] = entry

    def _parent_for(self, path: str) -> tuple[Entry, str]:
        names = split_path(path)
        if not names:
            raise EntryExistsError("File exists")
        parent = self.find("/".join(names[:-1]))
        if parent is None:
            raise EntryMissingError("No such file or directory: /" + "/".join(names[:-1]))
        if not parent.is_directory:
            raise NotADirectoryEntryError("Not a directory: " + parent.path)
        return parent, names[-1]

    def _add(self, path: str, entry: Entry) -> Entry:
        with self._lock:
            parent, entry.name = self._parent_for(path)
            if entry.name in parent.children:
                raise EntryExistsError("File exists")
            entry.access_latency, entry.retention_policy = parent.access_latency, parent.retention_policy
            self._link(parent, entry)
        self.tell("create", entry)
        return entry

    def mkdir(self, path: str, uid: int, gid: int, mode: int = 0o755) -> Entry:
        """Make one directory; its storage class comes from its parent.

        Raises
        ------
        EntryExistsError
            Raised if the name is taken: of two racing callers one gets this.
        EntryMissingError, NotADirectoryEntryError
            Raised if there is no directory to make it in.
        """
        return self._add(path, Entry("", True, uid, gid, mode))

    def make_parents(self, path: str, uid: int, gid: int, mode: int = 0o755) -> None:
        """Make the directories above a path that are missing."""
        names = split_path(path)[:-1]
        for depth in range(1, len(names) + 1):
            if self.find("/".join(names[:depth])) is None:
                try:
                    self.mkdir("/" + "/".join(names[:depth]), uid, gid, mode)
                except EntryExistsError:  # somebody else was faster
                    continue

    def create(self, path: str, uid: int, gid: int, mode: int = 0o644) -> Entry:
        """Make a file entry without size; raises as `mkdir` does."""
        return self._add(path, Entry("", False, uid, gid, mode))

    def remove(self, entry: Entry) -> None:
        """Unlink one entry.

        Raises
        ------
        EntryMissingError
            Raised if it is gone already.
        NamespaceError
            Raised for a directory that is not empty, and for the root.
        """
        with self._lock:
            path, parent = entry.path, entry.parent
            if entry.is_removed:
                raise EntryMissingError(f"No such file or directory: {entry.pnfsid}")
            if parent is None:
                raise NamespaceError("Cannot remove the root")
            if entry.children:
                raise NamespaceError(f"Directory is not empty: {path}")
            self._unlink(entry)
        self.tell("delete", entry, path)

    def _unlink(self, entry: Entry) -> None:
        parent = entry.parent
        if parent is not None:
            del parent.children[entry.name]
            parent.mtime = now_ms()
        entry.is_removed = True
        self._by_id.pop(entry.pnfsid, None)
        if entry.content is not None:  # readers hold it open: unlinking does not disturb them
            entry.content.remove()

    def rename(self, entry: Entry, path: str, *, overwrite: bool) -> bool:
        """Give an entry another name, in one step.

        Parameters
        ----------
        entry : `Entry`
            What is renamed.
        path : `str`
            The new path.
        overwrite : `bool`
            Whether a file, or an empty directory, at the new path is replaced.

        Returns
        -------
        replaced : `bool`
            Whether something was replaced.

        Raises
        ------
        EntryExistsError
            Raised if the new name is taken and may not be replaced.
        EntryMissingError, NotADirectoryEntryError
            Raised if the entry is gone or there is no directory at the target.
        NamespaceError
            Raised if a directory would move into itself.
        """
        with self._lock:
            if entry.is_removed:
                raise EntryMissingError(f"No such file or directory: {entry.pnfsid}")
            parent, name = self._parent_for(path)
            old_parent, old_path = entry.parent, entry.path
            if old_parent is None:
                raise NamespaceError("Cannot move the root")
            at: Entry | None = parent
            while at is not None:
                if at is entry:
                    raise NamespaceError("Cannot move directory into itself.")
                at = at.parent
            target = parent.children.get(name)
            if target is entry:
                return False
            if target is not None:
                if not overwrite or target.children or target.is_directory != entry.is_directory:
                    raise EntryExistsError("File exists")
                self._unlink(target)
            if len(name.encode()) > 255:
                raise NamespaceError("Name too long")
            del old_parent.children[entry.name]
            old_parent.mtime = now_ms()
            entry.name = name
            self._link(parent, entry)
        if target is not None:
            self.tell("delete", target, entry.path)
        self.tell("move", entry, old_path=old_path)
        return target is not None

    def commit(
        self, entry: Entry, size: int | None, checksums: dict[str, str], pool: str, *, broken: bool = False
    ) -> None:
        """Record the end of an upload: size, checksums and location in one update.

        Raises
        ------
        EntryMissingError
            Raised if the entry was removed or replaced meanwhile: nothing of the upload remains.
        """
        with self._lock:
            if entry.is_removed:
                if entry.content is not None:
                    entry.content.remove()
                raise EntryMissingError(f"No such file or directory: {entry.pnfsid}")
            entry.size, entry.broken = size, broken
            entry.checksums = {**entry.checksums, **checksums}
            if size is not None:
                entry.locations = [pool]
        self.tell("written", entry)

    def content_of(self, entry: Entry) -> Content:
        """Return what holds (or will hold) the bytes of an entry."""
        if entry.content is None:
            limit = _MEMORY_LIMIT if self._folder is None else 0
            entry.content = Content(self.contents / entry.pnfsid, limit)
        return entry.content
