"""What the namespace knows about one file or directory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .content import Content

__all__ = ["Entry", "new_pnfsid", "now_ms"]


def new_pnfsid() -> str:
    """Return a fresh PNFSID: 36 upper-case hex digits."""
    return "0000" + uuid.uuid4().hex.upper()


def now_ms() -> int:
    """Return the time in milliseconds since the epoch, the namespace's resolution."""
    return time.time_ns() // 1_000_000


@dataclass(eq=False)
class Entry:
    """A file or directory.

    Parameters
    ----------
    name : `str`
        Last component of its path.
    is_directory : `bool`
        Whether it is a directory.
    uid, gid, mode : `int`
        Owner, group and permission bits.
    parent : `Entry` or `None`
        The directory that holds it; `None` for the root and for what was removed.
    pnfsid : `str`
        Identity: new on every overwrite, kept by renames.
    size : `int` or `None`
        Size in bytes; `None` until an upload ends.
    checksums : `dict` [`str`, `str`]
        Lower-case hex by type: ``adler32``, ``md5``, ``sha``, ``sha-256``, ``sha-512``.
    broken : `bool`
        Whether the only replica is marked broken: everything looks well, only reading fails (protocol page,
        section 3.8).
    locations : `list` [`str`]
        Names of the disk pools that have a replica.
    on_tape : `bool`
        Whether there is a copy on tape.
    is_lost : `bool`
        Whether it shows as LOST, which the releases imitated define and do not use.
    needs_copy : `bool`
        Whether its disk copies are all on pools that no client may read from, so that it is NEARLINE until
        one is made on another.
    content : `Content` or `None`
        The bytes, once there are some.
    """

    name: str
    is_directory: bool
    uid: int
    gid: int
    mode: int
    parent: Entry | None = None
    pnfsid: str = field(default_factory=new_pnfsid)
    size: int | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    broken: bool = False
    locations: list[str] = field(default_factory=list)
    on_tape: bool = False
    is_lost: bool = False
    needs_copy: bool = False
    content: Content | None = None
    created: int = field(default_factory=now_ms)
    mtime: int = field(default_factory=now_ms)
    atime: int = field(default_factory=now_ms)
    xattrs: dict[str, str] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    access_latency: str = "ONLINE"
    retention_policy: str = "REPLICA"
    is_listable: bool = True
    tape_uri: str = ""
    children: dict[str, Entry] = field(default_factory=dict)
    is_removed: bool = False

    @property
    def path(self) -> str:
        """The absolute path in the namespace."""
        names: list[str] = []
        at: Entry | None = self
        while at is not None and at.parent is not None:
            names.append(at.name)
            at = at.parent
        return "/" + "/".join(reversed(names))

    @property
    def etag(self) -> str:
        """The entity tag: identity and Java's hash of the modification time (protocol page, section 1.9)."""
        hashed = (self.mtime ^ (self.mtime >> 32)) & 0xFFFFFFFF
        return f'"{self.pnfsid}_{hashed - (1 << 32) if hashed >> 31 else hashed}"'

    def locality_with(self, pools: Collection[str]) -> str:
        """Return where the bytes are, in dCache's words (protocol page, section 8.4).

        Parameters
        ----------
        pools : `~collections.abc.Collection` [`str`]
            Names of those that are in service.
        """
        if self.is_directory or self.size is None:
            return "NONE"
        if self.is_lost:
            return "LOST"
        if self.needs_copy:
            return "NEARLINE"
        if any(name in pools for name in self.locations):
            return "ONLINE_AND_NEARLINE" if self.on_tape else "ONLINE"
        return "NEARLINE" if self.on_tape else "UNAVAILABLE"

    def permits(self, uid: int, gids: tuple[int, ...], right: int) -> bool:
        """Whether the mode bits grant a right (4 read, 2 write, 1 enter)."""
        if uid == 0:
            return True
        shift = 6 if uid == self.uid else 3 if self.gid in gids else 0
        return (self.mode >> shift) & right == right

    def walk(self) -> Iterator[Entry]:
        """Yield this entry and everything below it, parents first."""
        yield self
        for child in list(self.children.values()):
            yield from child.walk()

    def as_document(self) -> dict[str, Any]:
        """Return what must be kept to make this entry again, as JSON knows it."""
        document = {name: getattr(self, name) for name in _KEPT}
        document["labels"] = sorted(self.labels)
        document["content"] = self.content.name if self.content else None
        document["children"] = [child.as_document() for child in self.children.values()]
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any], contents: Path, parent: Entry | None = None) -> Entry:
        """Make an entry (and all below it) from what `as_document` gave."""
        entry = cls(**{name: document[name] for name in _KEPT}, parent=parent)
        entry.labels = set(document["labels"])
        entry.content = Content(contents / document["content"], 0) if document["content"] else None
        entry.children = {d["name"]: cls.from_document(d, contents, entry) for d in document["children"]}
        return entry


_KEPT = (
    "name",
    "is_directory",
    "uid",
    "gid",
    "mode",
    "pnfsid",
    "size",
    "checksums",
    "broken",
    "locations",
    "on_tape",
    "is_lost",
    "created",
    "mtime",
    "atime",
    "xattrs",
    "access_latency",
    "retention_policy",
    "tape_uri",
)
