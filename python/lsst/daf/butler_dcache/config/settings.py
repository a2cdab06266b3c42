"""What a client must know of one storage endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..redaction import Secret, has_credential

__all__ = ("BulkSettings", "EndpointSettings", "OidcSettings", "Origin", "origin_of")

Origin = tuple[str, str, int]
"""Scheme (``http`` or ``https``), host in lower case, port."""

_SCHEMES = {"davs": "https", "https": "https", "dav": "http", "http": "http"}
_DEFAULT_PORTS = {"https": 443, "http": 80}
_PREFIX = re.compile(r"[A-Za-z]+://[^/?#\\\s]*(?=[/?#])")


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of a URL, with the scheme's default port where it names none.

    Parameters
    ----------
    url : `str`
        A ``davs``, ``dav``, ``https`` or ``http`` URL.

    Returns
    -------
    origin : `tuple` [`str`, `str`, `int`]
        ``("https", "door.example.org", 2880)``.

    Raises
    ------
    ConfigurationError
        If the scheme is another one, or the host is missing or malformed.
    """
    prefix = _PREFIX.match(url)
    return _origin_of(url if prefix is None else prefix[0])


@lru_cache(maxsize=1024)
def _origin_of(url: str) -> Origin:
    # Each request asks, always for the same few servers; the path is another one each time.
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigurationError(f"not a URL: {exc}", url=url) from exc
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None or not host:
        raise ConfigurationError("expected a davs, dav, https or http URL with a host", url=url)
    return scheme, host.lower(), _DEFAULT_PORTS[scheme] if port is None else port


@dataclass(frozen=True)
class OidcSettings:
    """Who makes tokens for an endpoint, and who asks for them.

    Parameters
    ----------
    issuer : `str`
        An ``https`` URL, to which OpenID Connect adds ``/.well-known/openid-configuration``.
    client_id : `str`
        Name of the client that asks.
    client_secret_file : `str` or `None`
        File with its secret; a client that is public has none.
    refresh_token_file : `str` or `None`
        File with a refresh token; without one the client asks for itself (client credentials).
    scope, audience : `str` or `None`
        What the token shall allow, and where.
    client_authentication : `str`
        ``client_secret_basic`` or ``client_secret_post``.
    trusted_authorities : `str` or `None`
        Bundle or hashed directory of the certificates to trust; `None` trusts those of the system.
    timeout_seconds : `float`
        Longest wait for an answer.
    origin : `str`
        Which setting this is, for messages.
    """

    issuer: str
    client_id: str
    client_secret_file: str | None = None
    refresh_token_file: str | None = None
    scope: str | None = None
    audience: str | None = None
    client_authentication: str = "client_secret_basic"
    trusted_authorities: str | None = None
    timeout_seconds: float = 20.0
    origin: str = ""


@dataclass(frozen=True)
class BulkSettings:
    """From where on one request for many names is cheaper than one for each.

    Parameters
    ----------
    list_from_names : `int`
        Names in one directory from which on the directory is listed.
    entries_per_question : `float`
        Entries of a listing that cost as much as one more question.
    delete_from_files : `int`
        Names from which on a frontend removes them by bulk requests.
    archive_info_from_names : `int`
        Names from which on a frontend's tape API is asked whether they exist.

    Notes
    -----
    ``dcache-butler bench crossover`` measures them.
    """

    list_from_names: int = 3
    entries_per_question: float = 20.0
    delete_from_files: int = 400
    archive_info_from_names: int = 20


@dataclass(frozen=True)
class EndpointSettings:
    """Settings of one endpoint; the defaults are those of an endpoint that no configuration mentions.

    Parameters
    ----------
    base_url : `str`
        ``https://host:port/`` or ``http://host:port/``, always with its port.
    connect_timeout_seconds : `float`
        Longest wait for a connection (``timeout_connect`` of the site's file).
    read_timeout_seconds : `float`
        Longest silence of a door or frontend (``timeout_read``). A door may rightly be silent for 180 s while
        it selects a pool (protocol page, section 2.1), so values below 200 are asking for trouble.
    idle_timeout_seconds : `float`
        Longest silence of a pool.
    total_timeout_seconds : `float`
        Deadline of one operation, all its requests and repetitions included.
    persistent_connections : `int`
        Idle connections kept to each host and port (``persistent_connections_per_host``).
    reuse_connections : `bool`
        Whether connections are kept at all (``reuse_connection``).
    buffer_size_bytes : `int`
        Piece in which upstream hands bytes to a local file (``buffer_size``, MiB in the file); read only.
    block_size_bytes : `int`
        Upstream's read-ahead (``block_size``, MiB in the file); read, but ours follows what is wanted.
    retries : `int`
        Upstream's count of repetitions; read, but what is repeated here is a table (`..transport.retry`).
    retry_backoff_min_seconds, retry_backoff_max_seconds : `float`
        Upstream's waits; likewise.
    trusted_authorities : `str` or `None`
        Bundle or hashed directory of the certificates to trust; `None` trusts those of the system.
    user_certificate, user_key : `str` or `None`
        Client certificate and key; a proxy holds both in one file.
    user_name : `str` or `None`
        Account for Basic authentication.
    user_password : `~..redaction.Secret` or `None`
        Its password.
    user_password_file : `str` or `None`
        Or the file that holds it.
    token : `~..redaction.Secret` or `None`
        Bearer token by value.
    token_file : `str` or `None`
        Or the file that holds it, read again when it changes.
    token_command : `tuple` [`str`, ...] or `None`
        Or a program, with its arguments, that prints it.
    token_command_timeout_seconds : `float`
        How long the program may run.
    oidc : `OidcSettings` or `None`
        Or an issuer that makes it.
    expected_issuer, expected_audience : `str` or `None`
        Issuer and audience that a token must name to be sent; `None` leaves that to the server.
    netrc_file : `str` or `None`
        File in which account and password of the door's host may stand.
    credential_origin : `str`
        Which setting or variable named the credential, for messages.
    credential_is_unasked : `bool`
        Whether nobody named it, and it was found where such files are by custom.
    token_candidates : `tuple` [`str`, ...]
        Files in which a token may appear later, where there was no credential at all.
    door_urls : `tuple` [`str`, ...]
        Doors that serve the same files and take the place of the one in ``base_url``, which is one of them
        if they come from our own key ``doors`` and not from ``frontend_base_urls`` alone.
    discover_doors : `bool`
        Whether the frontend is asked for further doors, which get the credential as well.
    request_checksum : `str` or `None`
        Checksum that the server is asked to compute for each upload (``request_checksum``).
    enable_fsspec : `bool`
        Whether ``to_fsspec`` returns a file system (``enable_fsspec``).
    frontend_url : `str` or `None`
        Base URL of the REST frontend, ``https://host:3880/`` (``dcache: frontend_url``).
    listing : `str`
        ``auto`` lists directories by the frontend once it is proven to mean the same files, ``rest`` has that
        proven first, ``propfind`` lists by the door.
    listing_page_entries : `int`
        Entries that the frontend is asked for at once; 0 asks for all of a directory.
    discover_frontend : `bool`
        Whether the door is asked for the frontend and the tape API where none is configured, when something
        wants it that only they can do.
    proxy_upload_max_bytes : `int`
        Uploads up to this size go through the door in one request.
    held_pool_urls : `int`
        How many files this process keeps open at pools at the same time, whoever reads them: each occupies a
        place among the transfers of its pool.
    requests_per_second : `float` or `None`
        Ceiling of this process's requests to the door, and of those to the frontend; 0 switches pacing off.
        `None` lets the server decide: 248 where it is a dCache that refuses a host above 250 (protocol
        page, section 1.2), no ceiling elsewhere until a request is refused.
    publish : `str`
        ``atomic`` writes under a temporary name and renames, ``in_place`` writes to the final name.
    exclusive : `str`
        ``exact`` refuses to write with ``overwrite=False`` where the server cannot guarantee a single winner,
        ``best_effort`` looks before it writes.
    http_pools : `str`
        Whether an https door may redirect to an unencrypted pool: ``allow``, ``refuse``, or
        ``without_credential`` where nothing in the URL gives a right to whoever sees it.
    dialect : `str`
        ``auto``, ``dcache``, ``xrootd`` or ``generic``.
    stall_bytes_per_second : `int`
        A transfer that is slower than that for ``stall_seconds``, and waits for the server all the time, is
        abandoned; 0 lets it take its time.
    stall_seconds : `float`
        See there.
    third_party : `str`
        How a file goes between this endpoint and another server: ``pull`` (the server that shall have it
        fetches it), ``push`` (the one that has it sends it), ``never`` (its bytes pass through this process),
        or ``auto``, the first of these that works.
    third_party_from_bytes : `int`
        Size below which a file passes through this process all the same.
    nearline : `str`
        What becomes of the reading of a file that is on tape only: ``fail``, ``wait`` or ``stage``.
    nearline_deadline_seconds : `float`
        How long one is waited for, on top of ``total_timeout_seconds``.
    tape : `bool`
        Whether any file may be on tape only, so that it is asked for before each reading where it is.
    hedge : `bool`
        Whether a small read that has not begun when 95 % of the others had is asked for a second time.
    bulk : `BulkSettings`
        From where on many names are asked for, or removed, together.
    max_body_bytes : `int`
        Largest answer of a door or frontend that is read into memory.
    source : `str`
        File that the settings come from; empty for the defaults.
    unknown_keys : `tuple` [`str`, ...]
        Keys of the file that nobody knows.
    """

    base_url: str
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 300.0
    idle_timeout_seconds: float = 60.0
    total_timeout_seconds: float = 3600.0
    persistent_connections: int = 20
    reuse_connections: bool = True
    buffer_size_bytes: int = 5 * 1024 * 1024
    block_size_bytes: int = 1024 * 1024
    retries: int = 3
    retry_backoff_min_seconds: float = 1.0
    retry_backoff_max_seconds: float = 3.0
    trusted_authorities: str | None = None
    user_certificate: str | None = None
    user_key: str | None = None
    user_name: str | None = None
    user_password: Secret | None = None
    user_password_file: str | None = None
    token: Secret | None = None
    token_file: str | None = None
    token_command: tuple[str, ...] | None = None
    token_command_timeout_seconds: float = 30.0
    oidc: OidcSettings | None = None
    expected_issuer: str | None = None
    expected_audience: str | None = None
    netrc_file: str | None = None
    credential_origin: str = ""
    credential_is_unasked: bool = False
    token_candidates: tuple[str, ...] = field(default=(), compare=False)
    door_urls: tuple[str, ...] = ()
    discover_doors: bool = False
    request_checksum: str | None = None
    enable_fsspec: bool = True
    frontend_url: str | None = None
    listing: str = "auto"
    listing_page_entries: int = 0
    discover_frontend: bool = True
    proxy_upload_max_bytes: int = 100_000
    held_pool_urls: int = 32
    requests_per_second: float | None = None
    publish: str = "atomic"
    exclusive: str = "exact"
    http_pools: str = "without_credential"
    dialect: str = "auto"
    stall_bytes_per_second: int = 10_000
    stall_seconds: float = 30.0
    third_party: str = "auto"
    third_party_from_bytes: int = 1
    nearline: str = "fail"
    nearline_deadline_seconds: float = 3600.0
    tape: bool = False
    hedge: bool = False
    bulk: BulkSettings = BulkSettings()
    max_body_bytes: int = 256 * 1024 * 1024
    source: str = ""
    unknown_keys: tuple[str, ...] = field(default=())

    @cached_property
    def origins(self) -> frozenset[Origin]:
        """Doors and frontend of this endpoint: the only servers that may see its credential."""
        urls = [self.base_url, *self.door_urls]
        if self.frontend_url is not None:
            urls.append(self.frontend_url)
        return frozenset(origin_of(url) for url in urls)

    @property
    def is_encrypted(self) -> bool:
        """Whether the door is reached over TLS."""
        return self.base_url.startswith("https:")

    def lets_unencrypted(self, url: str) -> bool:
        """Tell whether an unencrypted server may be asked for what a door redirects to.

        Parameters
        ----------
        url : `str`
            Where the redirect leads.

        Returns
        -------
        may : `bool`
            Whether it may.
        """
        if not self.is_encrypted or self.http_pools == "allow":
            return True
        return self.http_pools == "without_credential" and not has_credential(url)
