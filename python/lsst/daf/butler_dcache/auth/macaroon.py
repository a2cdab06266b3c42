"""Macaroons: read them, and narrow them without asking anybody.

Theory of operation
-------------------
A macaroon (libmacaroons v1) is a sequence of packets, four hexadecimal digits of length, a key, a blank,
a value and a line feed: ``location``, ``identifier``, one ``cid`` per caveat, ``signature``; all of it in
base64 for URLs without padding (protocol page, section 6.7). The signature is a chain, each link the
HMAC-SHA256 of a caveat under the signature before it. Whoever holds a macaroon can therefore append a caveat,
and nobody can take one away.

dCache reads the caveats from first to last. Paths concatenate, the earliest ``before`` wins, and an
``activity`` must be a subset of the activities so far: one that is not makes the whole macaroon invalid, at
its use and with a 401 that counts towards the block of the host (sections 1.2 and 6.5). What dCache would
refuse is therefore refused here, before it is made.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from ..errors import DcacheError

__all__ = ("Activity", "Macaroon", "MacaroonAttenuationError", "NotAMacaroonError")

_MAX_TOKEN_LENGTH = 64 * 1024
_FRACTION = re.compile(r"\.(\d{6})\d+")


class NotAMacaroonError(DcacheError, ValueError):
    """A token is no macaroon of this serialisation."""


class MacaroonAttenuationError(DcacheError, ValueError):
    """A caveat would make the macaroon invalid at its use."""


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


@dataclass(frozen=True)
class Macaroon:
    """A macaroon, as read; it is a secret, so its `repr` shows neither token nor signature.

    Parameters
    ----------
    location : `str`
        Whatever the issuer wrote there.
    identifier : `bytes`
        Name of the issuer's key.
    caveats : `tuple` [`str`, ...]
        The caveats in their order.
    signature : `bytes`
        Last link of the chain, 32 bytes.
    """

    location: str
    identifier: bytes
    caveats: tuple[str, ...]
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, token: str) -> Macaroon:
        """Read a serialised macaroon.

        Parameters
        ----------
        token : `str`
            Text in base64, of either alphabet, with or without padding.

        Returns
        -------
        macaroon : `Macaroon`
            Its parts. The signature cannot be checked without the issuer's key.

        Raises
        ------
        NotAMacaroonError
            If the token is something else, or holds a third-party caveat, which no storage system accepts.
        """
        packets = _read_packets(token)
        keys = [key for key, _ in packets]
        middle = keys[2:-1]
        if keys[:2] != ["location", "identifier"] or keys[-1] != "signature" or set(middle) - {"cid"}:
            raise NotAMacaroonError("the packets of the token are not those of a macaroon")
        signature = packets[-1][1]
        if len(signature) != 32:
            raise NotAMacaroonError("the signature of the macaroon has not 32 bytes")
        try:
            location = packets[0][1].decode()
            caveats = tuple(value.decode() for _, value in packets[2:-1])
        except UnicodeDecodeError:
            raise NotAMacaroonError("a caveat of the macaroon is not text") from None
        return cls(location, packets[1][1], caveats, signature)

    def serialise(self) -> str:
        """Return the token, in base64 for URLs without padding."""
        packets = [("location", self.location.encode()), ("identifier", self.identifier)]
        packets += [("cid", caveat.encode()) for caveat in self.caveats]
        packets.append(("signature", self.signature))
        raw = b"".join(_write_packet(key, value) for key, value in packets)
        return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")

    @property
    def activities(self) -> frozenset[Activity]:
        """What is allowed; everything where no caveat says otherwise.

        A set that is not empty includes READ_METADATA, as dCache adds it at the end. Words that this package
        does not know are left out.
        """
        explicit = self._explicit_activities()
        return explicit | {Activity.READ_METADATA} if explicit else explicit

    @property
    def expires(self) -> datetime | None:
        """End of life, the earliest of all ``before`` caveats; `None` if there is none that can be read."""
        moments = []
        for caveat in self.caveats:
            key, _, value = caveat.partition(":")
            if key == "before":
                try:
                    moments.append(_parse_instant(value))
                except ValueError:
                    continue
        return min(moments, default=None)

    def attenuate(self, *caveats: str) -> str:
        """Return a narrower token; no server is asked.

        Parameters
        ----------
        *caveats : `str`
            ``activity:DOWNLOAD,LIST``, ``path:/below/the/current/one``, ``before:2026-01-01T00:00:00Z``,
            ``ip:192.0.2.0/24`` or ``max-upload:1000000``, in this order of importance to the reader and of no
            importance to the server.

        Returns
        -------
        token : `str`
            The serialised macaroon.

        Raises
        ------
        MacaroonAttenuationError
            If the result would be refused at its use: a wider activity, an unknown or malformed caveat, an
            end that has passed.
        """
        explicit = self._explicit_activities()
        signature = self.signature
        for caveat in caveats:
            key, colon, value = caveat.partition(":")
            judge = _JUDGES.get(key) if colon else None
            if judge is None:
                raise MacaroonAttenuationError(f"unknown caveat {key!r}: one of {', '.join(sorted(_JUDGES))}")
            try:
                explicit = judge(value, explicit)
                caveat.encode("ascii" if key != "path" else "utf-8")
            except ValueError as exc:
                raise MacaroonAttenuationError(f"caveat {key!r} would not be accepted: {exc}") from None
            if len(caveat.encode()) > 4096 or any(ord(c) < 0x20 for c in caveat):
                raise MacaroonAttenuationError(f"caveat {key!r} is too long or holds control characters")
            signature = hmac.digest(signature, caveat.encode(), "sha256")
        narrowed = Macaroon(self.location, self.identifier, (*self.caveats, *caveats), signature)
        return narrowed.serialise()

    def without(self, *activities: Activity) -> str:
        """Return a token that lacks some activities; without DELETE it can create but not replace.

        Parameters
        ----------
        *activities : `Activity`
            What to give up; what the macaroon lacks already is not an error.

        Returns
        -------
        token : `str`
            The serialised macaroon.

        Raises
        ------
        MacaroonAttenuationError
            If nothing would be left.

        Notes
        -----
        READ_METADATA is added by dCache whenever anything else is allowed, and naming it where an earlier
        caveat did not name it would enlarge the set: the words are taken from the last caveat alone.
        """
        explicit = self._explicit_activities()
        kept = [activity.value for activity in Activity if activity in explicit - set(activities)]
        return self.attenuate("activity:" + ",".join(kept))

    def _explicit_activities(self) -> frozenset[Activity]:
        allowed = frozenset(Activity)
        for caveat in self.caveats:
            key, _, value = caveat.partition(":")
            if key == "activity":
                allowed &= {Activity(word) for word in value.split(",") if word in Activity.__members__}
        return allowed


def _judge_activity(value: str, allowed: frozenset[Activity]) -> frozenset[Activity]:
    words = value.split(",") if value else []
    unknown = [word for word in words if word not in Activity.__members__]
    if unknown or not words:
        raise ValueError(f"no activity is called {', '.join(map(repr, unknown)) or 'nothing'}")
    asked = frozenset(Activity(word) for word in words)
    if not asked <= allowed:
        extra = ", ".join(sorted(activity.value for activity in asked - allowed))
        raise ValueError(f"attempt to enlarge the activity set by {extra}")
    return asked


def _judge_before(value: str, allowed: frozenset[Activity]) -> frozenset[Activity]:
    if _parse_instant(value) <= datetime.now(UTC):
        raise ValueError("the moment has passed")
    return allowed


def _judge_path(value: str, allowed: frozenset[Activity]) -> frozenset[Activity]:
    if not value:
        raise ValueError("the path is empty")
    return allowed


def _judge_address(value: str, allowed: frozenset[Activity]) -> frozenset[Activity]:
    for item in value.split(","):
        ipaddress.ip_network(item, strict=False)
    return allowed


def _judge_size(value: str, allowed: frozenset[Activity]) -> frozenset[Activity]:
    if not value.isascii() or not value.isdecimal() or int(value) == 0:
        raise ValueError("it must be a positive number of bytes")
    return allowed


_JUDGES: dict[str, Callable[[str, frozenset[Activity]], frozenset[Activity]]] = {
    "activity": _judge_activity,
    "before": _judge_before,
    "ip": _judge_address,
    "max-upload": _judge_size,
    "path": _judge_path,
}


def _parse_instant(value: str) -> datetime:
    """Read an ISO 8601 moment with its zone; Java writes up to nine digits of a second."""
    moment = datetime.fromisoformat(_FRACTION.sub(r".\1", value))
    if moment.tzinfo is None:
        raise ValueError("the moment has no time zone")
    return moment


def _read_packets(token: str) -> list[tuple[str, bytes]]:
    if len(token) > _MAX_TOKEN_LENGTH:
        raise NotAMacaroonError(f"the token is longer than {_MAX_TOKEN_LENGTH} characters")
    text = token.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotAMacaroonError("the token is not base64") from None
    packets = []
    at = 0
    while at < len(raw):
        digits = raw[at : at + 4]
        try:
            length = int(digits, 16) if digits.isalnum() and len(digits) == 4 else 0
        except ValueError:
            length = 0
        key, blank, value = raw[at + 4 : at + length].partition(b" ")
        if length < 6 or at + length > len(raw) or not blank or not value.endswith(b"\n"):
            raise NotAMacaroonError("the token does not consist of macaroon packets")
        packets.append((key.decode("latin-1"), value[:-1]))
        at += length
    if len(packets) < 3:
        raise NotAMacaroonError("the token ends before the signature of a macaroon")
    return packets


def _write_packet(key: str, value: bytes) -> bytes:
    line = key.encode() + b" " + value + b"\n"
    if len(line) + 4 > 0xFFFF:
        raise MacaroonAttenuationError(f"the packet {key!r} is too long")
    return b"%04x" % (len(line) + 4) + line
