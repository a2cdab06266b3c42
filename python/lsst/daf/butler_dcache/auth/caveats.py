"""What the caveats of a macaroon leave of everything, read as the issuer reads them.

Theory of operation
-------------------
dCache walks the caveats from first to last (protocol page, section 6.5): paths concatenate, ``root`` makes a
directory the new ``/`` of what follows, the earliest ``before`` wins, and an ``activity`` must be a subset of
the activities so far, or the whole macaroon is invalid. XRootD (6.2.1, ``XrdMacaroonsAuthz.cc``) judges each
caveat by itself and wants all to hold: paths are absolute, activities intersect, MANAGE holds UPLOAD, and it
knows ``name``, ``path``, ``activity`` and ``before`` only.

Both refuse a macaroon with a caveat that they do not know. Such a caveat may have been added by anybody, so
reading goes on behind it and says what is wrong, while adding one is refused (`..auth.macaroon`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

__all__ = ("Activity", "Dialect", "Scope", "in_words", "normal_path", "scope_of")

# As Java's ISO_OFFSET_DATE_TIME; what else ISO 8601 allows, dCache does not.
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_XROOTD_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_FRACTION = re.compile(r"\.(\d{6})\d+")
_PREFIX_LENGTH = re.compile(r"[^/]+(/\d{1,3})?", re.ASCII)
_LARGEST_LONG = 2**63 - 1


class Activity(Enum):
    """What a macaroon can allow (protocol page, section 6.6)."""

    LIST = "LIST"
    DOWNLOAD = "DOWNLOAD"
    MANAGE = "MANAGE"
    UPLOAD = "UPLOAD"
    DELETE = "DELETE"
    READ_METADATA = "READ_METADATA"
    UPDATE_METADATA = "UPDATE_METADATA"
    STAGE = "STAGE"


class Dialect(Enum):
    """Whose caveats they are."""

    DCACHE = "dCache"
    XROOTD = "XRootD"


@dataclass(frozen=True)
class Scope:
    """How far a macaroon reaches.

    Parameters
    ----------
    dialect : `Dialect`, optional
        Whose rules were applied.
    identity : `str`, optional
        Account that it stands for, as the issuer wrote it.
    root : `str`, optional
        Directory that its holder sees as ``/`` (dCache).
    home : `str` or `None`, optional
        Home directory below the root (dCache).
    path : `str` or `None`, optional
        What may be used, as its holder sees paths; `None` if two paths exclude one another.
    explicit : `frozenset` [`Activity`], optional
        The activities that the caveats name; all where none does.
    expires : `datetime.datetime` or `None`, optional
        End of life, the earliest of all ``before``.
    max_upload_bytes : `int` or `None`, optional
        Largest file that may be written.
    addresses : `tuple` [`str`, ...], optional
        Lists of addresses and networks; the client must be in each list.
    problems : `tuple` [`str`, ...], optional
        Why the issuer will refuse it: caveats that are unknown, malformed, or wider than those before them.
    count : `int`, optional
        How many caveats were read.
    """

    dialect: Dialect = Dialect.DCACHE
    identity: str = ""
    root: str = "/"
    home: str | None = None
    path: str | None = "/"
    explicit: frozenset[Activity] = frozenset(Activity)
    expires: datetime | None = None
    max_upload_bytes: int | None = None
    addresses: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    count: int = 0

    @property
    def activities(self) -> frozenset[Activity]:
        """What is allowed; everything where no caveat says otherwise.

        A set that is not empty includes READ_METADATA, which both issuers add at the end.
        """
        return self.allowed | {Activity.READ_METADATA} if self.explicit else self.explicit

    @property
    def allowed(self) -> frozenset[Activity]:
        """What a further ``activity`` caveat may name."""
        if self.dialect is Dialect.XROOTD and self.explicit:
            implied = {Activity.UPLOAD} if Activity.MANAGE in self.explicit else set()
            return self.explicit | implied | {Activity.READ_METADATA}
        return self.explicit

    def reaches(self, path: str) -> bool:
        """Tell whether a path may be used.

        Parameters
        ----------
        path : `str`
            Absolute and decoded, as the holder sees it.
        """
        return self.path is not None and _is_below(normal_path(path), self.path)

    def with_caveat(self, caveat: str) -> tuple[Scope, str]:
        """Return what a further caveat leaves, and what is wrong with it.

        Parameters
        ----------
        caveat : `str`
            The caveat.

        Returns
        -------
        scope : `Scope`
            What is left.
        problem : `str`
            Why the issuer refuses a macaroon with this caveat; empty if it does not.
        """
        key, colon, value = caveat.partition(":")
        read = _READERS[self.dialect].get(key) if colon else None
        try:
            if read is None:
                known = ", ".join(sorted(_READERS[self.dialect]))
                raise _RefusedError(f"{self.dialect.value} has no such caveat: one of {known}")
            scope, problem = read(self, value), ""
        except _RefusedError as refused:
            scope, problem = refused.scope or self, str(refused)
        return dataclasses.replace(scope, count=self.count + 1), problem


class _RefusedError(Exception):
    """A caveat that the issuer does not accept, and what it may be meant to leave."""

    def __init__(self, reason: str, scope: Scope | None = None) -> None:
        super().__init__(reason)
        self.scope = scope


def scope_of(caveats: tuple[str, ...], dialect: Dialect) -> Scope:
    """Read all caveats of a macaroon in order.

    Parameters
    ----------
    caveats : `tuple` [`str`, ...]
        The caveats.
    dialect : `Dialect`
        Whose they are.

    Returns
    -------
    scope : `Scope`
        What is left of everything; nothing raises, what is wrong stands in ``problems``.
    """
    scope = Scope(dialect)
    problems = []
    for caveat in caveats:
        scope, problem = scope.with_caveat(caveat)
        if problem:
            problems.append(f"{_shown(caveat)}: {problem}")
    return dataclasses.replace(scope, problems=tuple(problems))


def in_words(caveat: str, dialect: Dialect) -> str:
    """Say in a few words what a caveat means.

    Parameters
    ----------
    caveat : `str`
        The caveat.
    dialect : `Dialect`
        Whose it is.

    Returns
    -------
    words : `str`
        One line that can be printed whatever the caveat holds.
    """
    key, colon, value = caveat.partition(":")
    if not colon or key not in _READERS[dialect]:
        return "a condition that is not known here"
    value = _shown(value)
    absolute = dialect is Dialect.XROOTD
    return {
        "iid": f"issued under the number {value}",
        "id": f"stands for the account {value.rpartition(';')[2] or value}",
        "name": f"stands for the account {value}",
        "before": f"ends at {value}",
        "root": f"{value} is seen as /",
        "home": f"the home directory is {value}",
        "path": f"only {value} and below it" if absolute else f"only {value}, below the paths before it",
        "activity": f"only {value.replace(',', ', ')}",
        "ip": f"only from {value.replace(',', ', ')}",
        "max-upload": f"files of at most {value} bytes",
    }[key]


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:500])


# One reader per key. Each returns what is left, or refuses.


def _read_issue_id(scope: Scope, value: str) -> Scope:
    if scope.count:
        raise _RefusedError("it must be the first caveat, once")
    return scope


def _read_id(scope: Scope, value: str) -> Scope:
    if scope.identity:
        raise _RefusedError("there can be one identity only")
    uid, _, rest = value.partition(";")
    gids, _, name = rest.partition(";")
    if not all(number.isascii() and number.isdecimal() for number in (uid, *gids.split(","))):
        raise _RefusedError("expected uid;gid,...;name")
    return dataclasses.replace(scope, identity=name or uid)


def _read_name(scope: Scope, value: str) -> Scope:
    if not value:
        raise _RefusedError("the name is empty")
    return dataclasses.replace(scope, identity=value)


def _read_before(scope: Scope, value: str) -> Scope:
    strict = _XROOTD_INSTANT if scope.dialect is Dialect.XROOTD else _INSTANT
    try:
        # Java writes up to nine digits of a second.
        moment = datetime.fromisoformat(_FRACTION.sub(r".\1", value)).astimezone(UTC)
        fits = strict.fullmatch(value) is not None
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        raise _RefusedError("expected a moment like 2026-01-31T12:00:00Z")
    return dataclasses.replace(scope, expires=min(moment, scope.expires or moment))


def _read_root(scope: Scope, value: str) -> Scope:
    root, path, home = normal_path(value), scope.path, scope.home
    assert path is not None  # paths of dCache concatenate
    if _is_below(root, path):
        path = "/"
    elif _is_below(path, root):
        path = _strip(path, root)
    else:
        raise _RefusedError("the root is outside of the path")
    if home is not None:
        home = _strip(home, root) if _is_below(home, root) else None
    return dataclasses.replace(scope, root=_join(scope.root, root), home=home, path=path)


def _read_home(scope: Scope, value: str) -> Scope:
    if not value:
        raise _RefusedError("the path is empty")
    return dataclasses.replace(scope, home=normal_path(value))


def _read_path(scope: Scope, value: str) -> Scope:
    if not value:
        raise _RefusedError("the path is empty")
    if scope.dialect is Dialect.DCACHE:
        assert scope.path is not None
        return dataclasses.replace(scope, path=_join(scope.path, value))
    path = normal_path(value)
    if not value.startswith("/"):
        raise _RefusedError("the path is not absolute", dataclasses.replace(scope, path=None))
    if scope.path is None or _is_below(scope.path, path):
        return scope
    left = path if _is_below(path, scope.path) else None
    return dataclasses.replace(scope, path=left)


def _read_activity(scope: Scope, value: str) -> Scope:
    words = value.split(",")
    known = frozenset(Activity(word) for word in words if word in Activity.__members__)
    # XRootD's MANAGE holds UPLOAD, so the intersection is one of what they mean, not of the words.
    meant = dataclasses.replace(scope, explicit=known).allowed
    left = dataclasses.replace(scope, explicit=(scope.allowed & meant) if known else known)
    unknown = [word for word in words if word not in Activity.__members__]
    if unknown:
        names = ", ".join(repr(_shown(word)) for word in unknown[:5])
        raise _RefusedError(f"no activity is called {names if any(unknown) else 'nothing'}", left)
    if scope.dialect is Dialect.DCACHE and not known <= scope.explicit:
        extra = ", ".join(sorted(activity.value for activity in known - scope.explicit))
        raise _RefusedError(f"it would enlarge the activity set by {extra}", left)
    return left


def _read_addresses(scope: Scope, value: str) -> Scope:
    try:
        for item in value.split(","):
            if not _PREFIX_LENGTH.fullmatch(item):
                raise ValueError(item)
            ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise _RefusedError("expected addresses or networks like 192.0.2.0/24,2001:db8::1") from None
    return dataclasses.replace(scope, addresses=(*scope.addresses, value))


def _read_size(scope: Scope, value: str) -> Scope:
    if not value.isascii() or not value.isdecimal() or len(value) > 19:
        raise _RefusedError("expected a number of bytes")
    size = int(value)
    if not 0 < size <= _LARGEST_LONG:
        raise _RefusedError("it must be a positive number of bytes")
    return dataclasses.replace(scope, max_upload_bytes=min(size, scope.max_upload_bytes or size))


_BOTH: dict[str, Callable[[Scope, str], Scope]] = {
    "activity": _read_activity,
    "before": _read_before,
    "path": _read_path,
}
_READERS = {
    Dialect.DCACHE: {
        **_BOTH,
        "home": _read_home,
        "id": _read_id,
        "iid": _read_issue_id,
        "ip": _read_addresses,
        "max-upload": _read_size,
        "root": _read_root,
    },
    Dialect.XROOTD: {**_BOTH, "name": _read_name},
}


def normal_path(path: str) -> str:
    """Return an absolute path; nothing leads above ``/``."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _join(base: str, path: str) -> str:
    return normal_path(base + normal_path(path))


def _is_below(path: str, base: str) -> bool:
    return base == "/" or path == base or path.startswith(base + "/")


def _strip(path: str, base: str) -> str:
    return path if base == "/" else path[len(base) :] or "/"
