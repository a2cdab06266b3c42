"""What the doctor asks an S3 service."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

from ..auth.clock import clock_offset
from ..config.s3 import S3Settings, s3_settings_for
from ..errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DoorUnavailableError,
    ResourceNotFoundError,
    UnsupportedError,
)
from ..model import FileInfo
from ..s3.access_key import key_source
from ..s3.address import parse
from ..s3.conditions import CreateOnly
from ..s3.endpoint import S3Endpoint
from ..s3.orphans import UnfinishedUploads
from ..store.registry import store_for
from ..transport.pacing import pacer_for
from ..transport.tls import tls_context
from .examination import Examination, Step

__all__ = ("BucketExamination",)

_TEST_BYTES = 1_000_000
_UPLOADS_COUNTED = 1000
_RIGHTS = "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on what is in it"


class BucketExamination(Examination):
    """The steps at an S3 service.

    Parameters
    ----------
    url : `str`
        A directory of a bucket in which this user may write: ``s3://[profile@]bucket/prefix/``.
    """

    server = "service"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._endpoint: S3Endpoint | None = None

    @property
    def endpoint(self) -> S3Endpoint:
        """The bucket at its service."""
        if self._endpoint is None:
            self._endpoint = S3Endpoint(self._settings)
        return self._endpoint

    @property
    def _settings(self) -> S3Settings:
        address = parse(self.url)
        return s3_settings_for(address.profile, address.bucket)

    def steps(self) -> list[Step]:
        """Return title and function of each step; the functions return what they found or raise."""
        return [
            ("profile and endpoint", self.configuration),
            ("trust", self.trust),
            ("access key", self.access_key),
            ("service", self.service),
            ("clock", self.clock),
            ("bucket and list", self.bucket),
            ("pacing", self.pacing),
            ("write", self.write),
            ("read", self.read),
            ("delete", self.delete),
            ("create without replacing", self.conditions),
            ("unfinished uploads", self.unfinished),
        ]

    def configuration(self) -> str:
        """Find the service and how the bucket is addressed there."""
        endpoint, settings = self.endpoint, self._settings
        named = settings.origin or "AWS's variables and files, or its default"
        found = f"{endpoint.root}, from {named}; region {endpoint.region}, {endpoint.addressing} style"
        if settings.profile is not None and not settings.origin.endswith(f"_{settings.profile}"):
            found += f"; there is no LSST_RESOURCES_S3_PROFILE_{settings.profile}"
        return f"{found}; time limits and pacing from {endpoint.limits.source or 'the defaults'}"

    def trust(self) -> str:
        """Load the certificates."""
        limits = self.endpoint.limits
        if not limits.is_encrypted:
            return "not needed: the connection is not encrypted"
        tls_context(limits, client_certificate=False)
        return f"authorities of {limits.trusted_authorities or 'this system'}"

    def access_key(self) -> str:
        """Find the key; whether the service knows it shows later."""
        key = key_source(self._settings).current()
        found = f"{key.mark}, from {key.origin}"
        if key.expires is not None:
            found += f", valid until {key.expires.isoformat(timespec='seconds')}, then looked for again"
        return found

    def service(self) -> str:
        """Ask for the bucket without the key: every answer shows that the service is there."""
        endpoint = self.endpoint
        sent = _now()
        answer = endpoint.control.request(
            "GET", f"{endpoint.root}/?max-keys=1", deadline=endpoint.deadline(), ok=(401,)
        )
        self._clock_offset = clock_offset(answer.headers.get("Date") or "", sent, _now())
        return answer.headers.get("Server") or "reachable; it does not say what it is"

    def pacing(self) -> str:
        """Say how fast requests are sent, and whether other processes know of it."""
        return pacer_for(self.endpoint.limits).describe()

    def bucket(self) -> str:
        """List what is there: needs the bucket, a key that the service knows, and the right to list."""
        endpoint = self.endpoint
        page = endpoint.call(
            "list_objects_v2",
            url=self.url,
            operation="list",
            deadline=endpoint.deadline(),
            Prefix=parse(self.url).key,
            MaxKeys=1,
        )
        return "is there; " + ("nothing begins so yet" if not page.get("KeyCount") else "may be listed")

    def conditions(self) -> str:
        """See whether there is one winner among those who create one object."""
        endpoint = self.endpoint
        conditions, deadline = CreateOnly(endpoint), endpoint.deadline()
        name = f"{self.url}.doctor"
        try:
            is_honoured = conditions.prepare(name, deadline=deadline)
        except UnsupportedError:
            is_honoured = False
        if not is_honoured:
            what = (
                "refused"
                if endpoint.limits.exclusive == "exact"
                else "done after a look, which others may beat"
            )
            return f"If-None-Match is ignored: overwrite=False is {what}"
        if conditions.multipart_is_exact(name, deadline=deadline):
            return "If-None-Match is honoured, for objects of any size"
        return "If-None-Match is honoured, for objects of one PUT (5 GiB)"

    def unfinished(self) -> str:
        """Count uploads in parts that nobody has completed: they take space that no listing shows."""
        try:
            count = sum(1 for _ in islice(UnfinishedUploads(self.endpoint).find(self.url), _UPLOADS_COUNTED))
        except (AccessDeniedError, UnsupportedError) as exc:
            return f"may not be listed ({exc.reason or exc})"
        rule = self._rule()
        if not count:
            return f"none; {rule}"
        many = "at least " if count == _UPLOADS_COUNTED else ""
        return (
            f"{many}{count} below this directory; dcache-butler clean-orphans {self.url} tells which; {rule}"
        )

    def _rule(self) -> str:
        """Say whether the service aborts them by itself."""
        endpoint = self.endpoint
        try:
            found = endpoint.call(
                "get_bucket_lifecycle_configuration",
                url=self.url,
                operation="look up rules",
                deadline=endpoint.deadline(),
            )
        except ResourceNotFoundError:
            return "no rule of the bucket aborts them"
        except DcacheError:
            return "whether a rule of the bucket aborts them is not known"
        days = [
            action["DaysAfterInitiation"]
            for rule in found.get("Rules", ())
            if rule.get("Status") == "Enabled" and (action := rule.get("AbortIncompleteMultipartUpload"))
        ]
        return f"a rule aborts them after {min(days)} days" if days else "no rule of the bucket aborts them"

    def test_size(self) -> int:
        """Return a size that is one request."""
        return _TEST_BYTES

    def server_checksum(self, written: FileInfo) -> tuple[str, str] | None:
        """Ask which checksum the service has kept: what was computed here proves nothing of it."""
        kept = store_for(written.url).stat(written.url).checksums
        return next(((name, kept[name]) for name in kept if written.checksums.get(name) == kept[name]), None)

    def served_by(self) -> str:
        """Name the servers that had the bytes of this step."""
        servers = {
            one.url.partition("://")[2].partition("/")[0] for one in self.exchanges if one.plane == "data"
        }
        return ", ".join(sorted(servers))

    def advice(self, error: Exception) -> str | None:
        """Say what to do where it is something else than at a door."""
        if isinstance(error, AccessDeniedError) and not isinstance(error, CredentialError):
            return f"ask for {_RIGHTS}. {error.hint or ''}".strip()
        if isinstance(error, DcacheError) and error.hint:
            return None
        for kind, advice in (
            (CredentialError, "correct the access key where it was found, or get a new one"),
            (ResourceNotFoundError, "check the name of the bucket and the profile"),
            (DoorUnavailableError, "check host, port and firewall, and AWS_CA_BUNDLE or trusted_authorities"),
            (ConfigurationError, "correct LSST_RESOURCES_S3_PROFILE_<name>, S3_ENDPOINT_URL or AWS's files"),
        ):
            if isinstance(error, kind):
                return advice
        return None


def _now() -> datetime:
    return datetime.now(UTC)
