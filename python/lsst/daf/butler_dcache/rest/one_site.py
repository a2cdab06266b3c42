"""Which servers a credential may follow an announcement to.

A server that is learnt from another server's answer gets the credential of the endpoint. So it has to be one
that this site's own certificates would speak for, and no less encrypted than the door that announced it.
"""

from __future__ import annotations

import ipaddress
import socket

__all__ = ("is_of_one_site",)


def is_of_one_site(host: str, other: str) -> bool:
    """Tell whether two hosts differ in the first part of their names alone, as a wildcard allows.

    Parameters
    ----------
    host, other : `str`
        Names or addresses, in lower case.

    Returns
    -------
    same : `bool`
        Also for two names of this machine.
    """
    if host == other or (_is_here(host) and _is_here(other)):
        return True
    try:
        ipaddress.ip_address(other)
        return False
    except ValueError:
        domain = host.partition(".")[2]
        return "." in domain and domain == other.partition(".")[2]


def _is_here(host: str) -> bool:
    """Tell whether a name is one of this machine, without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname().lower())
