"""The REST frontend: which resource answers what, and how a request is refused (protocol page, section 7).

As on the doors the limiter comes first, then the login; ``.well-known`` is answered before it. Errors are
JSON, except for those of limiter and login.
"""

import json
import re
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from .access import LoginRefusedError, PermissionDeniedError
from .answers import refuse_login
from .bulk import BulkService
from .caveats import normal_path
from .door import limited
from .events import EventHub
from .exchange import Exchange
from .limiter import RateLimiter
from .operations import Operator
from .rest import RestError, answer_json
from .rest_bulk import BulkResource
from .rest_events import EventResource, watch_namespace
from .rest_namespace import NamespaceResource
from .rest_tape import TapeResource
from .site import Site
from .tape import TapeSystem
from .wire import Listener

__all__ = ["Frontend", "answer_tape_discovery"]

_API = "/api/v1"
_UUID = "([0-9a-fA-F-]{36}|none)"
_NAME = "([^/]+)"
_DISCOVERY = "/.well-known/wlcg-tape-rest-api"
_SECURITY = "/.well-known/security.txt"
_STAND_IN = "/.well-known/dcache-butler-stand-in"
"""Not of dCache: by this whoever must not take us for one can tell."""
_TAGS = ["cdmi", "dcache-view", "glue", "srm", "storage-descriptor"]

Resource = Callable[..., None]


def answer_tape_discovery(exchange: Exchange, frontend_url: str) -> bool:
    """Answer what lies below ``/.well-known`` on doors and frontend, without a login.

    Parameters
    ----------
    exchange : `Exchange`
        The request.
    frontend_url : `str`
        Base of the frontend, with or without trailing slash.

    Returns
    -------
    answered : `bool`
        `False` if the path is another, or nothing is known of it.
    """
    if exchange.path == _SECURITY:
        exchange.answer(200, [("Content-Type", "text/plain;charset=utf-8")], b"Contact: about:blank\n")
        return True
    if exchange.path == _STAND_IN:
        exchange.answer(200)
        return True
    if exchange.path != _DISCOVERY:
        return False
    document = {
        "sitename": "dcache-systest",
        "description": "This is the dCache WLCG TAPE REST API endpoint for localhost system tests",
        "endpoints": [{"uri": f"{frontend_url.rstrip('/')}{_API}/tape", "version": "v1", "metadata": {}}],
    }
    kind = ("Content-Type", "application/json;charset=utf-8")
    exchange.answer(200, [kind], json.dumps(document).encode(), framing="chunked")
    return True


class Frontend:
    """The REST frontend of one dCache.

    Parameters
    ----------
    site : `Site`
        What it shares with doors and pools.
    tls : `ssl.SSLContext` or `None`
        Server context, or `None` for plain http.
    tape : `TapeSystem`
        Stages and pins.
    ports : iterable of `int`, optional
        Ports to try in this order; 0 is any free one.
    """

    def __init__(
        self, site: Site, tls: ssl.SSLContext | None, tape: TapeSystem, *, ports: Iterable[int] = (0,)
    ) -> None:
        self._site = site
        self.events = EventHub()
        watch_namespace(site.namespace, self.events)
        self.bulk = BulkService(site.clockwork, tape, site.latency)
        self._namespace = NamespaceResource(tape, site.faults, site.latency, site.pause_seconds)
        self._routes = self._table(tape)
        limiter = RateLimiter(time_scale=site.time_scale)
        self.listener = Listener(
            "frontend",
            site.faults.around(limited(site, limiter, self._handle)),
            site.transcript,
            ports=ports,
            tls=tls,
            software=site.software,
        )
        self.listener.on_stop.append(self.events.close_all)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://localhost:{self.listener.port}/"
        # Another name of the same host: a real site's discovery rarely names the host one came by.
        self.discovery_url = f"{scheme}://127.0.0.1:{self.listener.port}/"

    def stop(self) -> None:
        """Close all connections and wait until no thread is left."""
        self.listener.stop()

    def _table(self, tape_system: TapeSystem) -> list[tuple[str, re.Pattern[str], Resource]]:
        bulk = BulkResource(self.bulk, self._site.faults)
        tape = TapeResource(self.bulk, tape_system, self._site.latency)
        events = EventResource(self.events)
        channel = f"/events/channels/{_NAME}"
        rows: list[tuple[str, str, Resource]] = [
            ("GET", "/user", self._user),
            ("GET", "/doors", self._doors),
            ("GET", "/bulk-requests", bulk.list),
            ("POST", "/bulk-requests", bulk.post),
            ("GET", f"/bulk-requests/{_UUID}", bulk.get),
            ("DELETE", f"/bulk-requests/{_UUID}", bulk.delete),
            ("PATCH", f"/bulk-requests/{_UUID}", bulk.patch),
            ("POST", "/tape/archiveinfo", tape.archive_info),
            ("POST", "/tape/stage", tape.stage),
            ("GET", f"/tape/stage/{_UUID}", tape.state),
            ("DELETE", f"/tape/stage/{_UUID}", tape.delete),
            ("POST", f"/tape/stage/{_UUID}/cancel", tape.cancel),
            ("POST", f"/tape/release/{_NAME}", tape.release),
            ("GET", "/events/eventTypes", events.selectors),
            ("GET", "/events/channels", events.channels),
            ("POST", "/events/channels", events.open),
            ("GET", channel, self._channel(events)),
            ("PATCH", channel, events.patch),
            ("DELETE", channel, events.close),
            ("GET", f"{channel}/subscriptions", events.subscriptions),
            ("POST", f"{channel}/subscriptions/inotify", events.subscribe),
            ("DELETE", f"{channel}/subscriptions/inotify/{_NAME}", events.unsubscribe),
            ("GET", "/id/.*", self._forbid),
            ("GET", "/labels(?:/.*)?", self._forbid),
        ]
        return [(method, re.compile(_API + path + "/?"), resource) for method, path, resource in rows]

    def _handle(self, exchange: Exchange) -> None:
        if answer_tape_discovery(exchange, self.discovery_url):
            return
        try:
            exchange.login = self._site.access.login(exchange, anonymous="none")
            self._dispatch(exchange, Operator(self._site.access, exchange.login))
        except LoginRefusedError as exc:
            refuse_login(exchange, exc)
        except PermissionDeniedError:
            self._refuse(exchange, RestError(403))
        except RestError as exc:
            self._refuse(exchange, exc)

    @staticmethod
    def _refuse(exchange: Exchange, error: RestError) -> None:
        document = {"status": str(error.status), "title": error.title, "detail": error.detail}
        answer_json(exchange, error.status, document, reason=error.title)

    def _dispatch(self, exchange: Exchange, operator: Operator) -> None:
        path = exchange.path
        self._site.latency.spend("rest")
        if self._site.faults.take("pnfs_timeout", exchange):
            raise RestError(500, "Server is busy (internal timeout)")
        verb = "GET" if exchange.method == "HEAD" else exchange.method
        root = f"{_API}/namespace"
        if path == root or path.startswith(root + "/"):
            actions = {
                "GET": self._namespace.get,
                "POST": self._namespace.post,
                "DELETE": self._namespace.delete,
            }
            if verb not in actions:
                raise RestError(405, "HTTP 405 Method Not Allowed")
            actions[verb](exchange, operator, normal_path(path[len(root) :]))
            return
        known = False
        for method, pattern, resource in self._routes:
            if match := pattern.fullmatch(path):
                known = True
                if method == verb:
                    resource(exchange, operator, *match.groups())
                    return
        raise RestError(405, "HTTP 405 Method Not Allowed") if known else RestError(404, "HTTP 404 Not Found")

    @staticmethod
    def _channel(events: EventResource) -> Resource:
        def get(exchange: Exchange, operator: Operator, identifier: str) -> None:
            streams = exchange.method == "GET" and "text/event-stream" in exchange.headers.get("accept")
            (events.read if streams else events.describe)(exchange, operator, identifier)

        return get

    @staticmethod
    def _forbid(exchange: Exchange, operator: Operator) -> None:
        """Keep what is for administrators from the others."""
        raise PermissionDeniedError(exchange.path)

    @staticmethod
    def _user(exchange: Exchange, operator: Operator) -> None:
        login = operator.login
        document = {
            "status": "AUTHENTICATED",
            "uid": login.uid,
            "gids": list(login.gids),
            "username": login.username,
            "homeDirectory": login.home,
            "rootDirectory": login.root,
        }
        answer_json(exchange, 200, document)

    def _doors(self, exchange: Exchange, operator: Operator) -> None:
        rows: list[dict[str, Any]] = []
        for url in self._site.door_urls:
            scheme, _, rest = url.partition("://")
            host, _, port = rest.rstrip("/").rpartition(":")
            rows.append(
                {
                    "identifier": None, "cellName": None, "domainName": None, "protocol": scheme,
                    "version": "1.1", "root": "/", "addresses": [host], "port": int(port), "load": 0.0,
                    "updateTime": 0, "tags": _TAGS, "readPaths": ["/"], "writePaths": ["/"],
                }
            )  # fmt: skip
        if not self._site.version.writes_defaults_in_lists:
            rows = [{key: value for key, value in row.items() if value} for row in rows]
        answer_json(exchange, 200, rows)
