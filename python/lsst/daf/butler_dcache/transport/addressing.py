"""Which server a URL leads to, what is allowed there, and who we are for it.

Asked for every request: what does not depend on the path of the URL is found out once per server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ..auth.credential import ANONYMOUS, Credential
from ..auth.sources import CredentialSource, successor
from ..config.settings import EndpointSettings, Origin, origin_of
from ..errors import ConfigurationError, CredentialError

__all__ = ("Addressing", "Server")

_SERVER = re.compile(r"https?://[^/?#\\\s]+")
_MOST_SERVERS = 1024


class Server(NamedTuple):
    """What is known of a server.

    Parameters
    ----------
    origin : `tuple`
        Scheme, host and port.
    host : `str`
        Value of the ``Host`` header.
    own : `bool`
        Whether it is a door or the frontend of the endpoint, which alone may know who we are.
    unencrypted : `bool`
        Whether it is another server, without TLS.
    silence : `float`
        Longest wait for its next byte in seconds.
    """

    origin: Origin
    host: str
    own: bool
    unencrypted: bool
    silence: float


class Addressing:
    """The servers of one endpoint, and those that they lead to.

    Parameters
    ----------
    endpoint : `~..config.settings.EndpointSettings`
        Which servers are the endpoint's own, and whether others must be encrypted.
    credential : `~..auth.sources.CredentialSource` or `None`
        Where the endpoint's credential comes from.
    """

    def __init__(self, endpoint: EndpointSettings, credential: CredentialSource | None) -> None:
        self._endpoint = endpoint
        self._credential = credential
        self._servers: dict[str, Server] = {}

    def find(self, url: str) -> tuple[Server, str]:
        """Return where a URL leads.

        Parameters
        ----------
        url : `str`
            An ``http`` or ``https`` URL.

        Returns
        -------
        server : `Server`
            The server.
        target : `str`
            Path and query.

        Raises
        ------
        ConfigurationError
            If it is no such URL, or an encrypted endpoint leads to an unencrypted server.
        """
        slash = url.find("/", 8)
        server = self._servers.get(url[:slash]) if slash > 0 else None
        target = url[slash:]
        if server is None:
            server, target = self._meet(url)
        if server.unencrypted and not self._endpoint.lets_unencrypted(url):
            raise ConfigurationError(
                "an encrypted door leads to an unencrypted pool",
                url=url,
                hint="set http_pools: allow below the key dcache of this endpoint if that is meant",
            )
        return server, target.partition("#")[0] if "#" in target else target

    def _meet(self, url: str) -> tuple[Server, str]:
        origin = origin_of(url)
        endpoint = self._endpoint
        own = origin in endpoint.origins
        prefix = _SERVER.match(url)
        if prefix is None:
            raise ConfigurationError("expected an http or https URL", url=url)
        server = Server(
            origin,
            prefix[0].partition("://")[2].rpartition("@")[2],
            own,
            not own and origin[0] == "http",
            endpoint.read_timeout_seconds if own else endpoint.idle_timeout_seconds,
        )
        target = url[prefix.end() :]
        if target.startswith("/"):
            if len(self._servers) >= _MOST_SERVERS:
                self._servers.clear()
            self._servers[prefix[0]] = server
        else:
            target = f"/{target}"
        return server, target

    def identity(self, url: str, own: bool, credential: Credential | None, authenticate: bool) -> Credential:
        """Return who we are for a URL, after all checks that need no server.

        Parameters
        ----------
        url : `str`
            Where the request goes.
        own : `bool`
            Whether the server is the endpoint's own.
        credential : `~..auth.credential.Credential` or `None`
            Takes the place of the endpoint's.
        authenticate : `bool`
            Whether the endpoint's is sent.

        Returns
        -------
        credential : `~..auth.credential.Credential`
            The anonymous one where none is to be sent.

        Raises
        ------
        CredentialError
            If a credential would leave the endpoint, or has expired.
        """
        if not own:
            if authenticate or (credential is not None and credential.secret is not None):
                raise CredentialError(
                    "a credential is sent to the endpoint's own doors and frontend only", url=url
                )
            return ANONYMOUS
        if credential is None:
            if not authenticate or self._credential is None:
                return ANONYMOUS
            credential = self._credential.current()
        credential.check(url)
        return credential

    def has_another_than(self, credential: Credential) -> bool:
        """Tell whether a credential that was refused has been replaced meanwhile.

        Parameters
        ----------
        credential : `~..auth.credential.Credential`
            The one that was refused.

        Returns
        -------
        has : `bool`
            Whether there is another to be tried.
        """
        return self._credential is not None and successor(self._credential, credential) is not None


def announced_length(headers: Mapping[str, str], url: str) -> int | None:
    """Look through the headers of a caller.

    Parameters
    ----------
    headers : `~collections.abc.Mapping`
        The headers.
    url : `str`
        For the message.

    Returns
    -------
    length : `int` or `None`
        What ``Content-Length`` says, if it is there.

    Raises
    ------
    CredentialError
        If there is a credential among them.
    """
    length = None
    for name, value in headers.items():
        name = name.lower()
        if name == "content-length":
            length = int(value)
        elif name == "authorization":
            raise CredentialError("a credential travels as a Credential, not as a header", url=url)
    return length
