"""The frontend's event resource (protocol page, section 7.7; dCache ``EventResources.java``)."""

import secrets

from .access import PermissionDeniedError
from .events import FLAGS, Channel, EventHub, TooManyChannelsError
from .exchange import Exchange
from .namespace import Change, EntryMissingError, Namespace, split_path
from .operations import Operator
from .rest import RestError, answer_json, answer_nothing, read_json

__all__ = ["EventResource", "watch_namespace"]

_KINDS = {
    "create": "IN_CREATE",
    "written": "IN_CLOSE_WRITE",
    "delete": "IN_DELETE",
    "attributes": "IN_ATTRIB",
    "open": "IN_OPEN",
    "read": "IN_ACCESS",
    "closed": "IN_CLOSE_NOWRITE",
}


def watch_namespace(namespace: Namespace, hub: EventHub) -> None:
    """Turn what happens in a namespace into events.

    Parameters
    ----------
    namespace : `Namespace`
        Tells what happens.
    hub : `EventHub`
        Tells it further.
    """

    def parent_of(path: str) -> str:
        parent = namespace.parent_of(path)
        return parent.pnfsid if parent is not None else ""

    def name_of(path: str) -> str:
        return next(reversed(split_path(path)), "")

    def watch(change: Change) -> None:
        is_directory = change.entry.is_directory
        if change.kind == "move":
            cookie = secrets.token_urlsafe(12)
            for flag, path in (("IN_MOVED_FROM", change.old_path), ("IN_MOVED_TO", change.path)):
                hub.notify(parent_of(path), flag, name_of(path), cookie, is_directory)
        elif change.kind in _KINDS:
            hub.notify(
                parent_of(change.path), _KINDS[change.kind], name_of(change.path), is_directory=is_directory
            )

    namespace.watchers.append(watch)


class EventResource:
    """``/api/v1/events``.

    Parameters
    ----------
    hub : `EventHub`
        Keeps the channels.
    """

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub

    def selectors(self, exchange: Exchange, operator: Operator) -> None:
        """Describe the event types.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        kinds = {"inotify": {"description": "notification of namespace activity, modelled after inotify(7)"}}
        answer_json(exchange, 200, kinds)

    def channels(self, exchange: Exchange, operator: Operator) -> None:
        """List the user's channels.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        client = exchange.parameter("client-id")
        urls = [
            self._url(exchange, channel)
            for channel in self._hub.channels(operator.login.uid)
            if client is None or channel.client == client
        ]
        answer_json(exchange, 200, urls)

    def open(self, exchange: Exchange, operator: Operator) -> None:
        """Make a channel.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        """
        client = str(read_json(exchange).get("client-id") or "")
        try:
            channel = self._hub.open(operator.login.uid, client)
        except TooManyChannelsError:
            raise RestError(429) from None
        answer_nothing(exchange, 201, [("Location", self._url(exchange, channel))])

    def read(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Stream a channel's events until somebody ends it.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        channel = self._find(operator, identifier)
        last = exchange.headers.get("last-event-id")
        exchange.start(200, [("Content-Type", "text/event-stream")])
        blocks = channel.read(int(last) if last.isdecimal() else None)
        for block in blocks:
            if exchange.connection.is_gone() or exchange.listener.stopping.is_set():
                blocks.close()
                exchange.close = True
                return
            if block:
                exchange.write(block)
        exchange.finish()

    def describe(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Tell how long a channel lives without a reader.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        answer_json(exchange, 200, {"timeout": int(self._find(operator, identifier).timeout_seconds)})

    def patch(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Change how long a channel lives without a reader.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        channel = self._find(operator, identifier)
        seconds = read_json(exchange).get("timeout")
        if not isinstance(seconds, int) or not 1 <= seconds <= 86400:
            raise RestError(400, "timeout must be between 1 and 86400 seconds")
        channel.timeout_seconds = float(seconds)
        answer_nothing(exchange, 204)

    def close(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Remove a channel.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        self._hub.close(self._find(operator, identifier))
        answer_nothing(exchange, 204)

    def subscribe(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """Watch a directory; whatever is wrong with that is a 400.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        channel = self._find(operator, identifier)
        selector = read_json(exchange)
        flags = frozenset(str(flag) for flag in selector.get("flags") or FLAGS)
        if not flags <= {*FLAGS, "IN_ALL_EVENTS"}:
            raise RestError(400, "Bad flags value")
        if "IN_ALL_EVENTS" in flags:
            flags = frozenset(FLAGS)
        path = str(selector.get("path", ""))
        try:
            entry = operator.find(path) if path else None
        except EntryMissingError:
            raise RestError(400, f"No such file or directory: {path}") from None
        except PermissionDeniedError:
            raise RestError(400, f"Permission denied: {path}") from None
        if entry is None:
            raise RestError(400, "Missing path")
        subscription, created = channel.subscribe(entry.pnfsid, path, flags, self._url(exchange, channel))
        answer_nothing(exchange, 201 if created else 303, [("Location", subscription.url)])

    def subscriptions(self, exchange: Exchange, operator: Operator, identifier: str) -> None:
        """List a channel's subscriptions.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        """
        channel = self._find(operator, identifier)
        answer_json(exchange, 200, [subscription.url for subscription in channel.subscriptions.values()])

    def unsubscribe(self, exchange: Exchange, operator: Operator, identifier: str, subscription: str) -> None:
        """Stop watching a directory.

        Parameters
        ----------
        exchange : `Exchange`
            The request.
        operator : `Operator`
            Who asks.
        identifier : `str`
            The channel.
        subscription : `str`
            The subscription.
        """
        channel = self._find(operator, identifier)
        gone = channel.subscriptions.pop(subscription, None)
        if gone is None:
            raise RestError(404)
        channel.emit("SYSTEM", {"type": "SUBSCRIPTION_CLOSED", "subscription": gone.url})
        answer_nothing(exchange, 204)

    def _find(self, operator: Operator, identifier: str) -> Channel:
        for channel in self._hub.channels(operator.login.uid):
            if channel.identifier == identifier:
                return channel
        raise RestError(404)

    @staticmethod
    def _url(exchange: Exchange, channel: Channel) -> str:
        return f"{exchange.base}/api/v1/events/channels/{channel.identifier}"
