"""The WebDAV door: what happens to a request before and after its method is looked at (protocol page, section
1).

The order is that of dCache's handlers: rate limiter, CORS, ``.well-known``, login, macaroon requests, then
the method itself. What is answered earlier needs no login, and a request that the limiter turns away has had
no effect.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from .access import NOBODY, LoginRefusedError, PermissionDeniedError
from .answers import DoorRefusalError, answer_refusal, refuse_login
from .door_read import DoorReading
from .door_tree import DoorTree
from .door_write import DoorWriting
from .exchange import Exchange
from .limiter import RateLimiter
from .macaroons import BadMacaroonRequestError
from .namespace import NamespaceError
from .propfind import PropertyHandler
from .wire import Handler, Listener

if TYPE_CHECKING:
    from .site import Site

__all__ = ["Door", "limited"]

_UNSUPPORTED = frozenset(
    {
        "POST",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "ACL",
        "SEARCH",
        "TRACE",
        "CONNECT",
        "MKCALENDAR",
        "VERSION-CONTROL",
        "CHECKOUT",
        "CHECKIN",
        "UNCHECKOUT",
        "MKWORKSPACE",
        "UPDATE",
        "LABEL",
        "MERGE",
        "BASELINE-CONTROL",
        "MKACTIVITY",
        "ORDERPATCH",
        "COPY",
    }
)
_MACAROON_REQUEST = "application/macaroon-request"


_PATIENCE = 0.060
"""Seconds that a request of a warm client may wait for its permit. A real door on two cores is not ready for
250 requests a second that need a login (protocol page, surprise 25): it is late where we would refuse. A cold
client, a crowd and cheap requests are refused as there."""


def limited(site: Site, limiter: RateLimiter, handler: Handler) -> Handler:
    """Return a handler that puts the rate limiter in front of another one, and counts its 401s."""

    def handle(exchange: Exchange) -> None:
        if not (site.has_limiter and site.version.limits_rates):
            handler(exchange)
            return
        client = exchange.headers.get("x-forwarded-for").split(",")[0].strip() or exchange.connection.peer
        needs_login = not exchange.path.startswith("/.well-known/")
        wait = limiter.refusal(client)
        patience = _PATIENCE
        while wait is not None and needs_login and patience > 0 and limiter.is_warm(client):
            pause = max(limiter.debt(client), 0.0005)
            site.faults.stopping.wait(pause)
            patience -= pause
            wait = limiter.refusal(client)
        if wait is None:
            # whatever needs a login takes a real door 4 ms and more, so a serial client is never turned away
            if needs_login:
                site.faults.stopping.wait(limiter.debt(client))
            handler(exchange)
            if exchange.record.status == 401:
                limiter.count_unauthorized(client)
            return
        headers = [("Retry-After", str(wait))] if site.version.sends_retry_after else []
        exchange.answer(429, headers, b"Server is busy. Please try again later.")

    return handle


class Door:
    """A WebDAV door.

    Parameters
    ----------
    site : `Site`
        The dCache that it belongs to.
    tls : `ssl.SSLContext` or `None`
        For https; plain http without.
    port : `int`
        Where to listen; 0 is any free port.
    well_known : callable, optional
        Answers requests below ``/.well-known/``, or returns `False`.
    third_party : callable, optional
        Answers COPY requests.
    """

    def __init__(
        self,
        site: Site,
        tls: ssl.SSLContext | None,
        *,
        port: int = 0,
        well_known: Callable[[Exchange], bool] | None = None,
        third_party: Handler | None = None,
    ) -> None:
        self.site = site
        self._well_known = well_known
        self._third_party = third_party
        reading, writing = DoorReading(site), DoorWriting(site)
        tree, properties = DoorTree(site), PropertyHandler(site)
        self._methods: dict[str, Callable[[Exchange], None]] = {
            "GET": reading.get,
            "HEAD": reading.head,
            "PUT": writing.put,
            "DELETE": tree.delete,
            "MKCOL": tree.mkcol,
            "MOVE": tree.move,
            "PROPFIND": properties.propfind,
            "PROPPATCH": properties.proppatch,
            "OPTIONS": self._options,
        }
        self._tls = tls
        self._restarting = threading.Lock()
        self.listener = self._listen(port)

    def _listen(self, port: int) -> Listener:
        site = self.site
        limiter = RateLimiter(time_scale=site.time_scale)
        listener = Listener(
            "door",
            site.faults.around(limited(site, limiter, self._handle)),
            site.transcript,
            ports=(port,),
            tls=self._tls,
            software=site.software,
            idle=300.0 * site.time_scale,
        )
        listener.crash = self.crash
        return listener

    @property
    def port(self) -> int:
        """The port on which the door listens."""
        return self.listener.port

    def stop(self) -> None:
        """Close all connections."""
        self.listener.stop()

    def start(self) -> None:
        """Listen again after a stop, on the same port."""
        self.listener = self._listen(self.port)

    def crash(self, seconds: float = 0.0) -> None:
        """Restart without waiting for anybody, from a thread that answers; a second one at a time is none.

        Parameters
        ----------
        seconds : `float`, optional
            How long nobody listens meanwhile.
        """
        if self._restarting.acquire(blocking=False):
            try:
                self.listener.stop(patience=0.0)
                if not self.site.faults.stopping.wait(seconds):
                    self.listener = self._listen(self.port)
            finally:
                self._restarting.release()

    def _handle(self, exchange: Exchange) -> None:
        site = self.site
        if exchange.expects and exchange.expects.lower() != "100-continue":
            exchange.close = True
            page = b"<h1>Bad Message 417</h1><pre>reason: Expectation Failed</pre>"
            exchange.answer(417, [("Content-Type", "text/html;charset=iso-8859-1")], page, bare=True)
            return
        if exchange.method == "OPTIONS" and site.version.answers_options_itself:
            exchange.answer(200, self._cors(exchange))
            return
        if exchange.path.startswith("/.well-known/") and self._well_known and self._well_known(exchange):
            return
        try:
            exchange.login = site.access.login(exchange)
        except LoginRefusedError as exc:
            refuse_login(exchange, exc)
            return
        if exchange.method == "POST" and exchange.headers.get("content-type") == _MACAROON_REQUEST:
            self._issue_macaroon(exchange)
            return
        try:
            self._dispatch(exchange)
        except PermissionDeniedError:
            answer_refusal(exchange, DoorRefusalError(403))
        except NamespaceError as exc:
            answer_refusal(exchange, DoorRefusalError(500, str(exc)))
        except DoorRefusalError as exc:
            answer_refusal(exchange, exc)

    def _dispatch(self, exchange: Exchange) -> None:
        if exchange.method == "COPY" and self._third_party is not None:
            self._third_party(exchange)
        elif handler := self._methods.get(exchange.method):
            if self.site.faults.take("pnfs_timeout", exchange):
                raise DoorRefusalError(500, "Server is busy (internal timeout)")
            handler(exchange)
        elif exchange.method in _UNSUPPORTED:
            raise DoorRefusalError(501)
        else:  # Milton maps the verb to an enum and fails
            exchange.close = True
            exchange.answer(500, [("Server", self.site.software)], framing="none", bare=True)

    # ---- what no other file is about
    @staticmethod
    def _cors(exchange: Exchange) -> list[tuple[str, str]]:
        origin = exchange.headers.get("origin")
        if not origin or "access-control-request-method" not in exchange.headers:
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE"),
            ("Access-Control-Allow-Headers", "Content-Type, Authorization, Suppress-WWW-Authenticate"),
            ("Access-Control-Allow-Credentials", "true"),
        ]

    def _options(self, exchange: Exchange) -> None:
        entry = self.site.namespace.find(self.site.access.real_path(exchange.login, exchange.path))
        if entry is None:
            raise DoorRefusalError(404)
        allowed = "GET, HEAD, MKCOL, PROPFIND, OPTIONS, PUT, DELETE, MOVE, GET, HEAD, PROPPATCH"
        if not entry.is_directory:
            allowed = "GET, HEAD, PROPFIND, OPTIONS, DELETE, MOVE, PROPPATCH"
        rows = [
            ("Accept-Ranges", "bytes"),
            ("Allow", allowed),
            ("DAV", "1, 2"),
            ("ETag", entry.etag),
        ]
        exchange.answer(200, [*rows, *self._cors(exchange)])

    def _issue_macaroon(self, exchange: Exchange) -> None:
        """Answer a request for a macaroon; the reason phrase tells what is wrong with it."""
        body = exchange.body.read_all()
        if not exchange.secure:
            exchange.answer(400, reason="Not secure transport")
            return
        if exchange.login is NOBODY:
            refuse_login(exchange, LoginRefusedError("login failed"))
            return
        try:
            token = self.site.access.mint.issue(exchange.login, exchange.path, body)
        except BadMacaroonRequestError as exc:
            exchange.answer(400, reason=str(exc))
            return
        base = exchange.base + "/"
        target = exchange.base + quote(exchange.path)
        document = {
            "macaroon": token,
            "uri": {
                "targetWithMacaroon": f"{target}?authz={token}",
                "baseWithMacaroon": f"{base}?authz={token}",
                "target": target,
                "base": base,
            },
        }
        text = json.dumps(document, indent=4).encode()
        exchange.answer(200, [("Content-Type", "application/json")], text)
