"""A link with latency, loss and limited bandwidth between servers and clients on one machine.

Servers and clients are put into two network name spaces, whose only way to each other is a pair of TUN
devices; `link_pump`, a process of its own, carries the packets from one to the other, late, and not all of
them. This needs no ``netem``, which many kernels lack. Bandwidth is limited by the ``tbf`` queues of both
devices.

127.0.0.1 lies on the servers' side: in the clients' name space the loopback network leads over the link. So
the servers, their URLs and their certificates are those of a run without a link. What a client would find on
its own loopback is not there.

The name spaces have no names: they end with the last process in them, whatever happens to us.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import MissingServerError

__all__ = ("LOOPBACK", "Link", "LinkUnavailableError", "Spaces", "link_up")

_PACKAGE = __name__.rpartition(".")[0]
_STOP_SECONDS = 5.0
_CLONE_NEWNET = 0x40000000
_TUN = Path("/dev/net/tun")


class LinkUnavailableError(MissingServerError):
    """There can be no such link on this machine, or to this server; the text says why."""


@dataclass(frozen=True)
class Link:
    """What lies between servers and clients.

    Parameters
    ----------
    rtt_ms : `float` or `None`
        What it adds to a round trip, half of it in each direction; `None` adds nothing.
    loss : `float`
        Percentage of the packets that are lost, in each direction.
    bandwidth_mbit : `float` or `None`
        Megabits per second in each direction; `None` is as much as there is.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """

    rtt_ms: float | None = None
    loss: float = 0.0
    bandwidth_mbit: float | None = None

    def __post_init__(self) -> None:
        if self.rtt_ms is not None and not 0 <= self.rtt_ms <= 10_000:
            raise ValueError(f"a round trip of {self.rtt_ms:g} ms is not between 0 and 10000 ms")
        if not 0 <= self.loss < 100:
            raise ValueError(f"a loss of {self.loss:g} % is not between 0 and 100 %")
        if self.bandwidth_mbit is not None and not 0.1 <= self.bandwidth_mbit <= 100_000:
            raise ValueError(f"{self.bandwidth_mbit:g} Mbit/s is not between 0.1 and 100000 Mbit/s")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Spaces:
    """Where servers and clients are.

    Parameters
    ----------
    link : `Link` or `None`
        What lies between them; nothing for `LOOPBACK`.
    server_space, client_space : `str`
        Paths of their network name spaces; empty where they are on this machine's loopback.
    """

    link: Link | None = None
    server_space: str = ""
    client_space: str = ""

    def server(self) -> contextlib.AbstractContextManager[None]:
        """Let this thread, and what it starts, be at the servers' end for as long as the context lasts."""
        return _inside(self.server_space) if self.server_space else contextlib.nullcontext()

    def client(self) -> contextlib.AbstractContextManager[None]:
        """The same at the clients' end."""
        return _inside(self.client_space) if self.client_space else contextlib.nullcontext()

    @property
    def child_prefix(self) -> tuple[str, ...]:
        """What goes before a command, so that it runs at the clients' end."""
        return ("nsenter", f"--net={self.client_space}", "--") if self.client_space else ()


LOOPBACK = Spaces()
"""Without a link."""


@contextlib.contextmanager
def link_up(link: Link | None) -> Iterator[Spaces]:
    """Have a link for as long as the context lasts.

    Parameters
    ----------
    link : `Link` or `None`
        Which one; `None` is this machine's loopback as it is.

    Yields
    ------
    spaces : `Spaces`
        Its two ends.

    Raises
    ------
    LinkUnavailableError
        If this machine cannot have one.
    """
    if link is None or link == Link():
        yield LOOPBACK
        return
    _require()
    pump = subprocess.Popen(
        [sys.executable, "-m", f"{_PACKAGE}.link_pump", json.dumps(link.to_json())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert pump.stdout is not None
        answer = json.loads(pump.stdout.readline() or '{"problem": "it ended without a word"}')
        if "problem" in answer:
            raise LinkUnavailableError(f"no link between server and client: {answer['problem']}")
        ends = (f"/proc/{pump.pid}/fd/{answer[end]}" for end in ("server", "client"))
        yield Spaces(link, *ends)
    finally:
        # The end of its input ends it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            pump.communicate(timeout=_STOP_SECONDS)
        pump.kill()
        pump.wait()


def _require() -> None:
    """Say what is missing before anything is started."""
    if not sys.platform.startswith("linux"):
        raise LinkUnavailableError("a link between server and client needs Linux, for network name spaces")
    if os.geteuid() != 0:
        raise LinkUnavailableError(
            "a link between server and client needs root, for network name spaces and TUN devices"
        )
    if not _TUN.exists():
        raise LinkUnavailableError("a link between server and client needs /dev/net/tun")
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            raise LinkUnavailableError(f"a link between server and client needs {program}, of {package}")


@contextlib.contextmanager
def _inside(space: str) -> Iterator[None]:
    """Move this thread into a name space and back; threads and processes that it starts stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(space, os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(space: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(space, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network name space: {os.strerror(number)}")
