"""Where workers on several nodes say that they are ready, and are told when to begin.

A cluster's scheduler starts its workers when it likes, and a task of Parsl can only be given and give back.
So each worker connects to the command that sent it, says what it has to say, and waits. When all have, they
are told to begin in so many seconds: told at the same moment, so that the clocks of the nodes need not agree.
The connection stays open as long as the work lasts. If it ends, the other side is gone: a worker whose
command was interrupted ends its work, and the command need not wait until somebody misses a lost node.

Whoever can reach the port could pretend to be a worker. A word that only the tasks get keeps others out; what
is said is no secret.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from .stopping import Stop

__all__ = ("Attendance", "CalledOffError", "Invitation", "Meeting", "MeetingError", "Round")

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.2
_LONGEST_LINE = 65536
_LONGEST_WORDS = 250
_LOST_SECONDS = 10.0
"""Within which the result comes of a worker that has ended its connection."""


class MeetingError(Exception):
    """Not all workers came, or one went away; the text says which."""


class CalledOffError(Exception):
    """The command that a worker works for is gone, or wants no more."""


@dataclass(frozen=True)
class Invitation:
    """What a worker is given.

    Parameters
    ----------
    addresses : `tuple` [`str`, ...]
        Of the command's machine; one of them is reached.
    port : `int`
        Where it listens.
    word : `str`
        Shows who was invited.
    number : `int`
        Of the worker in this round.
    """

    addresses: tuple[str, ...]
    port: int
    word: str = field(repr=False)
    number: int


class Attendance:
    """A worker's side, as a context manager.

    Parameters
    ----------
    invitation : `Invitation`
        Where to go.

    Raises
    ------
    CalledOffError
        If nobody is there.
    """

    def __init__(self, invitation: Invitation) -> None:
        self._sock = _reach(invitation)
        self._file = self._sock.makefile("r", encoding="utf-8")
        self._is_over = threading.Event()
        self._say({"word": invitation.word, "number": invitation.number, "host": socket.gethostname()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def begin(self, said: dict[str, Any], seconds: float) -> float:
        """Say what this worker has to say, and wait until all have.

        Parameters
        ----------
        said : `dict`
            As JSON can hold it.
        seconds : `float`
            Longest wait.

        Returns
        -------
        start_at : `float`
            When all begin, in seconds since the epoch on this machine's clock.

        Raises
        ------
        CalledOffError
            If nobody wants it any more, or says anything in time.
        """
        try:
            self._say({"said": said})
            self._sock.settimeout(seconds)
            line = self._file.readline()
            self._sock.settimeout(None)
        except OSError as error:
            raise CalledOffError(f"the command is gone: {error}") from error
        if not line:
            raise CalledOffError("the work was called off")
        return time.time() + float(json.loads(line)["in"])

    def if_called_off(self, action: Callable[[], None]) -> None:
        """Have something done at once if the work is called off from now on.

        Parameters
        ----------
        action : `~collections.abc.Callable`
            Is called in another thread, at most once.
        """

        def watch() -> None:
            with contextlib.suppress(OSError):
                self._sock.recv(1)
            if not self._is_over.is_set():
                action()

        threading.Thread(target=watch, daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")


def _reach(invitation: Invitation) -> socket.socket:
    failure: OSError | None = None
    for address in invitation.addresses:
        try:
            sock = socket.create_connection((address, invitation.port), _CONNECT_SECONDS)
        except OSError as error:
            failure = error
            continue
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise CalledOffError(
        f"{socket.gethostname()} does not reach the command at {', '.join(invitation.addresses)}: {failure}"
    )


@dataclass(eq=False)
class _Guest:
    """A connection, before and after it is known who it is."""

    sock: socket.socket
    pending: bytes = b""
    number: int | None = None
    host: str = ""
    said: dict[str, Any] | None = None
    gone_at: float | None = None


class Meeting:
    """The command's side: a place to which workers are invited, round by round.

    Parameters
    ----------
    addresses : `~collections.abc.Sequence` [`str`]
        By which the nodes may reach this machine; with none but loopback it listens there alone.

    Notes
    -----
    For one thread.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        is_local = all(ipaddress.ip_address(address).is_loopback for address in addresses)
        self._listener = socket.create_server((addresses[0] if is_local else "", 0), backlog=1024)
        self._listener.setblocking(False)

    def round(self, count: int) -> Round:
        """Return what a number of workers come to.

        Parameters
        ----------
        count : `int`
            How many.
        """
        return Round(self._listener, self._addresses, count)

    def close(self) -> None:
        """Invite nobody any more."""
        self._listener.close()


class Round:
    """One coming together, as a context manager; whoever is still there at its end is told so.

    Parameters
    ----------
    listener : `socket.socket`
        Where workers arrive; it does not block.
    addresses : `tuple` [`str`, ...]
        Of this machine.
    count : `int`
        How many workers there must be.
    """

    def __init__(self, listener: socket.socket, addresses: tuple[str, ...], count: int) -> None:
        self._listener = listener
        self._addresses = addresses
        self._count = count
        self._word = secrets.token_urlsafe(24)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._guests: list[_Guest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for guest in self._guests:
            guest.sock.close()

    def invitation(self, number: int) -> Invitation:
        """Return what a worker must be given.

        Parameters
        ----------
        number : `int`
            Which one, from 0.
        """
        return Invitation(self._addresses, self._listener.getsockname()[1], self._word, number)

    def gather(self, futures: Sequence[Future[Any]], seconds: float, stop: Stop) -> list[dict[str, Any]]:
        """Wait until all are there and have said what they had to say.

        Parameters
        ----------
        futures : `~collections.abc.Sequence` [`~concurrent.futures.Future`]
            Of the workers, in their order.
        seconds : `float`
            Longest wait.
        stop : `~.stopping.Stop`
            Interrupts it.

        Returns
        -------
        said : `list` [`dict`]
            By each, in their order.

        Raises
        ------
        MeetingError
            If one fails or goes away before, or not all come.
        """
        ends = time.monotonic() + seconds
        with stop.open():
            while len(said := self._said()) < self._count:
                left = ends - time.monotonic()
                if left <= 0:
                    raise MeetingError(
                        f"{len(said)} of {self._count} workers were ready after {seconds:.0f} s"
                    )
                self._look(min(left, _LOOK_SECONDS))
                self._see_who_is_missing(futures)
        return [said[number] for number in range(self._count)]

    def begin(self, seconds: float) -> None:
        """Tell all of them when to begin.

        Parameters
        ----------
        seconds : `float`
            From now.
        """
        line = json.dumps({"in": seconds}).encode() + b"\n"
        for guest in self._guests:
            if guest.number is not None:
                with contextlib.suppress(OSError):  # who is gone is found when the others have ended
                    guest.sock.send(line)

    def results(self, futures: Sequence[Future[Any]], seconds: float, stop: Stop) -> list[Any]:
        """Wait until all have ended.

        Parameters
        ----------
        futures : `~collections.abc.Sequence` [`~concurrent.futures.Future`]
            Of the workers, in their order.
        seconds : `float`
            Longest wait.
        stop : `~.stopping.Stop`
            Interrupts it.

        Returns
        -------
        results : `list`
            Of each, in their order.

        Raises
        ------
        MeetingError
            If one fails or goes away, or they do not end in time.
        """
        ends = time.monotonic() + seconds
        with stop.open():
            while not all(future.done() for future in futures):
                left = ends - time.monotonic()
                if left <= 0:
                    hosts = [self._host(number) for number, one in enumerate(futures) if not one.done()]
                    raise MeetingError(f"{', '.join(hosts)} did not end within {seconds:.0f} s")
                self._look(min(left, _LOOK_SECONDS))
                self._see_who_is_missing(futures)
        self._see_who_is_missing(futures)
        return [future.result() for future in futures]

    def _said(self) -> dict[int, dict[str, Any]]:
        return {g.number: g.said for g in self._guests if g.number is not None and g.said is not None}

    def _host(self, number: int) -> str:
        return next((guest.host for guest in self._guests if guest.number == number), "a worker")

    def _see_who_is_missing(self, futures: Sequence[Future[Any]]) -> None:
        said = self._said()
        for number, future in enumerate(futures):
            if future.done() and (error := future.exception()) is not None:
                raise MeetingError(f"{self._host(number)}: {_shortened(error)}") from error
            if future.done() and number not in said:
                raise MeetingError(f"{self._host(number)} ended before it was ready")
        for guest in self._guests:
            if guest.number is None or guest.gone_at is None or futures[guest.number].done():
                continue
            if time.monotonic() - guest.gone_at > _LOST_SECONDS:
                raise MeetingError(f"{guest.host} went away")

    def _look(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listener:
                self._admit()
            else:
                self._hear(key.data)

    def _admit(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            guest = _Guest(sock)
            self._guests.append(guest)
            self._selector.register(sock, selectors.EVENT_READ, guest)

    def _hear(self, guest: _Guest) -> None:
        try:
            piece = guest.sock.recv(_LONGEST_LINE)
        except OSError:
            piece = b""
        guest.pending += piece
        *lines, guest.pending = guest.pending.split(b"\n")
        if (
            not piece
            or len(guest.pending) > _LONGEST_LINE
            or not all(self._takes(guest, line) for line in lines)
        ):
            self._selector.unregister(guest.sock)
            guest.sock.close()
            guest.gone_at = time.monotonic()

    def _takes(self, guest: _Guest, line: bytes) -> bool:
        """Take a line; false if it is not from a worker."""
        try:
            message = json.loads(line)
            if guest.number is None:
                number = int(message["number"])
                if not hmac.compare_digest(message["word"], self._word) or not 0 <= number < self._count:
                    return False
                guest.number, guest.host = number, str(message["host"])
            else:
                guest.said = dict(message["said"])
        except (ValueError, TypeError, KeyError):
            return False
        return True


def _shortened(error: BaseException) -> str:
    """Return an error in one line: Parsl's have whole logs in them, which end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[0] if len(lines) == 1 else f"{lines[0][:_LONGEST_WORDS]} … {lines[-1][:_LONGEST_WORDS]}"
    return f"{type(error).__name__}: {text}"
