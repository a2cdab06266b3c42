"""Scriptable faults: what can go wrong between a client and a dCache, on request.

    dcache.faults.add(Fault("cut_download", path="*.fits", at_byte=1000))
    dcache.faults.add(Fault("status", server="door", method="MOVE", status=503, times=2))

A fault waits for requests that match, acts on as many of them as ``times`` says and counts them in ``hits``.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from .connection import Farewell, HangUpError, HeadTap
from .exchange import Exchange, Headers
from .wire import Handler

__all__ = ["Fault", "FaultKind", "Faults"]

FaultKind = Literal[
    "status",
    "drop",
    "lose_answer",
    "cut_head",
    "garble",
    "restart",
    "stall",
    "cut_upload",
    "stall_upload",
    "cut_download",
    "stall_download",
    "corrupt_upload",
    "corrupt_download",
    "keep",
    "wrong_digest",
    "no_digest",
    "ignore_range",
    "truncate_listing",
    "unlistable",
    "shuffle_listing",
    "dead_pool",
    "full",
    "over_quota",
    "refuse_pool",
    "http_pool",
    "pnfs_timeout",
    "bulk_forget",
    "bulk_cancel",
    "bulk_fail",
    "bulk_slow",
]


_WANTS = ("want-digest", "want-repr-digest")


@dataclass
class Fault:
    """Something that goes wrong.

    Parameters
    ----------
    kind : `str`
        What happens:

        - ``"status"``: answer ``status`` (and ``reason``, ``headers``, ``body``) at once, without effect;
        - ``"drop"``: close the connection without effect or answer;
        - ``"lose_answer"``: do what was asked, then close instead of answering;
        - ``"cut_head"``: do what was asked, then close after ``at_byte`` bytes of the answer's head;
        - ``"garble"``: do what was asked, then answer with what is not HTTP, and close;
        - ``"restart"``: the server (door or pool; the frontend loses its connections only) crashes and comes
          back after ``seconds``, a pool on another port, all its URLs dead; before the request has an effect,
          or after it if ``has_effect``;
        - ``"stall"``: wait ``seconds`` before doing anything;
        - ``"cut_upload"``, ``"cut_download"``: close the connection at byte ``at_byte`` of the body;
        - ``"stall_upload"``, ``"stall_download"``: pause for ``seconds`` at byte ``at_byte`` of the body;
        - ``"corrupt_upload"``, ``"corrupt_download"``: flip the bits of byte ``at_byte`` of the body;
        - ``"keep"``: a pool keeps only ``at_byte`` bytes of an upload and calls that success;
        - ``"wrong_digest"``: the digest in the answer belongs to other bytes;
        - ``"no_digest"``: there is none, as if nobody had asked for it;
        - ``"ignore_range"``: a pool answers a range with the whole file;
        - ``"truncate_listing"``: a listing ends after ``at_byte`` entries and looks like a success;
        - ``"unlistable"``: a directory that cannot be listed looks empty to PROPFIND, and is 403 elsewhere;
        - ``"shuffle_listing"``: the frontend lists in another order each time, as its pages may;
        - ``"dead_pool"``: no pool can serve: 500 at the door;
        - ``"full"``, ``"over_quota"``: an upload or a pull finds no space: 507 at the door, or at the pool
          if that is the ``server``; a pull that finds all pools full says so at its end;
        - ``"refuse_pool"``: the door redirects to a port where nobody listens;
        - ``"http_pool"``: an https door redirects to an http pool;
        - ``"pnfs_timeout"``: the namespace does not answer: 500, or an empty listing;
        - ``"bulk_forget"``, ``"bulk_cancel"``, ``"bulk_fail"``: of a bulk request the first ``at_byte``
          targets are worked off, then the server forgets it, or cancels the others without a word, or says
          ``reason`` and ``body`` of them (type and text of an error);
        - ``"bulk_slow"``: a bulk request begins ``seconds`` later.
    path : `str`
        Shell pattern on the decoded path, as in ``"*/raw/*.fits"``.
    method, server : `str` or `None`
        Verb, and ``"door"``, ``"pool"`` or ``"frontend"``; `None` is any.
    port : `int` or `None`
        Port of the server, where there are several of a kind; `None` is any.
    times : `int` or `None`
        On how many requests it acts; `None` is on all.
    status : `int`
        Status of the answer.
    reason : `str`
        Reason phrase of the answer.
    headers : `dict` [`str`, `str`]
        Further header fields of the answer.
    body : `str`
        Text of the answer; a door's usual line if there is none.
    at_byte : `int`
        Where in a body; for listings the number of entries, for bulk requests of targets.
    seconds : `float`
        Length of a stall, of a delay, or of the time that a server is away.
    after : `int`
        How many matching requests go by before it acts.
    has_effect : `bool`
        Whether a restart comes after the effect, and a stall too.
    farewell : ``"cut"``, ``"notice"`` or ``"reset"``
        How a connection is closed: without a TLS close_notify, with one, or by a TCP reset.
    """

    kind: FaultKind
    path: str = "*"
    method: str | None = None
    server: str | None = None
    times: int | None = 1
    status: int = 500
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    at_byte: int = 0
    seconds: float = 0.0
    after: int = 0
    has_effect: bool = False
    farewell: Farewell = "cut"
    port: int | None = None
    hits: int = 0
    seen: int = 0

    def matches(self, exchange: Exchange) -> bool:
        """Whether a request is one of those that this fault waits for."""
        return (
            (self.times is None or self.hits < self.times)
            and self.server in (None, exchange.listener.server)
            and self.port in (None, exchange.listener.port)
            and self.method in (None, exchange.method)
            and fnmatch.fnmatchcase(exchange.path, self.path)
        )


class Faults:
    """The faults of one instance. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.stopping = threading.Event()

    def add(self, fault: Fault) -> Fault:
        """Arm a fault and return it, so that its ``hits`` can be read later."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, faults: Iterable[Fault]) -> None:
        """Disarm some."""
        with self._lock:
            self._faults = [fault for fault in self._faults if not any(fault is one for one in faults)]

    def clear(self) -> None:
        """Disarm everything."""
        with self._lock:
            self._faults.clear()

    def take(self, kind: FaultKind, exchange: Exchange) -> Fault | None:
        """Return an armed fault of a kind that matches a request, and count it; `None` if there is none."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.matches(exchange):
                    fault.seen += 1
                    if fault.seen > fault.after:
                        fault.hits += 1
                        return fault
        return None

    def around(self, handler: Handler) -> Handler:
        """Return a handler that lets faults of the wire act before, in and after another one."""

        def handle(exchange: Exchange) -> None:
            if self._faults:
                self._prepare(exchange)
                if exchange.answered:
                    return
            handler(exchange)

        return handle

    def _prepare(self, exchange: Exchange) -> None:
        if fault := self.take("stall", exchange):
            if fault.has_effect:
                exchange.tap_head = _late(fault.seconds, self.stopping)
            else:
                self.stopping.wait(fault.seconds)
        if fault := self.take("drop", exchange):
            raise HangUpError("dropped by a fault", fault.farewell)
        if fault := self.take("restart", exchange):
            if not fault.has_effect:
                exchange.listener.crash(fault.seconds)
                raise HangUpError("the server crashed by a fault")
            exchange.tap_head = _crashing(partial(exchange.listener.crash, fault.seconds))
        if fault := self.take("status", exchange):
            text = fault.body
            if not text and exchange.listener.server == "door" and fault.status >= 500:
                text = f"Internal problem: {fault.reason or 'an injected fault'}\n"
            kind = [("Content-Type", "text/plain;charset=utf-8")] if text else []
            exchange.answer(fault.status, [*fault.headers.items(), *kind], text.encode(), reason=fault.reason)
            return
        if fault := self.take("lose_answer", exchange):
            exchange.tap_head = _cutting(exchange, 0, fault.farewell)
        elif fault := self.take("cut_head", exchange):
            exchange.tap_head = _cutting(exchange, fault.at_byte, fault.farewell)
        elif fault := self.take("garble", exchange):
            exchange.tap_head = _garbling(exchange, fault.farewell)
        if exchange.has_body:
            if fault := self.take("cut_upload", exchange):
                exchange.tap_received = _Cut(fault.at_byte)
                exchange.farewell = fault.farewell
            elif fault := self.take("stall_upload", exchange):
                exchange.tap_received = _Pause(fault.at_byte, fault.seconds, self.stopping)
            elif fault := self.take("corrupt_upload", exchange):
                exchange.tap_received = _Flip(fault.at_byte)
        if exchange.method != "HEAD":
            if fault := self.take("cut_download", exchange):
                exchange.tap_sent = _Cut(fault.at_byte)
                exchange.farewell = fault.farewell
            elif fault := self.take("stall_download", exchange):
                exchange.tap_sent = _Pause(fault.at_byte, fault.seconds, self.stopping)
            elif fault := self.take("corrupt_download", exchange):
                exchange.tap_sent = _Flip(fault.at_byte)
        if self.take("no_digest", exchange):
            exchange.headers = Headers(item for item in exchange.headers if item[0].lower() not in _WANTS)
        exchange.has_wrong_digest = self.take("wrong_digest", exchange) is not None


def _cutting(exchange: Exchange, at: int, farewell: Farewell) -> HeadTap:
    def tap(head: bytes) -> bytes:
        if at:
            exchange.connection.send(head[: min(at, len(head) - 1)])
        raise HangUpError("answer lost by a fault", farewell)

    return tap


def _garbling(exchange: Exchange, farewell: Farewell) -> HeadTap:
    def tap(head: bytes) -> bytes:
        exchange.connection.send(b"SSH-2.0-faulty\r\n\r\n")
        raise HangUpError("answer garbled by a fault", farewell)

    return tap


def _crashing(crash: Callable[[], None]) -> HeadTap:
    def tap(head: bytes) -> bytes:
        crash()
        raise HangUpError("the server crashed by a fault")

    return tap


def _late(seconds: float, stopping: threading.Event) -> HeadTap:
    def tap(head: bytes) -> bytes:
        stopping.wait(seconds)
        return head

    return tap


@dataclass(frozen=True)
class _Cut:
    at: int

    def __call__(self, offset: int, data: bytes) -> tuple[bytes, bool]:
        return data[: max(0, self.at - offset)], offset + len(data) >= self.at


@dataclass(frozen=True)
class _Flip:
    at: int

    def __call__(self, offset: int, data: bytes) -> tuple[bytes, bool]:
        place = self.at - offset
        if 0 <= place < len(data):
            data = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        return data, False


@dataclass(frozen=True)
class _Pause:
    at: int
    seconds: float
    stopping: threading.Event

    def __call__(self, offset: int, data: bytes) -> tuple[bytes, bool]:
        if offset <= self.at < offset + len(data):
            self.stopping.wait(self.seconds)
        return data, False
