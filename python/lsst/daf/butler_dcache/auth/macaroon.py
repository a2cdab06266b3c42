"""Macaroons: read them, and narrow them without asking anybody.

Theory of operation
-------------------
A macaroon (libmacaroons v1) is a sequence of packets, four hexadecimal digits of length, a key, a blank,
a value and a line feed: ``location``, ``identifier``, one ``cid`` per caveat, ``signature``; all of it in
base64 for URLs without padding (protocol page, section 6.7). The signature is a chain, each link the
HMAC-SHA256 of a caveat under the signature before it. Whoever holds a macaroon can therefore append a caveat,
and nobody can take one away.

A caveat that the issuer does not accept makes the whole macaroon invalid, at its use and with a 401 that
counts towards the block of the host (sections 1.2 and 6.5). What the issuer would refuse is therefore refused
here, before it is made; what the caveats mean is the business of `.caveats`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from ..errors import DcacheError, hides_locals
from .caveats import Activity, Dialect, Scope, in_words, normal_path, scope_of

__all__ = ("Activity", "Dialect", "Macaroon", "MacaroonAttenuationError", "NotAMacaroonError", "Scope")

_MAX_TOKEN_LENGTH = 64 * 1024
_MAX_CAVEATS = 1024
# Request line and headers together may have 8 KiB at a door (protocol page, section 1.1).
_MAX_USABLE_LENGTH = 7 * 1024
_NOT_FOR_HOLDERS = frozenset({"iid", "id", "name"})
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class NotAMacaroonError(DcacheError, ValueError):
    """A token is no macaroon of this serialisation."""


class MacaroonAttenuationError(DcacheError, ValueError):
    """A caveat would make the macaroon invalid at its use."""


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
    @hides_locals
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

    @cached_property
    def dialect(self) -> Dialect:
        """Whose macaroon it is: XRootD names its own by UUIDs, dCache by 8 characters."""
        if any(caveat.startswith("iid:") for caveat in self.caveats):
            return Dialect.DCACHE
        if _UUID.fullmatch(self.identifier) or any(caveat.startswith("name:") for caveat in self.caveats):
            return Dialect.XROOTD
        return Dialect.DCACHE

    @cached_property
    def scope(self) -> Scope:
        """How far it reaches, and why the issuer would refuse it, if it would."""
        return scope_of(self.caveats, self.dialect)

    @property
    def activities(self) -> frozenset[Activity]:
        """What is allowed; everything where no caveat says otherwise.

        A set that is not empty includes READ_METADATA, as the issuer adds it at the end. Words that this
        package does not know are left out.
        """
        return self.scope.activities

    @property
    def expires(self) -> datetime | None:
        """End of life, the earliest of all ``before`` caveats; `None` if there is none that can be read."""
        return self.scope.expires

    def describe(self) -> dict[str, object]:
        """Return what can be told of it without the key of its issuer, and without giving it away.

        Returns
        -------
        description : `dict`
            Plain values that fit into JSON: ``location``, ``identifier``, ``issuer``, ``caveats`` with their
            meaning, effective ``path``, ``root``, ``home``, ``activities``, ``expires``, ``expired``,
            ``max_upload_bytes``, ``addresses``, and the ``problems`` for which the issuer refuses it.
        """
        scope = self.scope
        expires = scope.expires
        return {
            "location": self.location,
            "identifier": self.identifier.decode("latin-1"),
            "issuer": self.dialect.value,
            "identity": scope.identity,
            "path": scope.path,
            "root": scope.root,
            "home": scope.home,
            "activities": [activity.value for activity in Activity if activity in scope.activities],
            "expires": None if expires is None else expires.isoformat().replace("+00:00", "Z"),
            "expired": expires is not None and expires <= datetime.now(UTC),
            "max_upload_bytes": scope.max_upload_bytes,
            "addresses": list(scope.addresses),
            "problems": list(scope.problems),
            "caveats": [
                {"caveat": caveat, "meaning": in_words(caveat, self.dialect)} for caveat in self.caveats
            ],
        }

    @hides_locals
    def attenuate(self, *caveats: str) -> str:
        """Return a narrower token; no server is asked.

        Parameters
        ----------
        *caveats : `str`
            ``activity:DOWNLOAD,LIST``, ``path:/below/the/current/one``, ``before:2026-01-01T00:00:00Z``, and
            for dCache ``ip:192.0.2.0/24``, ``max-upload:1000000``, ``root:/directory`` and
            ``home:/directory``.

        Returns
        -------
        token : `str`
            The serialised macaroon.

        Raises
        ------
        MacaroonAttenuationError
            If the issuer would refuse the result at its use: a wider activity, an unknown or malformed
            caveat, an end that has passed; or if it would allow nothing at all.

        Notes
        -----
        Caveats of others that the issuer will refuse stay where they are; see `Scope.problems`.
        """
        scope, signature = self.scope, self.signature
        if scope.expires is not None and scope.expires <= datetime.now(UTC):
            raise MacaroonAttenuationError(f"the macaroon has ended at {scope.expires.isoformat()}")
        for caveat in caveats:
            scope = _judge(scope, caveat)
            signature = hmac.digest(signature, caveat.encode(), "sha256")
        narrowed = Macaroon(self.location, self.identifier, (*self.caveats, *caveats), signature)
        token = narrowed.serialise()
        if len(token) > _MAX_USABLE_LENGTH or len(narrowed.caveats) > _MAX_CAVEATS:
            raise MacaroonAttenuationError(
                f"the macaroon would be longer ({len(token)} bytes) than what a door takes in a header"
            )
        return token

    @hides_locals
    def narrow(
        self,
        *,
        activities: Collection[Activity] | None = None,
        path: str | None = None,
        before: datetime | None = None,
        addresses: Collection[str] = (),
        max_upload_bytes: int | None = None,
    ) -> str:
        """Return a token for less, said in one's own terms instead of the issuer's.

        Parameters
        ----------
        activities : `~collections.abc.Collection` [`Activity`], optional
            All that is to be allowed; READ_METADATA need not be named.
        path : `str`, optional
            The file or directory to be used, absolute and decoded, as the holder sees it now.
        before : `datetime.datetime`, optional
            End of life, to the second; the macaroon's own end if that is earlier.
        addresses : `~collections.abc.Collection` [`str`], optional
            Addresses and networks of the clients.
        max_upload_bytes : `int`, optional
            Largest file that may be written.

        Returns
        -------
        token : `str`
            The serialised macaroon.

        Raises
        ------
        MacaroonAttenuationError
            If the macaroon does not allow that much itself, or the issuer has no such caveat.
        """
        scope = self.scope
        caveats = []
        if activities is not None and frozenset(activities) != scope.explicit:
            named = frozenset(activities)
            if named - {Activity.READ_METADATA} and Activity.READ_METADATA not in scope.allowed:
                named -= {Activity.READ_METADATA}
            caveats.append("activity:" + ",".join(word.value for word in Activity if word in named))
        if path is not None:
            caveats += self._path_caveat(path)
        if before is not None and (scope.expires is None or before < scope.expires):
            caveats.append(f"before:{before.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
        if addresses:
            caveats.append("ip:" + ",".join(addresses))
        if max_upload_bytes is not None:
            caveats.append(f"max-upload:{max_upload_bytes}")
        return self.attenuate(*caveats)

    def _path_caveat(self, path: str) -> list[str]:
        base = self.scope.path
        if not path.startswith("/"):
            raise MacaroonAttenuationError(f"the path is not absolute: {path!r}")
        if base is None or not self.scope.reaches(path):
            raise MacaroonAttenuationError(f"the macaroon is for {base or 'no path'}, not for {path}")
        # Doubled slashes and ".." would move what is left of the path behind the base.
        path = normal_path(path)
        if self.dialect is Dialect.XROOTD:
            return [f"path:{path}"] if path != base else []
        # dCache: paths concatenate (protocol page, section 6.5).
        relative = path[len(base.rstrip("/")) :] or "/"
        return [f"path:{relative}"] if relative.strip("/") else []

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
        READ_METADATA is added by the issuer whenever anything else is allowed, and naming it where an earlier
        caveat did not name it would enlarge the set: the words are taken from the caveats alone.
        """
        kept = [word.value for word in Activity if word in self.scope.explicit - set(activities)]
        return self.attenuate("activity:" + ",".join(kept))


def _judge(scope: Scope, caveat: str) -> Scope:
    """Return what a caveat leaves, or refuse to append it."""
    key, _, value = caveat.partition(":")
    narrower, problem = scope.with_caveat(caveat)
    if key in _NOT_FOR_HOLDERS:
        problem = "only the issuer writes it"
    elif _NO_TEXT.search(caveat):
        problem = "it holds control characters, or is not text"
    elif len(caveat) > 4096:
        problem = "it is too long"
    elif not problem and key == "before":
        end = narrower.expires
        problem = "the moment has passed" if end is not None and end <= datetime.now(UTC) else ""
    elif not problem and key == "path" and narrower.path is None:
        problem = f"nothing would be left of {scope.path or 'no path'}"
    elif not problem and key == "activity":
        # An error at dCache and without effect at XRootD; it is a mistake in either case.
        extra = sorted(
            word for word in value.split(",") if word not in {activity.value for activity in scope.allowed}
        )
        problem = f"the macaroon does not allow {', '.join(extra)} itself" if extra else ""
    if problem:
        raise MacaroonAttenuationError(f"the caveat {key[:40]!r} would not be accepted: {problem}")
    return narrower


def _read_packets(token: str) -> list[tuple[str, bytes]]:
    if len(token) > _MAX_TOKEN_LENGTH:
        raise NotAMacaroonError(f"the token is longer than {_MAX_TOKEN_LENGTH} characters")
    text = token.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotAMacaroonError("the token is not base64") from None
    packets: list[tuple[str, bytes]] = []
    at = 0
    while at < len(raw):
        digits = raw[at : at + 4]
        length = int(digits, 16) if len(digits) == 4 and _HEXADECIMAL.issuperset(digits) else 0
        key, blank, value = raw[at + 4 : at + length].partition(b" ")
        if length < 6 or at + length > len(raw) or not blank or not value.endswith(b"\n"):
            raise NotAMacaroonError("the token does not consist of macaroon packets")
        if len(packets) > _MAX_CAVEATS + 2:
            raise NotAMacaroonError(f"the token holds more than {_MAX_CAVEATS} caveats")
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
