"""Macaroons of the embedded dCache: issue, derive, verify.

A macaroon is a list of caveats, ``key:value`` lines, closed by a chain of HMACs (libmacaroons v1 packets,
base64url without padding). Whoever holds one can append a caveat without asking the server, nobody can take
one away. dCache walks the caveats from first to last and lets each narrow a context: paths concatenate, the
earliest ``before`` wins, an activity set must be a subset of the one before it (protocol page, section 6).
The texts of the refusals are dCache's own, since clients see them as reason phrases.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from .caveats import (
    Activity,
    BadCaveatError,
    BrokenContextError,
    MacaroonContext,
    format_instant,
    is_below,
    narrow_all,
    normal_path,
    parse_instant,
    split_caveat,
)
from .duration import format_duration, parse_duration

__all__ = [
    "Activity",
    "BadMacaroonRequestError",
    "LoginCache",
    "MacaroonContext",
    "MacaroonMint",
    "MacaroonRefusedError",
]

_KEY_GENERATOR = b"macaroons-key-generator"


class MacaroonRefusedError(Exception):
    """A token that is not accepted; its text is the reason phrase of the 401."""


class BadMacaroonRequestError(Exception):
    """A request for a macaroon that dCache refuses; its text is the reason phrase of the 400."""


class MacaroonMint:
    """Issues macaroons and verifies those that come back; doors and frontend of one dCache share it.

    Parameters
    ----------
    max_lifetime_seconds : `float`, optional
        No macaroon lives longer (``dcache.macaroons.max-lifetime``).
    default_lifetime_seconds : `float`, optional
        Life of a macaroon whose request names none.
    clock : `~collections.abc.Callable`, optional
        Seconds since the epoch; tests move it.

    Notes
    -----
    Thread-safe. The secret lives as long as this object, so a macaroon of
    another instance is refused.
    """

    def __init__(
        self,
        max_lifetime_seconds: float = 7 * 86400.0,
        default_lifetime_seconds: float = 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_lifetime = max_lifetime_seconds
        self._default_lifetime = default_lifetime_seconds
        self._clock = clock
        secret = secrets.token_bytes(32)
        self._identifier = base64.b64encode(hashlib.sha256(secret).digest()[:6])
        self._key = hmac.digest(_KEY_GENERATOR, secret, "sha256")

    def issue(self, holder: MacaroonContext, target: str, body: bytes) -> str:
        """Answer the body of a macaroon request.

        Parameters
        ----------
        holder : `MacaroonContext`
            The requester; what binds it binds the new macaroon.
        target : `str`
            Decoded path of the request as the requester sees it; ``/`` adds
            no path caveat.
        body : `bytes`
            Empty, or JSON with ``caveats`` and ``validity``.

        Returns
        -------
        token : `str`
            The serialised macaroon.

        Raises
        ------
        BadMacaroonRequestError
            If dCache answers 400 to this request.

        Notes
        -----
        Values of the requested caveats are not judged, apart from ``before``:
        dCache issues a macaroon with a malformed or enlarging one and refuses
        it at use (protocol page, section 6.2).
        """
        asked, validity = _read_request(body)
        expires = self._expiry(holder, asked, validity)
        path = holder.path
        if normal_path(target) != "/":
            path = normal_path(target)
            if holder.path is not None and not is_below(path, holder.path):
                raise BadMacaroonRequestError("Bad request path: Desired path not within existing path")
        caveats = [
            f"iid:{base64.b64encode(secrets.token_bytes(6)).decode()}",
            f"id:{holder.uid};{','.join(map(str, holder.gids))};{holder.username}",
            f"before:{format_instant(expires)}",
        ]
        if holder.root != "/":
            caveats.append(f"root:{holder.root}")
        if holder.home != "/":
            caveats.append(f"home:{holder.home}")
        if path is not None:
            caveats.append(f"path:{path}")
        if holder.max_upload is not None:
            caveats.append(f"max-upload:{holder.max_upload}")
        if holder.activities is not None:
            caveats.append("activity:" + ",".join(a for a in Activity if a in holder.activities))
        caveats += [text for key, text in asked if key != "before"]
        location = "Optional.empty" if path is None else f"Optional[{path}]"
        return _serialise(
            location.encode(), self._identifier, [c.encode() for c in caveats], self._chain(caveats)
        )

    def verify(self, token: str, client: str) -> MacaroonContext:
        """Read a token's caveats and check its signature.

        Parameters
        ----------
        token : `str`
            What came after ``Bearer``.
        client : `str`
            Address of the TCP peer, for ``ip`` caveats.

        Returns
        -------
        context : `MacaroonContext`
            What the token allows.

        Raises
        ------
        MacaroonRefusedError
            If it is no macaroon, tampered with, expired, or a caveat is
            unknown, malformed or wider than the one before it.
        """
        identifier, caveats, signature = _parse(token)
        name = f"[-:{base64.b64encode(signature[:6]).decode()}]"
        if identifier != self._identifier:
            raise MacaroonRefusedError(f"macaroon login denied: Unable to find secret for macaroon {name}")
        try:
            context = narrow_all(caveats, client, self._clock())
        except BrokenContextError:
            raise MacaroonRefusedError("login failed") from None
        except BadCaveatError as exc:
            raise MacaroonRefusedError(f"macaroon login denied: Invalid macaroon {name}: {exc}") from None
        if not hmac.compare_digest(self._chain(caveats), signature):
            raise MacaroonRefusedError(f"macaroon login denied: Invalid macaroon {name}")
        return context

    def _chain(self, caveats: Iterable[str]) -> bytes:
        signature = hmac.digest(self._key, self._identifier, "sha256")
        for caveat in caveats:
            signature = hmac.digest(signature, caveat.encode(), "sha256")
        return signature

    def _expiry(self, holder: MacaroonContext, asked: list[tuple[str, str]], validity: float | None) -> float:
        now = self._clock()
        wanted = [] if validity is None else [now + validity]
        for key, text in asked:
            if key == "before":
                try:
                    wanted.append(parse_instant(text.partition(":")[2]))
                except ValueError as exc:
                    raise BadMacaroonRequestError(f"Bad requested caveat: before: {exc}") from None
        longest = now + self._max_lifetime
        if not wanted:
            return min(now + self._default_lifetime if holder.expires is None else holder.expires, longest)
        expires = min(wanted)
        if expires < now:
            raise BadMacaroonRequestError("Bad requested caveat: before: requested expiry in past")
        if expires > longest:
            limit = format_duration(self._max_lifetime)
            raise BadMacaroonRequestError(
                f"Bad requested caveat: before: requested duration beyond maximum allowed ({limit})"
            )
        if holder.expires is not None and expires > holder.expires:
            raise BadMacaroonRequestError("Bad requested caveat: before: cannot extend session lifetime")
        return expires


class LoginCache:
    """Logins of one server, kept for a while: what was accepted once stays accepted, even past its
    ``before``.

    Parameters
    ----------
    mint : `MacaroonMint`
        Who verifies the others.
    lifetime_seconds : `float`, optional
        How long a login is remembered (``webdav.service.gplazma.cache.*``).
    capacity : `int`, optional
        How many are.
    clock : `~collections.abc.Callable`, optional
        Seconds that only grow.

    Notes
    -----
    A used macaroon was accepted 60 s after its end, an unused one got 401
    (protocol page, section 6.5). Thread-safe.
    """

    def __init__(
        self,
        mint: MacaroonMint,
        lifetime_seconds: float = 600.0,
        capacity: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mint = mint
        self._lifetime = lifetime_seconds
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[float, MacaroonContext]] = OrderedDict()

    def login(self, token: str, client: str) -> MacaroonContext:
        """Verify a token, or remember that it was verified.

        Parameters
        ----------
        token : `str`
            What came after ``Bearer``.
        client : `str`
            Address of the TCP peer.

        Returns
        -------
        context : `MacaroonContext`
            What the token allows.

        Raises
        ------
        MacaroonRefusedError
            If it is refused.
        """
        key, now = (token, client), self._clock()
        with self._lock:
            since, context = self._known.get(key, (now - self._lifetime, None))
            if context is not None and now - since < self._lifetime:
                return context
        context = self._mint.verify(token, client)
        with self._lock:
            self._known[key] = (now, context)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return context


def _read_request(body: bytes) -> tuple[list[tuple[str, str]], float | None]:
    """Caveats as (key, whole text), and the validity in seconds."""
    if not body.strip():
        return [], None
    try:
        document = json.loads(body)
    except ValueError:
        # The text is Gson's; its position is exact where the document merely ends too early.
        rows = body.decode("utf-8", "replace").split("\n")
        where = f"at line {len(rows)} column {len(rows[-1]) + 1} path $."
        raise BadMacaroonRequestError(
            f"Unable to parse JSON: java.io.EOFException: End of input {where}"
        ) from None
    if not isinstance(document, Mapping):
        raise BadMacaroonRequestError(
            "Unable to parse JSON: java.lang.IllegalStateException: Expected BEGIN_OBJECT"
        )
    validity = document.get("validity")
    seconds = None
    if validity is not None:
        try:
            seconds = parse_duration(str(validity))
        except ValueError as exc:
            raise BadMacaroonRequestError(f"Bad validity value: {exc}") from None
    caveats = []
    for text in document.get("caveats") or []:
        try:
            caveats.append((split_caveat(str(text))[0], str(text)))
        except BadCaveatError as exc:
            raise BadMacaroonRequestError(f"Bad requested caveat: {exc}") from None
    return caveats, seconds


def _serialise(location: bytes, identifier: bytes, caveats: list[bytes], signature: bytes) -> str:
    packets = [(b"location", location), (b"identifier", identifier)]
    packets += [(b"cid", caveat) for caveat in caveats] + [(b"signature", signature)]
    raw = b""
    for key, value in packets:
        line = key + b" " + value + b"\n"
        raw += b"%04x" % (len(line) + 4) + line
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _parse(token: str) -> tuple[bytes, list[str], bytes]:
    """Identifier, caveats, signature; what is no macaroon falls through to gPlazma, which refuses it."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        packets: list[tuple[bytes, bytes]] = []
        while raw:
            size = int(raw[:4], 16)
            key, space, value = raw[4:size].partition(b" ")
            if size < 6 or len(raw) < size or not space:
                raise ValueError("malformed packet")
            packets.append((key, value[:-1]))  # the last byte should be a line feed; jmacaroons does not look
            raw = raw[size:]
        keys = [key for key, _ in packets]
        if keys[:2] != [b"location", b"identifier"] or keys[-1] != b"signature" or set(keys[2:-1]) - {b"cid"}:
            raise ValueError("packets out of order")
        return packets[1][1], [value.decode() for _, value in packets[2:-1]], packets[-1][1]
    except (ValueError, IndexError):
        raise MacaroonRefusedError("login failed") from None
