"""What carries the packets of a link: ``python -m ... LINK``, with the fields of a `~.link.Link` as JSON.

It makes both name spaces and their devices, says one line of JSON, with the numbers of the file descriptors
that hold the name spaces or with a ``problem``, and ends with its standard input. The link ends with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

__all__ = ("main",)

_DEVICE = "wan0"
# Addresses for documentation (RFC 5737): nobody else has them.
_SERVER, _CLIENT = "192.0.2.1", "192.0.2.2"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CHECKSUMS_AND_SEGMENTS = 0x01 | 0x02 | 0x04
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6: 64 KiB at a time, which the receiver takes as it comes."""
_PACKET_BYTES = 70_000
_AT_ONCE = 64
_LEAST_BURST_BYTES = 65_536
_BURST_SECONDS = 0.005


def main() -> None:
    """Make the link, and carry packets until the standard input ends."""
    link = json.loads(sys.argv[1])
    try:
        server, server_device = _make_end(_SERVER, _CLIENT, link)
        client, client_device = _make_end(_CLIENT, _SERVER, link)
        # Loopback lies on the other side; this name space has none of its own.
        _run("ip", "route", "add", "127.0.0.0/8", "dev", _DEVICE)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", "") or "").strip()
        print(json.dumps({"problem": f"{error} {detail}".strip()}), flush=True)
        return
    delay, loss = (link["rtt_ms"] or 0) / 2000, link["loss"] / 100
    for source, sink in ((server_device, client_device), (client_device, server_device)):
        threading.Thread(target=_carry, args=(source, sink, delay, loss), daemon=True).start()
    print(json.dumps({"server": server, "client": client}), flush=True)
    sys.stdin.read()


def _make_end(address: str, peer: str, link: dict[str, float | None]) -> tuple[int, int]:
    """Make a name space with a device, and stay in it; return the descriptors of both."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a network name space: {os.strerror(number)}")
    space = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    # Single packets are lost only if packets are single.
    offload = 0 if link["loss"] else _IFF_VNET_HDR
    flags = _IFF_TUN | _IFF_NO_PI | offload
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), flags))
    if offload:
        fcntl.ioctl(device, _TUNSETOFFLOAD, _CHECKSUMS_AND_SEGMENTS)
    if address == _SERVER:
        _run("ip", "link", "set", "lo", "up")
    _run("ip", "addr", "add", address, "peer", peer, "dev", _DEVICE)
    _run("ip", "link", "set", _DEVICE, "mtu", "1500", "txqueuelen", "10000", "up")
    # Packets from and to 127.0.0.1 are to pass through a device that is not loopback.
    Path(f"/proc/sys/net/ipv4/conf/{_DEVICE}/route_localnet").write_text("1")
    if link["bandwidth_mbit"]:
        rate = round(link["bandwidth_mbit"] * 1e6)
        burst = max(_LEAST_BURST_BYTES, round(rate / 8 * _BURST_SECONDS))
        queue = ("tbf", "rate", f"{rate}bit", "burst", str(burst), "latency", "300ms")
        _run("tc", "qdisc", "add", "dev", _DEVICE, "root", *queue)
    return space, device


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _carry(source: int, sink: int, delay: float, loss: float) -> None:
    """Carry packets in one direction for ever."""
    draw = random.Random()
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([source], [], [], patience)[0]:
            for _ in range(_AT_ONCE):
                try:
                    packet = os.read(source, _PACKET_BYTES)
                except BlockingIOError:
                    break
                if not loss or draw.random() >= loss:
                    waiting.append((time.monotonic() + delay, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            try:
                os.write(sink, waiting.popleft()[1])
            except OSError:
                # A device that takes no more has lost a packet, as devices do.
                continue


if __name__ == "__main__":
    main()
