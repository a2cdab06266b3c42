"""PROPFIND answers, names, ranges and error texts: what can be said without a server."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange, EntryKind, Locality
from lsst.daf.butler_dcache.transport import failures, ranges
from lsst.daf.butler_dcache.webdav import addresses, multipart, propfind

URL = "davs://door:2880/data/ns/"

LISTING = b"""<?xml version="1.0" encoding="utf-8" ?>
<d:multistatus xmlns:cs="http://calendarserver.org/ns/" xmlns:d="DAV:"
 xmlns:ns1="http://srm.lbl.gov/StorageResourceManager" xmlns:ns2="http://www.dcache.org/2013/webdav">
<d:response><d:href>/data/ns/</d:href>
 <d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop>
  <d:status>HTTP/1.1 200 OK</d:status></d:propstat>
 <d:propstat><d:prop><d:getcontentlength/><Checksums/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status>
 </d:propstat></d:response>
<d:response><d:href>/data/ns/a%20b%26%2B%25.bin</d:href>
 <d:propstat><d:prop><d:getcontentlength>10240</d:getcontentlength>
  <d:getlastmodified>Tue, 24 Nov 2026 05:46:51 GMT</d:getlastmodified>
  <d:getetag>"0000AB_-17"</d:getetag>
  <ns2:Checksums>md5=XUFAKrxLKna5cZ2REBfFkg==,adler32=62c0215</ns2:Checksums>
  <ns1:FileLocality>NEARLINE</ns1:FileLocality></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>
 <d:propstat><d:prop><d:resourcetype/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>
</d:response>
<d:response><d:href>/data/ns/growing</d:href>
 <d:propstat><d:prop><d:getcontentlength/><d:resourcetype/></d:prop>
  <d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response>
<d:response><d:href>/data/ns/sub/</d:href>
 <d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop>
  <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
<d:response><d:href>/data/ns/sub/below</d:href>
 <d:propstat><d:prop><d:getcontentlength>1</d:getcontentlength></d:prop>
  <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
</d:multistatus>"""


def test_listing() -> None:
    own, first, growing, sub = propfind.parse_multistatus([LISTING], URL)
    assert own.url == URL
    assert own.kind is EntryKind.DIRECTORY
    assert first.url == "davs://door:2880/data/ns/a%20b%26%2B%25.bin"
    assert first.kind is EntryKind.FILE
    assert first.size == 10240
    assert first.checksums == {"md5": "5d41402abc4b2a76b9719d911017c592", "adler32": "062c0215"}
    assert first.etag == '"0000AB_-17"'
    assert first.locality is Locality.NEARLINE
    assert first.modified == datetime(2026, 11, 24, 5, 46, 51, tzinfo=UTC)
    assert growing.is_file
    assert growing.size is None
    assert sub.url == "davs://door:2880/data/ns/sub/"
    assert sub.is_directory


def test_directory_asked_for_without_slash() -> None:
    assert next(propfind.parse_multistatus([LISTING], URL.rstrip("/"))).url == URL


def test_hrefs_that_are_not_quoted() -> None:
    body = b"""<D:multistatus xmlns:D="DAV:"><D:response><D:href>/d/</D:href></D:response>
    <D:response><D:href>/d/100%25 #1?.txt</D:href></D:response></D:multistatus>"""
    child = list(propfind.parse_multistatus([body], "davs://door/d/", encoded=False))[1]
    assert child.url == "davs://door/d/100%2525%20%231%3F.txt"


def test_relay_that_adds_a_prefix() -> None:
    body = b"""<D:multistatus xmlns:D="DAV:"><D:response><D:href>https://in/x/d/</D:href></D:response>
    <D:response><D:href>https://in/x/d/f</D:href></D:response></D:multistatus>"""
    assert [entry.name for entry in propfind.parse_multistatus([body], "davs://door/d/")] == ["d", "f"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>sign in</body></html>",
        b'<D:multistatus xmlns:D="DAV:"/>',
        b'<!DOCTYPE x [<!ENTITY a "b">]><D:multistatus xmlns:D="DAV:"/>',
        b'<D:multistatus xmlns:D="DAV:"><D:response><D:href>/other</D:href></D:response></D:multistatus>',
        LISTING[:-20],
    ],
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        list(propfind.parse_multistatus([body], URL))


def test_checksums_in_both_forms() -> None:
    assert propfind.parse_checksums(
        "adler32=2C0215, sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
    ) == {
        "adler32": "002c0215",
        "sha-256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert propfind.parse_checksums("md5=not base64!,UNIXsum=") == {}


@pytest.mark.parametrize(
    ("url", "http_url"),
    [
        ("davs://door:2880/a%20b", "https://door:2880/a%20b"),
        ("dav://door/a?b#c", "http://door/a?b"),
        ("DAVS://door", "https://door/"),
    ],
)
def test_http_url(url: str, http_url: str) -> None:
    assert addresses.to_http(url) == http_url


def test_foreign_scheme() -> None:
    with pytest.raises(errors.ConfigurationError):
        addresses.to_http("s3://bucket/key")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("davs://door:2880/a/b", "https://DOOR:2880/a//b", True),
        ("davs://door/a%2Bb", "davs://door:443/a+b", True),
        ("davs://door/a/../b", "davs://door/b/", True),
        ("davs://door/a", "dav://door/a", False),
        ("davs://door/a", "davs://door/A", False),
    ],
)
def test_same_name(first: str, second: str, same: bool) -> None:
    assert addresses.same_name(first, second) is same


def test_parent() -> None:
    assert addresses.parent("davs://door/a/b/c") == "davs://door/a/b/"
    assert addresses.parent("davs://door/a/b/") == "davs://door/a/"
    assert addresses.parent("davs://door/a") == "davs://door/"
    assert addresses.parent("davs://door/") == "davs://door/"


@pytest.mark.parametrize(
    "name", ["short.fits", "n" * 255, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 127, "a b%+&"]
)
def test_temporary_names(name: str) -> None:
    url = addresses.join("davs://door/a/", name)
    for made in (addresses.temporary_name(url), addresses.lock_name(url)):
        assert addresses.parent(made) == "davs://door/a/"
        own = addresses.decoded_path(made).rpartition("/")[2]
        assert len(own.encode()) <= 255
        assert addresses.is_temporary(own)
    assert addresses.temporary_name(url) != addresses.temporary_name(url)
    assert addresses.lock_name(url) == addresses.lock_name(url.replace("%20", " "))
    assert not addresses.is_temporary(name)


def test_locks_of_long_names_differ() -> None:
    assert addresses.lock_name("davs://d/" + "n" * 254 + "1") != addresses.lock_name(
        "davs://d/" + "n" * 254 + "2"
    )


def multipart_body(*parts: tuple[str, bytes], boundary: bytes = b"__AAAAAAAAAAAAAAAA__") -> bytes:
    body = b""
    for content_range, data in parts:
        body += b"\r\n--" + boundary + b"\r\nContent-Range: " + content_range.encode() + b"\r\n\r\n" + data
    return body + b"\r\n--" + boundary + b"--\r\n"


def parts_in(body: bytes, wanted: list[ByteRange], size: int | None) -> list[multipart.Part]:
    found = multipart.parts_of(io.BytesIO(body).readinto, wanted, size, URL)
    return [part for parts, total in found for part in parts if total == 100]


def test_parts_by_length() -> None:
    tricky = b"\r\n--__AAAAAAAAAAAAAAAA__--\r\n\r\n"
    body = multipart_body(("bytes 5-34/100", tricky), ("bytes 0-1/100", b"ab"))
    wanted = [ByteRange(5, 35), ByteRange(0, 2)]
    parts = parts_in(body, sorted(wanted, key=lambda one: one.start), None)
    assert ranges.pick(parts, wanted, URL) == [tricky, b"ab"]
    assert ranges.pick(parts, wanted[::-1], URL) == [b"ab", tricky]
    assert ranges.pick(parts, [ByteRange(6, 7)], URL) == [b"\n"]


def test_cut_parts() -> None:
    body = multipart_body(("bytes 0-1/100", b"ab"), ("bytes 5-9/100", b"fghij"))
    for length in range(len(body) - 2):
        with pytest.raises(errors.ProtocolError):
            parts_in(body[:length].rstrip(b"-"), [ByteRange(0, 2), ByteRange(5, 10)], 100)


def test_nothing_is_kept_but_what_was_asked_for() -> None:
    body = multipart_body(("bytes 0-9/100", b"0123456789"), ("bytes 20-99/100", bytes(80)))
    wanted = [ByteRange(1, 3), ByteRange(5, 6), ByteRange(40, 42)]
    assert parts_in(body, wanted, 100) == [(wanted[0], b"12"), (wanted[1], b"5"), (wanted[2], b"\0\0")]
    again = multipart_body(*[("bytes 0-1/100", b"ab")] * 3)
    with pytest.raises(errors.ProtocolError, match="again"):
        parts_in(again, [ByteRange(0, 2)], 100)
    with pytest.raises(errors.ProtocolError, match="no end"):
        parts_in(b"--x\r\nName: " + bytes(100_000), [ByteRange(0, 2)], 100)


def test_memory_comes_with_the_bytes() -> None:
    assert ranges.read_up_to(io.BytesIO(b"abc").readinto, 1 << 60) == b"abc"


@pytest.mark.parametrize(
    "value",
    ["", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "items 0-1/100", "bytes 0--1/0", "bytes 0-9/99"],
)
def test_wrong_content_range(value: str) -> None:
    with pytest.raises(errors.ProtocolError):
        multipart.parse_content_range(value, 100, URL)


def test_missing_range() -> None:
    parts = parts_in(multipart_body(("bytes 0-1/100", b"ab")), [ByteRange(0, 3)], 100)
    with pytest.raises(errors.ProtocolError):
        ranges.pick(parts, [ByteRange(0, 3)], URL)


@dataclass
class Answer:
    status: int
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("status", "reason", "body", "method", "at_pool", "kind"),
    [
        (401, "macaroon login denied: expired", b"", "GET", False, errors.CredentialError),
        (403, "Forbidden", b"Permission denied for PUT on path /p\n", "PUT", False, errors.AccessDeniedError),
        (
            403,
            "Forbidden",
            b"File not online. Staging not allowed.\n",
            "GET",
            False,
            errors.NearlineError,
        ),
        (404, "Not Found", b"Path not found: /p\n", "GET", False, errors.ResourceNotFoundError),
        (405, "Method Not Allowed", b"", "PUT", False, errors.ResourceIsDirectoryError),
        (405, "Method Not Allowed", b"", "MKCOL", False, errors.ResourceExistsError),
        (409, "Conflict", b"<html></html>", "MOVE", False, errors.ParentNotFoundError),
        (409, "Conflict", b"", "PUT", False, errors.ResourceExistsError),
        (412, "Precondition Failed", b"", "MOVE", False, errors.ResourceExistsError),
        (429, "Too Many Requests", b"Server is busy.", "GET", False, errors.ServerBusyError),
        (500, "Server Error", b"Internal problem: File is broken\n", "GET", False, errors.FileBrokenError),
        (500, "E", b"Internal problem: File upload not yet completed", "GET", False, errors.FileBrokenError),
        (
            500,
            "E",
            b"No pool candidates available/configured/left for stage",
            "GET",
            False,
            errors.NearlineError,
        ),
        (500, "E", b"Request to [>PoolManager@local] timed out.", "GET", False, errors.NearlineError),
        (500, "No such file or directory: 0000AB", b"", "PUT", True, errors.UploadDisplacedError),
        (500, "E", b"Internal problem: No such file or directory: 0000", "MOVE", False, errors.ServerError),
        (400, "Checksum mismatch (expected=[1], actual=[2])", b"", "PUT", True, errors.IntegrityError),
        (503, "Service Unavailable", b"", "GET", False, errors.DoorUnavailableError),
        (507, "E", b"Insufficient storage: SER_DISK_FULL\n", "PUT", False, errors.StoreFullError),
        # Names in the text are no cause.
        (
            403,
            "E",
            b"Permission denied for PUT on path /a b/staging/f\n",
            "PUT",
            False,
            errors.AccessDeniedError,
        ),
        (500, "E", b"Internal problem: no entry /restore/f: timeout\n", "PUT", False, errors.ServerError),
        (501, "Not Implemented", b"", "COPY", False, errors.UnsupportedError),
        (418, "Teapot", b"", "GET", False, errors.ProtocolError),
    ],
)
def test_error_by_cause(
    status: int, reason: str, body: bytes, method: str, at_pool: bool, kind: type[errors.DcacheError]
) -> None:
    error = failures.failure(
        Answer(status, reason), operation="x", url="davs://d/p", body=body, method=method, at_pool=at_pool
    )
    assert type(error) is kind
    assert error.status == status


@pytest.mark.parametrize(
    ("status", "body", "kind", "cause", "remedy"),
    [
        (
            507,
            b"Insufficient storage: SER_QUOTA_EXCEEDED\n",
            errors.StoreFullError,
            "quota",
            "site for more",
        ),
        (507, b"All pools are full", errors.StoreFullError, "pools .* are full", "ask the site for space"),
        (507, b"Fallback cost exceeded", errors.StoreFullError, "pools .* are full", "Remove files"),
        (507, b"Insufficient storage: SER_DISK_FULL\n", errors.StoreFullError, "no space", "max-upload"),
        (507, b"", errors.StoreFullError, "no space", "Remove files"),
        (500, b"No write pools online for [a]", errors.ServerError, "in service", "not full"),
        (500, b"No write pool configured", errors.ServerError, "in service", "not full"),
        (
            500,
            b"No pool candidates left for stage",
            errors.NearlineError,
            "tape",
            "Stage",
        ),
        (500, b"File is unavailable.", errors.NearlineError, "online", "pool may be down"),
        (403, b"File not online. Staging not allowed.", errors.NearlineError, "tape", "STAGE"),
        (
            403,
            b"Permission denied for PUT on path /f",
            errors.AccessDeniedError,
            "refuses to write",
            "read-only",
        ),
    ],
)
def test_why_nothing_is_written_or_read(
    status: int, body: bytes, kind: type[errors.DcacheError], cause: str, remedy: str
) -> None:
    """Disk full, quota, nearline and a read-only door are told apart, each with what helps."""
    error = failures.failure(Answer(status, "E"), operation="x", url="davs://d/p", body=body, method="PUT")
    assert type(error) is kind
    assert re.search(cause, error.message)
    assert remedy in error.hint


def test_the_servers_own_words() -> None:
    assert failures.words(Answer(500, "Server Error"), b"Internal problem: X\n") == "Internal problem: X"
    assert failures.words(Answer(409, "Conflict"), b"<html><h1>Conflict</h1>") == "Conflict"
    detail = Answer(400, "Bad Request", {"Content-Type": "application/json"})
    assert failures.words(detail, b'{"status":"400","detail":"File exists: /a"}') == "File exists: /a"
    assert failures.words(detail, b"{broken") == "Bad Request"


def test_dead_mover() -> None:
    assert failures.is_mover_gone(Answer(307, "Request is no longer valid"))
    assert failures.is_mover_gone(Answer(400, "Request is no longer valid. Please resubmit to door."))
    assert not failures.is_mover_gone(Answer(400, "Invalid definition of ranges"))
