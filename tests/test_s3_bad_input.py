"""What an S3 server must not say, or says when something is wrong: the right error, and no wrong bytes."""

from __future__ import annotations

import base64
import hashlib
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from awscrt import checksums
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from s3_service import SECRET_KEY, SESSION_TOKEN, Asked, error, listing, reply, service

DATA = bytes(range(256)) * 400
ETAG = f'"{hashlib.md5(DATA).hexdigest()}"'
CRC = base64.b64encode(checksums.crc64nvme(DATA).to_bytes(8, "big")).decode()
URL = "s3://bucket/dir/file"
NOW = {"Retry_After": "0"}
"""Nobody waits here; how long is waited otherwise is the retry table's business."""

Act = Callable[[Store], object]

READS: dict[str, Act] = {
    "read": lambda store: store.read(URL),
    "ranges": lambda store: store.read_ranges(URL, [ByteRange(10, 20)]),
    "stat": lambda store: store.stat(URL),
    "list": lambda store: store.list_directory("s3://bucket/dir/"),
}
WRITES: dict[str, Act] = {
    "write": lambda store: store.write(URL, DATA),
    "copy": lambda store: store.copy(URL, "s3://bucket/dir/other", overwrite=True),
}
ALL = READS | WRITES


def act_on(store: Store, name: str) -> object:
    return ALL[name](store)


def whole(**headers: str) -> bytes:
    return reply(200, DATA, ETag=ETAG, Accept_Ranges="bytes", **headers)


def part(asked: Asked, data: bytes = DATA, **headers: str) -> bytes:
    """The bytes that were asked for."""
    first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
    start, stop = (
        (int(first), int(last or len(data) - 1) + 1) if first else (len(data) - int(last), len(data))
    )
    stop = min(stop, len(data))
    span = f"bytes {start}-{stop - 1}/{len(data)}"
    return reply(206, data[start:stop], **{"ETag": ETAG, "Content_Range": span, **headers})


def is_range(asked: Asked) -> bool:
    return "range" in asked.headers


class TestReading:
    """What comes back is the object's own bytes, or an error."""

    def test_a_server_that_ignores_ranges(self, tmp_path: Path) -> None:
        with service(tmp_path, lambda asked: whole()):
            store = store_for(URL)
            spans = [ByteRange(5, 17), ByteRange(90_000, 90_100), ByteRange(len(DATA) - 3, len(DATA))]
            assert store.read_ranges(URL, spans) == [DATA[span.start : span.stop] for span in spans]
            reader = store.open_reader(URL)
            start, tail = reader.read_tail(100)
            assert (start, tail) == (len(DATA) - 100, DATA[-100:])
            assert b"".join(reader.stream(1000)) == DATA[1000:]
            reader.close()

    @pytest.mark.parametrize("sum_of_all", [CRC, base64.b64encode(bytes(8)).decode()])
    def test_the_checksum_of_the_whole_on_a_part(self, tmp_path: Path, sum_of_all: str) -> None:
        def answer(asked: Asked) -> bytes:
            return part(asked, x_amz_checksum_crc64nvme=sum_of_all, x_amz_checksum_type="FULL_OBJECT")

        with service(tmp_path, answer):
            assert store_for(URL).read_ranges(URL, [ByteRange(300, 400)]) == [DATA[300:400]]

    @pytest.mark.parametrize(
        "headers",
        [
            {"x_amz_checksum_crc64nvme": base64.b64encode(bytes(8)).decode()},
            {"x_amz_checksum_sha256": base64.b64encode(bytes(32)).decode()},
            {"x_amz_checksum_crc32c": base64.b64encode(bytes(4)).decode()},
            {"ETag": f'"{hashlib.md5(b"other").hexdigest()}"'},
        ],
        ids=lambda headers: next(iter(headers)),
    )
    def test_other_bytes_than_were_announced(self, tmp_path: Path, headers: dict[str, str]) -> None:
        with service(tmp_path, lambda asked: reply(200, DATA, **{"ETag": ETAG, **headers})):
            with pytest.raises(errors.IntegrityError):
                store_for(URL).read(URL)
            with (tmp_path / "target").open("wb") as target, pytest.raises(errors.IntegrityError):
                store_for(URL).download(URL, target)

    def test_a_checksum_of_checksums_is_not_the_objects(self, tmp_path: Path) -> None:
        composite = {"x_amz_checksum_crc32c": "AAAAAA==-2", "x_amz_checksum_type": "COMPOSITE"}
        etag = f'"{hashlib.md5(b"parts").hexdigest()}-2"'
        with service(tmp_path, lambda asked: reply(200, DATA, ETag=etag, **composite)):
            assert store_for(URL).read(URL) == DATA

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content_Range": f"bytes 11-110/{len(DATA)}"},
            {"Content_Range": f"bytes 10-109/{len(DATA) + 1}"},
            {"Content_Range": "nonsense"},
            {"Content_Range": "bytes 10-109/5"},
        ],
        ids=lambda headers: headers["Content_Range"],
    )
    def test_other_bytes_than_were_asked_for(self, tmp_path: Path, headers: dict[str, str]) -> None:
        asked_once: list[Asked] = []

        def answer(asked: Asked) -> bytes:
            if not is_range(asked):
                return whole()
            if not asked_once:  # the first answer tells which version it is
                asked_once.append(asked)
                return part(asked)
            return reply(206, DATA[10:110], ETag=ETAG, **headers)

        with service(tmp_path, answer):
            reader = store_for(URL).open_reader(URL)
            reader.read_ranges([ByteRange(0, 5)])
            try:
                assert reader.read_ranges([ByteRange(50_010, 50_110)]) == [DATA[50_010:50_110]]
            except (errors.ProtocolError, errors.IntegrityError):
                pass
            finally:
                reader.close()

    def test_another_version_comes_between_two_parts(self, tmp_path: Path) -> None:
        tags = iter([ETAG])

        def answer(asked: Asked) -> bytes:
            tag = next(tags, '"another"')
            if asked.headers.get("if-match") not in (None, tag):
                return error(412, "PreconditionFailed")
            return part(asked, ETag=tag) if is_range(asked) else reply(200, DATA, ETag=tag)

        with service(tmp_path, answer):
            reader = store_for(URL).open_reader(URL)
            reader.read_ranges([ByteRange(0, 5)])
            with pytest.raises(errors.IntegrityError, match="replaced"):
                reader.read_ranges([ByteRange(50_000, 50_010)])
            reader.close()

    def test_a_body_that_is_cut_goes_on_where_it_ended(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if is_range(asked):
                assert asked.headers["if-match"] == ETAG
                return part(asked)
            return reply(200, DATA[:50_000], length=len(DATA), ETag=ETAG, Connection="close")

        with service(tmp_path, answer) as server:
            assert store_for(URL).read(URL) == DATA
            assert server.count("GET") == 2

    def test_a_body_that_is_cut_and_changed_is_not_put_together(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if is_range(asked):
                return error(412, "PreconditionFailed")
            return reply(200, DATA[:50_000], length=len(DATA), ETag=ETAG, Connection="close")

        kinds = (errors.IntegrityError, errors.DoorUnavailableError, errors.DeadlineError)
        with service(tmp_path, answer, total_timeout_seconds=3.0), pytest.raises(kinds):
            store_for(URL).read(URL)

    def test_a_page_in_place_of_the_size(self, tmp_path: Path) -> None:
        """As relays say it that want somebody to log in."""
        with (
            service(tmp_path, lambda asked: reply(200, "<html>log in</html>", ETag=ETAG)),
            pytest.raises(errors.IntegrityError),
        ):
            store_for(URL).read(URL)


class TestRefusals:
    """By the code, for texts are empty or anything; and by the status, for HEAD has no body."""

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (403, "AccessDenied", errors.AccessDeniedError),
            (403, "SignatureDoesNotMatch", errors.CredentialError),
            (403, "InvalidAccessKeyId", errors.CredentialError),
            (404, "NoSuchBucket", errors.ResourceNotFoundError),
            (507, "InsufficientStorage", errors.StoreFullError),
            (301, "PermanentRedirect", errors.ConfigurationError),
            (501, "NotImplemented", errors.UnsupportedError),
            (418, "NeverHeardOf", errors.ProtocolError),
        ],
    )
    def test_codes_without_texts(
        self, tmp_path: Path, name: str, status: int, code: str, kind: type[errors.DcacheError]
    ) -> None:
        with service(tmp_path, lambda asked: error(status, code)), pytest.raises(kind) as caught:
            act_on(store_for(URL), name)
        assert SECRET_KEY not in str(caught.value)
        if code != "AccessDenied":
            assert not isinstance(caught.value, errors.AccessDeniedError) or isinstance(
                caught.value, errors.CredentialError
            )

    @pytest.mark.parametrize("name", WRITES)
    def test_a_quota(self, tmp_path: Path, name: str) -> None:
        """As radosgw says it: 403."""

        def answer(asked: Asked) -> bytes:
            return error(403, "QuotaExceeded") if asked.method == "PUT" else whole()

        with service(tmp_path, answer), pytest.raises(errors.StoreFullError):
            act_on(store_for(URL), name)

    @pytest.mark.parametrize("name", ALL)
    def test_a_session_token_that_has_expired(self, tmp_path: Path, name: str) -> None:
        with (
            service(tmp_path, lambda asked: error(400, "ExpiredToken"), token=SESSION_TOKEN) as server,
            pytest.raises(errors.CredentialError, match="token has expired") as caught,
        ):
            act_on(store_for(URL), name)
        assert server.asked[0].headers["x-amz-security-token"] == SESSION_TOKEN
        assert len(server.asked) <= 4
        assert SESSION_TOKEN not in repr(caught.value) + str(caught.value) + str(vars(caught.value))

    @pytest.mark.parametrize("minutes", [20, -20])
    @pytest.mark.parametrize("name", ALL)
    def test_a_clock_that_is_wrong(self, tmp_path: Path, name: str, minutes: int) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
        with (
            service(tmp_path, lambda asked: error(403, "RequestTimeTooSkewed", Date=date)),
            pytest.raises(errors.CredentialError, match=r"clock.* 20 minutes"),
        ):
            act_on(store_for(URL), name)

    @pytest.mark.parametrize("name", ALL)
    def test_nothing_follows_a_redirect_to_somebody_else(self, tmp_path: Path, name: str) -> None:
        statuses = iter([301, 302, 307])

        def answer(asked: Asked) -> bytes:
            return error(next(statuses, 308), "TemporaryRedirect", Location=f"{place}bucket/dir/file")

        with service(tmp_path, lambda asked: reply(200)) as other:
            place = other.url
            with service(tmp_path, answer) as server:
                for number in range(3):
                    with pytest.raises((errors.ConfigurationError, errors.ProtocolError)):
                        act_on(store_for(URL), name)
                    assert len(server.asked) > number
            assert other.asked == []


class TestTroubleThatPasses:
    @pytest.mark.parametrize("name", READS)
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (503, "SlowDown"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (400, "RequestTimeout"),
            (503, ""),
        ],
    )
    def test_is_waited_for(self, tmp_path: Path, name: str, status: int, code: str) -> None:
        trouble = 2

        def answer(asked: Asked) -> bytes:
            nonlocal trouble
            if trouble:
                trouble -= 1
                return error(status, code, **NOW)
            if asked.query.get("list-type"):
                return listing("dir/a", prefix="dir/")
            return part(asked) if is_range(asked) else whole()

        with service(tmp_path, answer):
            assert act_on(store_for(URL), name)
        assert trouble == 0

    def test_a_server_that_is_always_busy(self, tmp_path: Path) -> None:
        with (
            service(tmp_path, lambda asked: error(503, "SlowDown", **NOW)) as server,
            pytest.raises(errors.ServerBusyError) as caught,
        ):
            store_for(URL).read(URL)
        # boto3 does not repeat what we repeat.
        assert len(server.asked) == caught.value.attempts <= 10

    def test_boto3_repeats_nothing(self, tmp_path: Path) -> None:
        with (
            service(tmp_path, lambda asked: error(503, "SlowDown", **NOW)) as server,
            pytest.raises(errors.ServerBusyError) as caught,
        ):
            store_for(URL).list_directory("s3://bucket/dir/")
        assert len(server.asked) == caught.value.attempts <= 10

    @pytest.mark.parametrize("name", ALL)
    def test_a_server_that_says_nothing_is_not_waited_for_for_ever(self, tmp_path: Path, name: str) -> None:
        silence = (errors.DeadlineError, errors.DoorUnavailableError, errors.OutcomeUnknownError)
        limits = {"idle_timeout_seconds": 0.2, "timeout_read": 0.2, "total_timeout_seconds": 1.0}
        with service(tmp_path, lambda asked: b"", **limits) as server:
            store = store_for(URL)
            begun = time.monotonic()
            with pytest.raises(silence):
                act_on(store, name)
            assert time.monotonic() - begun < 10
            assert server.asked

    def test_a_body_that_stops(self, tmp_path: Path) -> None:
        part_of_it = reply(200, DATA[:1000], length=len(DATA), ETag=ETAG)
        limits = {"idle_timeout_seconds": 0.2, "total_timeout_seconds": 1.0}
        with service(tmp_path, lambda asked: part_of_it, **limits):
            store = store_for(URL)
            begun = time.monotonic()
            with pytest.raises((errors.DeadlineError, errors.DoorUnavailableError, errors.IntegrityError)):
                store.read(URL)
            assert time.monotonic() - begun < 10


class TestUploads:
    LARGE = bytes(1024) * 1024 * 17

    @staticmethod
    def _parts(asked: Asked, complete: bytes, there: bytes | None = None) -> bytes:
        if asked.method == "POST" and "uploads" in asked.query:
            text = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
            return reply(200, f'<?xml version="1.0"?>{text}')
        if asked.method == "POST":
            return complete
        if asked.method == "PUT":
            return reply(200, ETag=f'"{hashlib.md5(asked.body).hexdigest()}"')
        if asked.method == "HEAD":
            return there or error(404, "NoSuchKey")
        return reply(204)

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("InternalError", errors.DcacheError),
            ("AccessDenied", errors.AccessDeniedError),
            ("InvalidPart", errors.IntegrityError),
            ("QuotaExceeded", errors.StoreFullError),
        ],
    )
    def test_an_error_with_status_200_at_the_end(
        self, tmp_path: Path, code: str, kind: type[errors.DcacheError]
    ) -> None:
        failed = error(200, code, **NOW)
        with service(tmp_path, lambda asked: self._parts(asked, failed)) as server:
            with pytest.raises(kind):
                store_for(URL).write(URL, self.LARGE)
            assert any(asked.method == "DELETE" and "uploadId" in asked.query for asked in server.asked)

    def test_an_error_with_status_200_that_passes(self, tmp_path: Path) -> None:
        done = reply(200, "<CompleteMultipartUploadResult><ETag>x-3</ETag></CompleteMultipartUploadResult>")
        completed: list[Asked] = []
        mark: dict[str, str] = {}

        def answer(asked: Asked) -> bytes:
            if "uploads" in asked.query:
                mark.update({k: v for k, v in asked.headers.items() if k.startswith("x-amz-meta-")})
            if asked.method == "POST" and "uploadId" in asked.query:
                completed.append(asked)
                return error(200, "InternalError", **NOW) if len(completed) == 1 else done
            there = reply(200, length=len(self.LARGE), **mark) if len(completed) > 1 else None
            return self._parts(asked, done, there)

        with service(tmp_path, answer):
            info = store_for(URL).write(URL, self.LARGE)
        assert info.size == len(self.LARGE)
        assert len(completed) == 2

    def test_an_upload_without_a_name(self, tmp_path: Path) -> None:
        with (
            service(tmp_path, lambda asked: reply(200, '<?xml version="1.0"?><Nothing/>')),
            pytest.raises(errors.ProtocolError),
        ):
            store_for(URL).write(URL, self.LARGE)

    @pytest.mark.parametrize("data", [DATA, LARGE], ids=["one", "parts"])
    def test_other_bytes_arrived(self, tmp_path: Path, data: bytes) -> None:
        def answer(asked: Asked) -> bytes:
            if asked.method == "PUT":
                return reply(200, ETag=f'"{hashlib.md5(b"other").hexdigest()}"')
            return self._parts(asked, reply(500))

        with service(tmp_path, answer), pytest.raises(errors.IntegrityError):
            store_for(URL).write(URL, data)

    def test_a_server_that_found_other_bytes(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            return error(400, "BadDigest") if asked.method == "PUT" else error(404, "NoSuchKey")

        with service(tmp_path, answer) as server, pytest.raises(errors.IntegrityError):
            store_for(URL).write(URL, DATA)
        assert server.count("PUT") <= 3

    def test_a_server_that_has_no_checksums(self, tmp_path: Path) -> None:
        """Some gateways refuse what they do not know; MD5 is known to all."""

        def answer(asked: Asked) -> bytes:
            if any(name.startswith(("x-amz-checksum", "x-amz-sdk")) for name in asked.headers):
                return error(400, "InvalidRequest")
            assert asked.headers["content-md5"] == base64.b64encode(hashlib.md5(DATA).digest()).decode()
            return reply(200, ETag=ETAG)

        with service(tmp_path, answer) as server:
            assert store_for(URL).write(URL, DATA).size == len(DATA)
            store_for(URL).write(f"{URL}2", DATA)
            assert server.count("PUT") == 3  # it is asked once


class TestListings:
    def _list(self, store: Store) -> list[str]:
        return sorted(info.url for info in store.list_directory("s3://bucket/dir/"))

    @pytest.mark.parametrize(
        "page",
        [
            listing("dir/a", truncated="true"),
            listing("dir/a", truncated="true", more="<NextContinuationToken></NextContinuationToken>"),
            listing("dir/a", truncated=""),
            listing("elsewhere/a"),
            listing("dir/a").replace(b"<KeyCount>1<", b"<KeyCount>2<"),
            reply(200, b"", Content_Type="application/xml"),
            reply(200, "<html><body>log in</body></html>", Content_Type="text/html"),
            reply(200, listing("dir/a").partition(b"\r\n\r\n")[2][:-30]),
            reply(200, b"\x00\xff\xfe binary"),
        ],
        ids=["no-token", "empty-token", "no-end", "other", "fewer", "empty", "html", "cut", "binary"],
    )
    def test_no_listing(self, tmp_path: Path, page: bytes) -> None:
        with service(tmp_path, lambda asked: page):
            for act in (self._list, lambda store: store.exists_many([f"{URL}{i}" for i in range(200)])):
                try:
                    found: Any = act(store_for(URL))
                except errors.ProtocolError:
                    continue
                pytest.fail(f"taken for a listing: {str(found)[:100]}")

    def test_pages_that_never_end(self, tmp_path: Path) -> None:
        page = listing("dir/a", truncated="true", more="<NextContinuationToken>again</NextContinuationToken>")
        with service(tmp_path, lambda asked: page) as server, pytest.raises(errors.ProtocolError):
            self._list(store_for(URL))
        assert len(server.asked) < 5

    def test_keys_that_come_twice_and_go(self, tmp_path: Path) -> None:
        """As the listing changes while it is read: a key of the first page comes again, another has gone."""
        more = "<NextContinuationToken>next</NextContinuationToken>"

        def answer(asked: Asked) -> bytes:
            if "continuation-token" in asked.query:
                return listing("dir/b", "dir/c", prefix="dir/")
            return listing("dir/a", "dir/b", prefix="dir/", truncated="true", more=more)

        with service(tmp_path, answer):
            assert self._list(store_for(URL)) == [f"s3://bucket/dir/{name}" for name in "abc"]

    def test_a_page_of_deletions_that_leaves_some_out(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            return reply(
                200,
                '<?xml version="1.0"?><DeleteResult><Deleted><Key>dir/a</Key></Deleted>'
                "<Error><Key>dir/b</Key><Code>AccessDenied</Code><Message/></Error></DeleteResult>",
            )

        with service(tmp_path, answer):
            urls = [f"s3://bucket/dir/{name}" for name in "abc"]
            results = store_for(URL).remove_many(urls)
        assert results[urls[0]] is None
        assert isinstance(results[urls[1]], errors.AccessDeniedError)
        assert isinstance(results[urls[2]], errors.DcacheError)


class TestBombs:
    """Entities that grow, files of this machine as entities, elements without end."""

    GROWING = "".join(
        (
            "<!DOCTYPE x [<!ENTITY a0 'aaaaaaaaaa'>",
            *(f"<!ENTITY a{i + 1} '{f'&a{i};' * 10}'>" for i in range(9)),
            "]>",
        )
    )

    @pytest.mark.parametrize(
        ("dtd", "key"),
        [
            (GROWING, "dir/&a9;"),
            (f"<!DOCTYPE x [<!ENTITY a '{'a' * 100_000}'>]>", "dir/" + "&a;" * 1000),
            ("<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/hostname'>]>", "dir/&f;"),
            ("<!DOCTYPE x [<!ENTITY f 'short'>]>", "dir/&f;"),
        ],
        ids=["billion", "quadratic", "file", "small"],
    )
    def test_entities(self, tmp_path: Path, dtd: str, key: str) -> None:
        with service(tmp_path, lambda asked: listing(key, prefix="dir/", dtd=dtd)):
            store = store_for(URL)
            begun = time.monotonic()
            tracemalloc.start()
            try:
                with pytest.raises(errors.ProtocolError):
                    store.list_directory("s3://bucket/dir/")
                assert tracemalloc.get_traced_memory()[1] < 50_000_000
            finally:
                tracemalloc.stop()
            assert time.monotonic() - begun < 5

    def test_elements_within_elements(self, tmp_path: Path) -> None:
        page = reply(200, '<?xml version="1.0"?>' + "<a>" * 200_000)
        with service(tmp_path, lambda asked: page), pytest.raises(errors.ProtocolError):
            store_for(URL).list_directory("s3://bucket/dir/")

    def test_an_error_that_is_large(self, tmp_path: Path) -> None:
        page = error(403, "AccessDenied", "x" * 5_000_000)
        with service(tmp_path, lambda asked: page), pytest.raises(errors.AccessDeniedError) as caught:
            store_for(URL).read(URL)
        assert len(str(caught.value)) < 10_000
