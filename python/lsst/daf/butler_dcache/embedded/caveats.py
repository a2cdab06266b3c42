"""Caveats of macaroons: how each narrows what its holder may do.

dCache walks them from first to last (protocol page, section 6.5, ``MacaroonContext``): paths concatenate, the
earliest ``before`` wins, an activity set must be a subset of the one before it. The texts of the errors are
dCache's, since clients see them as reason phrases.
"""

import dataclasses
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

__all__ = [
    "Activity",
    "BadCaveatError",
    "BrokenContextError",
    "MacaroonContext",
    "format_instant",
    "is_below",
    "narrow_all",
    "normal_path",
    "parse_instant",
    "split_caveat",
]

CAVEAT_KEYS = ("iid", "id", "before", "root", "home", "path", "activity", "ip", "max-upload")


class Activity(StrEnum):
    """What a macaroon can allow, in the order in which dCache writes them."""

    LIST = "LIST"
    DOWNLOAD = "DOWNLOAD"
    MANAGE = "MANAGE"
    UPLOAD = "UPLOAD"
    DELETE = "DELETE"
    READ_METADATA = "READ_METADATA"
    UPDATE_METADATA = "UPDATE_METADATA"
    STAGE = "STAGE"


class BadCaveatError(Exception):
    """A caveat that dCache refuses, with its words."""


class BrokenContextError(Exception):
    """Caveats so odd that dCache's login itself fails: the client learns no cause."""


@dataclass(frozen=True)
class MacaroonContext:
    """Who a macaroon stands for and how far it reaches.

    Parameters
    ----------
    uid : `int`
        User id.
    gids : `tuple` [`int`, ...]
        Group ids, the primary one first.
    username : `str`
        Name of the account.
    root : `str`, optional
        Directory that the holder sees as ``/``.
    home : `str`, optional
        Home directory below the root.
    path : `str` or `None`, optional
        What may be used, below the root; `None` is everything.
    activities : `frozenset` [`Activity`] or `None`, optional
        What may be done; `None` is everything.
    max_upload : `int` or `None`, optional
        Largest upload in bytes.
    expires : `float` or `None`, optional
        End of life in seconds since the epoch.
    """

    uid: int
    gids: tuple[int, ...]
    username: str
    root: str = "/"
    home: str = "/"
    path: str | None = None
    activities: frozenset[Activity] | None = None
    max_upload: int | None = None
    expires: float | None = None


def split_caveat(caveat: str) -> tuple[str, str]:
    """Cut a caveat at its first colon.

    Parameters
    ----------
    caveat : `str`
        The whole caveat.

    Returns
    -------
    key, value : `str`
        Its two halves.

    Raises
    ------
    BadCaveatError
        If there is no colon or dCache does not know the key.
    """
    key, colon, value = caveat.partition(":")
    if not colon:
        raise BadCaveatError("Missing ':'")
    if key not in CAVEAT_KEYS:
        raise BadCaveatError(f"Unknown caveat {key}")
    return key, value


def narrow_all(caveats: list[str], client: str, now: float) -> MacaroonContext:
    """Read all caveats of a macaroon in order.

    Parameters
    ----------
    caveats : `list` [`str`]
        The caveats as they stand in the macaroon.
    client : `str`
        Address of the TCP peer.
    now : `float`
        Seconds since the epoch.

    Returns
    -------
    context : `MacaroonContext`
        What is left of everything.

    Raises
    ------
    BadCaveatError
        If a caveat is unknown, malformed, not met or wider than what came
        before it.
    BrokenContextError
        If there is no identity, or more than one.
    """
    seen: set[str] = set()
    identity: tuple[int, tuple[int, ...], str] | None = None
    context = MacaroonContext(-1, (), "")
    for caveat in caveats:
        try:
            key, value = split_caveat(caveat)
        except BadCaveatError as exc:
            # Both of dCache's verifiers, of the context and of the address, read it and complain.
            raise BadCaveatError(f"{exc} and {exc}: {caveat}") from None
        if key == "ip":
            _check_address(value, client)
        elif key == "iid":
            if key in seen:
                raise BadCaveatError(f"Multiple iid: {caveat}")
        elif key == "id":
            if identity is not None:
                raise BrokenContextError
            identity = _identity(value)
        else:
            try:
                context = _narrow(context, key, value, now)
            except BadCaveatError as exc:
                raise BadCaveatError(f"{exc}: {caveat}") from None
        seen.add(key)
    if identity is None:
        raise BrokenContextError
    activities = context.activities
    if activities:
        activities |= {Activity.READ_METADATA}
    uid, gids, username = identity
    return dataclasses.replace(context, uid=uid, gids=gids, username=username, activities=activities)


def _narrow(context: MacaroonContext, key: str, value: str, now: float) -> MacaroonContext:
    if key == "before":
        try:
            expires = parse_instant(value)
        except ValueError as exc:
            raise BadCaveatError(f"Bad before value: {exc}") from None
        if expires < now:
            raise BadCaveatError("expired")
        return dataclasses.replace(context, expires=min(expires, context.expires or expires))
    if key == "activity":
        return dataclasses.replace(context, activities=_activities(context.activities, value))
    if key == "max-upload":
        if not value.isdecimal():
            raise BadCaveatError(f'For input string: "{value}"')
        if int(value) == 0:
            raise BadCaveatError("max-upload must be a positive value")
        return dataclasses.replace(context, max_upload=min(int(value), context.max_upload or int(value)))
    if key == "path":
        return dataclasses.replace(context, path=_join(context.path or "/", value))
    if key == "home":
        return dataclasses.replace(context, home=normal_path(value))
    return _change_root(context, normal_path(value))


def _change_root(context: MacaroonContext, root: str) -> MacaroonContext:
    path, home = context.path, context.home
    if path is not None:
        if is_below(root, path):
            path = None
        elif is_below(path, root):
            path = _strip(path, root)
        else:
            raise BadCaveatError("root extends outside of path")
    home = _strip(home, root) if is_below(home, root) else "/"
    return dataclasses.replace(context, root=_join(context.root, root), home=home, path=path)


def _activities(current: frozenset[Activity] | None, value: str) -> frozenset[Activity]:
    wanted = set()
    for name in value.split(","):
        if name not in Activity.__members__:
            kind = "org.dcache.auth.attributes.Activity"
            raise BadCaveatError(f"Bad activity value: No enum constant {kind}.{name}")
        wanted.add(Activity[name])
    if current is not None and not wanted <= current:
        raise BadCaveatError("attempt to enlarge activity set")
    return frozenset(wanted)


def _check_address(value: str, client: str) -> None:
    try:
        networks = [ipaddress.ip_network(item.strip(), strict=False) for item in value.split(",")]
    except ValueError:
        raise BadCaveatError(f"Invalid subnets: [{value}]") from None
    address = ipaddress.ip_address(client.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if not any((mapped or address) in network for network in networks):
        raise BadCaveatError(f"Client fails to match IP caveat ip:{value}")


def _identity(value: str) -> tuple[int, tuple[int, ...], str]:
    uid, _, rest = value.partition(";")
    gids, _, username = rest.partition(";")
    try:
        return int(uid), tuple(int(gid) for gid in gids.split(",")), username
    except ValueError:
        raise BrokenContextError from None


def normal_path(path: str) -> str:
    """Resolve dots and doubled slashes of a path; nothing leads above ``/``.

    Parameters
    ----------
    path : `str`
        With or without its leading slash.

    Returns
    -------
    path : `str`
        Absolute, without trailing slash.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _join(base: str, path: str) -> str:
    """A path below a base that it cannot leave, whatever its dots."""
    return normal_path(base + normal_path(path))


def is_below(path: str, base: str) -> bool:
    """Tell whether a normal path is a directory or lies inside it.

    Parameters
    ----------
    path, base : `str`
        Normal paths.

    Returns
    -------
    below : `bool`
        `True` also for the directory itself.
    """
    return base == "/" or path == base or path.startswith(base + "/")


def _strip(path: str, base: str) -> str:
    return path if base == "/" else path[len(base) :] or "/"


def format_instant(seconds: float) -> str:
    """Write a moment as Java's ``Instant`` does.

    Parameters
    ----------
    seconds : `float`
        Since the epoch.

    Returns
    -------
    text : `str`
        In UTC, with milliseconds.
    """
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def parse_instant(instant: str) -> float:
    """Read a moment with its time zone.

    Parameters
    ----------
    instant : `str`
        ISO 8601, ``Z`` or an offset.

    Returns
    -------
    seconds : `float`
        Since the epoch.

    Raises
    ------
    ValueError
        If it is no moment or has no zone.
    """
    when = datetime.fromisoformat(instant)
    if when.tzinfo is None:
        raise ValueError(f"Text '{instant}' could not be parsed: no time zone")
    return when.timestamp()
