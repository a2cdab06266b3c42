"""Objects that are written: whole, in parts, as streams; verified, repeated part by part, not left behind."""

from __future__ import annotations

import base64
import gc
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from awscrt import checksums as crt
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.s3.endpoint import S3Endpoint
from lsst.daf.butler_dcache.s3.part_sizes import MOST_STREAMED_BYTES, StreamedParts, part_size_bytes
from lsst.daf.butler_dcache.store import s3_writer
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import reset_stores, store_for
from lsst.daf.butler_dcache.streamed_upload import StreamedUpload
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from s3_service import Asked, Service, error, reply, service
from seaweed_server import SeaweedServer

MIB = 1024 * 1024
LARGE = bytes(range(256)) * (17 * MIB // 256) + b"end"  # two parts of 16 MiB, three of 8 MiB
SMALL = b"hello, bucket"


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


def crc64nvme(data: bytes) -> str:
    return base64.b64encode(crt.crc64nvme(data).to_bytes(8, "big")).decode()


@contextmanager
def requests() -> Iterator[list[str]]:
    """Methods of what is sent."""
    seen: list[Exchange] = []
    methods: list[str] = []
    add_observer(seen.append)
    try:
        yield methods
    finally:
        remove_observer(seen.append)
        methods += [exchange.method for exchange in seen]


# Arithmetic


@pytest.mark.parametrize("size", [1, 16 * MIB, 100 * MIB, 156 << 30, 5 * 10**12, 5 << 40, 10_000 * (5 << 30)])
def test_sizes_of_parts(size: int) -> None:
    part = part_size_bytes(size)
    assert 5 * MIB <= part <= 5 << 30
    assert -(-size // part) <= 10_000
    assert part % MIB == 0


def test_too_large_for_any_parts() -> None:
    with pytest.raises(errors.UnsupportedError, match=r"10000 parts of 5 GiB"):
        part_size_bytes(10_000 * (5 << 30) + 1)


def test_a_stream_of_unknown_size_grows_within_its_memory() -> None:
    plan = StreamedParts(None, "s3://bucket/key")
    sizes = [plan.size_of(number) for number in range(1, 10_001)]
    assert sizes == sorted(sizes)
    assert sum(sizes) == MOST_STREAMED_BYTES
    assert all(
        (plan.under_way(number) + 1) * plan.size_of(number) <= 48 * MIB for number in (1, 2001, 10_000)
    )
    with pytest.raises(errors.UnsupportedError, match=r"192937984000 bytes \(179 GiB\).*size=") as caught:
        plan.size_of(10_001)
    assert "s3://bucket/key" in str(caught.value)


def test_a_stream_of_known_size_has_room_for_all_of_it() -> None:
    plan = StreamedParts(5 * 10**12, "s3://bucket/key")
    assert sum(plan.size_of(number) for number in range(1, 10_001)) >= 5 * 10**12
    assert plan.under_way(1) == 1


# On a server


@pytest.fixture
def store(seaweed: SeaweedServer) -> Iterator[Store]:
    reset_stores()
    yield store_for(f"s3://{seaweed.bucket}/")
    reset_stores()


@pytest.fixture
def unfinished(seaweed: SeaweedServer) -> Callable[[str], list[str]]:
    """Keys below a URL of which parts are kept."""

    def find(url: str) -> list[str]:
        prefix = url.removeprefix(f"s3://{seaweed.bucket}/")
        answer = seaweed.client().list_multipart_uploads(Bucket=seaweed.bucket)
        return [upload["Key"] for upload in answer.get("Uploads", []) if upload["Key"].startswith(prefix)]

    return find


def stored(seaweed: SeaweedServer, url: str) -> bytes:
    """What another client reads."""
    key = url.removeprefix(f"s3://{seaweed.bucket}/")
    return bytes(seaweed.client().get_object(Bucket=seaweed.bucket, Key=key)["Body"].read())


@contextmanager
def opened(kind: str, data: bytes) -> Iterator[bytes | BinaryIO]:
    """Data in one of the forms in which it may come, files with something before it."""
    if kind == "bytes":
        yield data
    elif kind == "memory":
        file = io.BytesIO(b"head" + data)
        file.seek(4)
        yield file
    else:
        with tempfile.NamedTemporaryFile() if kind == "named" else tempfile.TemporaryFile() as file:
            file.write(b"head" + data)
            file.seek(4)
            yield file


@pytest.mark.parametrize("kind", ["bytes", "memory", "named", "file"])
@pytest.mark.parametrize(
    "data", [b"", SMALL, LARGE[: 3 * MIB], LARGE], ids=["empty", "small", "some", "large"]
)
def test_what_is_written_is_there(
    seaweed: SeaweedServer, store: Store, s3_url: str, kind: str, data: bytes
) -> None:
    store.write(s3_url + "first", b"")  # the server is known from here on
    with opened(kind, data) as source, requests() as sent:
        info = store.write(s3_url + "file", source)
    assert (info.size, info.checksums["adler32"]) == (len(data), adler32(data))
    assert info.checksums["crc64nvme"] == f"{crt.crc64nvme(data):016x}"
    assert info.etag == store.stat(s3_url + "file").etag
    assert stored(seaweed, s3_url + "file") == data
    assert Counter(sent) == ({"PUT": 2, "POST": 2} if data is LARGE else {"PUT": 1})


def test_the_first_upload_learns_which_checksum_there_is(store: Store, s3_url: str) -> None:
    assert "md5" in store.write(s3_url + "first", SMALL).checksums
    assert set(store.write(s3_url + "second", SMALL).checksums) == {"adler32", "crc64nvme"}


def test_a_compressed_file_is_read_as_its_reader_sees_it_and_once(
    seaweed: SeaweedServer, store: Store, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_back: list[int] = []

    def seek(file: gzip.GzipFile, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < file.tell():
            steps_back.append(offset)
        return original(file, offset, whence)

    original = gzip.GzipFile.seek
    with gzip.open(tmp_path / "file.gz", "wb", compresslevel=1) as file:
        file.write(LARGE)
    monkeypatch.setattr(gzip.GzipFile, "seek", seek)
    with gzip.open(tmp_path / "file.gz", "rb") as file:
        store.write(s3_url + "file", file)  # type: ignore[arg-type]
    assert stored(seaweed, s3_url + "file") == LARGE
    assert steps_back == [0]  # its length is found out by going to its end


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("piece", [MIB // 3, 20 * MIB])
def test_a_stream(
    seaweed: SeaweedServer, store: Store, s3_url: str, known: bool, piece: int, unfinished: Any
) -> None:
    memory = bytearray(piece)
    with requests() as sent:
        writer = store.open_writer(s3_url + "file", size=len(LARGE) if known else None)
        for at in range(0, len(LARGE), piece):
            count = len(LARGE[at : at + piece])
            memory[:count] = LARGE[at : at + piece]
            writer.write(memoryview(memory)[:count])
            memory[:count] = bytes(count)  # it is the caller's again
        assert unfinished(s3_url) == [f"{s3_url.removeprefix(f's3://{seaweed.bucket}/')}file"]
        info = writer.commit()
    assert Counter(sent) == {"PUT": 3, "POST": 2}
    assert (info.size, info.checksums["adler32"]) == (len(LARGE), adler32(LARGE))
    assert stored(seaweed, s3_url + "file") == LARGE
    assert unfinished(s3_url) == []


@pytest.mark.parametrize("size", [0, 1, 8 * MIB])
def test_a_small_stream_is_one_request(store: Store, s3_url: str, size: int, unfinished: Any) -> None:
    with requests() as sent:
        writer = store.open_writer(s3_url + "file")
        for at in range(0, size, MIB):
            writer.write(LARGE[at : min(at + MIB, size)])
        assert not writer.has_begun
        writer.commit()
    assert sent == ["PUT"]
    assert store.read(s3_url + "file") == LARGE[:size]
    assert unfinished(s3_url) == []


def test_a_stream_of_whole_parts_has_no_empty_one(store: Store, s3_url: str) -> None:
    with requests() as sent:
        writer = store.open_writer(s3_url + "file")
        for _ in range(2):
            writer.write(LARGE[: 8 * MIB])
        writer.commit()
    assert Counter(sent) == {"PUT": 2, "POST": 2}
    assert store.read(s3_url + "file") == LARGE[: 8 * MIB] * 2


def test_a_stream_in_bounded_memory(store: Store, s3_url: str) -> None:
    piece = LARGE[:MIB]
    tracemalloc.start()
    try:
        writer = store.open_writer(s3_url + "file")
        for _ in range(160):
            writer.write(piece)
        assert writer.commit().size == 160 * MIB
        assert tracemalloc.get_traced_memory()[1] < 44 * MIB
    finally:
        tracemalloc.stop()


def test_a_block_that_fails_leaves_nothing(store: Store, s3_url: str, unfinished: Any) -> None:
    store.write(s3_url + "file", SMALL)

    def fail() -> None:
        with StreamedUpload(store, s3_url + "file") as file:
            file.write(LARGE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert unfinished(s3_url) == []
    assert store.read(s3_url + "file") == SMALL


@pytest.mark.filterwarnings("ignore:forgotten without being closed:ResourceWarning")
def test_what_is_forgotten_is_aborted(store: Store, s3_url: str, unfinished: Any) -> None:
    file = StreamedUpload(store, s3_url + "file")
    file.write(LARGE)
    assert len(unfinished(s3_url)) == 1
    del file
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "dcache-forgotten-upload":
            thread.join(30)
    assert unfinished(s3_url) == []
    assert store.exists(s3_url + "file") is False


def test_a_program_that_ends_leaves_nothing(store: Store, s3_url: str, unfinished: Any) -> None:
    program = f"""
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.streamed_upload import StreamedUpload
url = {s3_url + "file"!r}
file = StreamedUpload(store_for(url), url)
file.write(bytes({20 * MIB}))
print(file._writer.has_begun)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "True"), run.stderr
    assert "the program ended before it was closed" in run.stderr
    assert unfinished(s3_url) == []
    assert store.exists(s3_url + "file") is False


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_does_no_harm(store: Store, s3_url: str) -> None:
    writer = store.open_writer(s3_url + "file")
    writer.write(LARGE)
    child = os.fork()
    if child == 0:
        try:
            writer.abort()
            writer.forget()
            writer.write(b"x")
        except errors.UnsupportedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.commit()
    assert store.read(s3_url + "file") == LARGE


@pytest.mark.parametrize("size", [len(LARGE) - 1, len(LARGE) + 1])
def test_another_size_than_was_announced(store: Store, s3_url: str, size: int, unfinished: Any) -> None:
    writer = store.open_writer(s3_url + "file", size=size)

    def write() -> None:
        writer.write(LARGE)
        writer.commit()

    with pytest.raises(errors.IntegrityError, match="were announced"):
        write()
    with pytest.raises(errors.UnsupportedError):
        writer.write(b"")
    assert unfinished(s3_url) == []
    assert store.exists(s3_url + "file") is False


@pytest.mark.parametrize("how", ["small", "large", "stream"])
def test_one_of_several_creates(store: Store, s3_url: str, how: str, unfinished: Any) -> None:
    url = s3_url + "file"
    contents = [bytes([number]) * len(SMALL if how == "small" else LARGE) for number in range(3)]
    start = threading.Barrier(3)
    outcomes: list[bytes | BaseException] = []

    def create(content: bytes) -> None:
        start.wait(30)
        try:
            if how == "stream":
                writer = store.open_writer(url, overwrite=False)
                writer.write(content)
                writer.commit()
            else:
                store.write(url, content, overwrite=False)
            outcomes.append(content)
        except errors.ResourceExistsError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=create, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    won = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    assert len(outcomes) == 3
    assert won == [store.read(url)]
    assert [entry.name for entry in store.list_directory(s3_url)] == ["file"]
    assert unfinished(s3_url) == []


# A server that behaves as a test wants


class Bucket:
    """Objects and parts as S3 keeps them, with misfortunes."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, str]] = {}  # bytes, entity tag, writer
        self.parts: dict[str, bytes] = {}
        self.writer = ""
        self.is_open = False
        self.knows_checksums = True
        self.tells_etag = True
        self.misfortune: Callable[[Asked], bytes | None] = lambda asked: None
        self.aftermath: Callable[[Asked], None] = lambda asked: None

    def __call__(self, asked: Asked) -> bytes:
        said = self.misfortune(asked)
        if said is None:
            said = self._answer(asked)
            self.aftermath(asked)
        return said

    def _answer(self, asked: Asked) -> bytes:
        query = asked.query
        if asked.method == "POST" and "uploads" in query:
            self.writer, self.is_open = asked.headers["x-amz-meta-dcb-writer"], True
            own = {"x_amz_checksum_algorithm": "CRC64NVME"} if self.knows_checksums else {}
            text = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            return reply(200, text, **own)
        if "uploadId" in query and not self.is_open:
            return error(404, "NoSuchUpload")
        if asked.method == "DELETE":
            self.is_open = False
            return reply(204)
        if asked.method == "POST":
            return self._complete(asked)
        if asked.method == "HEAD":
            if asked.key not in self.objects:
                return reply(404)
            data, etag, writer = self.objects[asked.key]
            return reply(
                200, length=len(data), ETag=etag, **({"x_amz_meta_dcb_writer": writer} if writer else {})
            )
        return self._put(asked)

    def _put(self, asked: Asked) -> bytes:
        etag = f'"{hashlib.md5(asked.body).hexdigest()}"'
        own = {"ETag": etag}
        if "content-md5" in asked.headers:
            assert base64.b64decode(asked.headers["content-md5"]).hex() == etag.strip('"')
        if self.knows_checksums:
            assert asked.headers.get("x-amz-checksum-crc64nvme", crc64nvme(asked.body)) == crc64nvme(
                asked.body
            )
            own["x_amz_checksum_crc64nvme"] = crc64nvme(asked.body)
        if "partNumber" in asked.query:
            self.parts[asked.query["partNumber"]] = asked.body
        elif "if-none-match" in asked.headers and asked.key in self.objects:
            return error(412, "PreconditionFailed")
        else:
            self.objects[asked.key] = asked.body, etag, asked.headers.get("x-amz-meta-dcb-writer", "")
        return reply(200, **own)

    def _complete(self, asked: Asked) -> bytes:
        parts = [self.parts[number] for number in sorted(self.parts, key=int)]
        data = b"".join(parts)
        digests = b"".join(hashlib.md5(part).digest() for part in parts)
        etag = f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'
        self.objects[asked.key] = data, etag, self.writer
        self.is_open = False
        said = f"<ETag>{etag}</ETag>" if self.tells_etag else ""
        if self.knows_checksums:
            assert asked.headers["x-amz-checksum-crc64nvme"] == crc64nvme(data)
            said += f"<ChecksumCRC64NVME>{crc64nvme(data)}</ChecksumCRC64NVME>"
        return reply(200, f"<CompleteMultipartUploadResult>{said}</CompleteMultipartUploadResult>")


URL = "s3://bucket/dir/file"


@pytest.mark.parametrize("size", [None, 20 << 20])
def test_a_stream_that_could_not_be_published(
    store: Store, s3_url: str, unfinished: Any, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    """SeaweedFS creates by one PUT only, so what is larger than that is refused before all of it is sent."""
    monkeypatch.setattr(s3_writer, "LARGEST_PUT_BYTES", 12 << 20)
    writer = store.open_writer(s3_url + "file", overwrite=False, size=size)
    with pytest.raises(errors.UnsupportedError, match="those of one PUT"):
        writer.write(bytes(13 << 20))
    assert unfinished(s3_url) == []


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def served(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    original = S3Endpoint.__init__
    monkeypatch.setattr(
        S3Endpoint, "__init__", lambda self, settings: original(self, settings, sleep=lambda seconds: None)
    )
    with service(tmp_path, bucket) as server:
        yield server


def once(wanted: Callable[[Asked], bool], outcome: bytes | None) -> Callable[[Asked], bytes | None]:
    """Have the first request that fits fail; without an answer if there is none."""
    left = [True]

    def misfortune(asked: Asked) -> bytes | None:
        if left and wanted(asked):
            left.clear()
            if outcome is None:
                raise OSError
            return outcome
        return None

    return misfortune


def is_part(number: int) -> Callable[[Asked], bool]:
    return lambda asked: asked.query.get("partNumber") == str(number)


def is_end(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId" in asked.query


def is_put(asked: Asked) -> bool:
    return asked.method == "PUT"


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        error(500, "InternalError"),
        error(503, "SlowDown"),
        error(400, "RequestTimeout"),
        error(400, "BadDigest"),
        reply(200, ETag='"x"', x_amz_checksum_crc64nvme=crc64nvme(b"other bytes")),
    ],
    ids=["lost", "500", "busy", "timeout", "digest", "damaged"],
)
def test_a_part_is_repeated_alone(bucket: Bucket, served: Service, outcome: bytes | None) -> None:
    bucket.misfortune = once(is_part(2), outcome)
    with opened("file", LARGE) as file:
        assert store_for(URL).write(URL, file).size == len(LARGE)  # type: ignore[arg-type]
    numbers = Counter(asked.query.get("partNumber") for asked in served.asked if asked.method == "PUT")
    assert numbers == {"1": 1, "2": 2}
    assert bucket.objects["dir/file"][0] == LARGE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (error(400, "BadDigest"), errors.IntegrityError),
        (error(403, "AccessDenied"), errors.AccessDeniedError),
        (error(404, "NoSuchUpload"), errors.UploadDisplacedError),
        (error(507, "QuotaExceeded"), errors.StoreFullError),
        (error(500, "InternalError"), errors.ServerError),
        (None, errors.DoorUnavailableError),
    ],
    ids=["digest", "denied", "gone", "full", "500", "lost"],
)
def test_a_part_that_fails_for_good(
    bucket: Bucket, served: Service, outcome: bytes | None, kind: type[Exception], stream: bool
) -> None:
    def misfortune(asked: Asked) -> bytes | None:
        if not is_part(2)(asked):
            return None
        if outcome is None:
            raise OSError
        return outcome

    def write() -> None:
        if stream:
            writer = store_for(URL).open_writer(URL)
            writer.write(LARGE)
            writer.commit()
        else:
            store_for(URL).write(URL, LARGE)

    bucket.misfortune = misfortune
    with pytest.raises(kind) as caught:
        write()
    assert URL in str(caught.value)
    assert not bucket.is_open
    assert bucket.objects == {}
    assert served.count("DELETE") == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("InvalidPart", errors.IntegrityError), ("SomethingNew", errors.ProtocolError)]
)
def test_an_end_that_is_refused_is_not_repeated(
    bucket: Bucket, served: Service, code: str, kind: type[Exception]
) -> None:
    bucket.misfortune = lambda asked: error(400, code) if is_end(asked) else None
    with pytest.raises(kind):
        store_for(URL).write(URL, LARGE)
    assert sum(map(is_end, served.asked)) == 1
    assert not bucket.is_open


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_service_is_not_hammered(bucket: Bucket, served: Service, streamed: bool) -> None:
    bucket.misfortune = lambda asked: error(507, "QuotaExceeded")

    def stream() -> None:
        writer = store_for(URL).open_writer(URL)
        writer.write(SMALL)
        writer.commit()

    for _ in range(10):
        with pytest.raises(errors.StoreFullError):
            stream() if streamed else store_for(URL).write(URL, SMALL)
    assert len(served.asked) == 2


def test_an_abort_that_fails_is_told_in_the_log(
    bucket: Bucket, served: Service, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.misfortune = lambda asked: (
        error(403, "AccessDenied")
        if asked.method == "DELETE"
        else error(507, "QuotaExceeded")
        if is_part(1)(asked)
        else None
    )
    with pytest.raises(errors.StoreFullError):
        store_for(URL).write(URL, LARGE)
    assert "clean-orphans" in caplog.text


def test_the_answer_to_the_end_is_lost(bucket: Bucket, served: Service) -> None:
    def lost(asked: Asked) -> None:
        if is_end(asked):
            raise OSError

    bucket.aftermath = lost
    info = store_for(URL).write(URL, LARGE)
    assert (info.size, info.etag) == (len(LARGE), bucket.objects["dir/file"][1])
    assert sum(map(is_end, served.asked)) == 1


@pytest.mark.parametrize("outcome", [None, error(500, "InternalError"), error(200, "InternalError")])
def test_the_end_came_to_nothing(bucket: Bucket, served: Service, outcome: bytes | None) -> None:
    bucket.misfortune = once(is_end, outcome)
    assert store_for(URL).write(URL, LARGE).size == len(LARGE)
    assert sum(map(is_end, served.asked)) == 2


def test_the_answer_is_lost_and_the_object_is_another_writers(bucket: Bucket, served: Service) -> None:
    def lost(asked: Asked) -> None:
        if is_end(asked):
            bucket.aftermath = lambda asked: None
            bucket.objects["dir/file"] = SMALL, '"x"', "somebody-else"
            raise OSError

    bucket.aftermath = lost
    with pytest.raises(errors.UploadDisplacedError):
        store_for(URL).write(URL, LARGE)


@pytest.mark.parametrize("tells_etag", [False, True])
def test_a_server_without_checksums(bucket: Bucket, served: Service, tells_etag: bool) -> None:
    bucket.knows_checksums, bucket.tells_etag = False, tells_etag
    info = store_for(URL).write(URL, LARGE)
    assert info.etag == bucket.objects["dir/file"][1]
    assert all("content-md5" in asked.headers for asked in served.asked if asked.method == "PUT")
    assert served.count("HEAD") == (0 if tells_etag else 1)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[::-1]])
def test_the_parts_were_put_together_wrongly(
    bucket: Bucket, served: Service, damage: Callable[[bytes], bytes]
) -> None:
    bucket.knows_checksums = bucket.tells_etag = False

    def damaged(asked: Asked) -> None:
        if is_end(asked):
            data = damage(bucket.objects["dir/file"][0])
            bucket.objects["dir/file"] = data, f'"{hashlib.md5(data).hexdigest()}-2"', bucket.writer

    bucket.aftermath = damaged
    with pytest.raises(errors.IntegrityError):
        store_for(URL).write(URL, LARGE)


@pytest.mark.parametrize("refusal", [error(400, "InvalidArgument"), error(501, "NotImplemented")])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_server_that_refuses_to_hear_of_checksums(
    bucket: Bucket, served: Service, refusal: bytes, data: bytes
) -> None:
    bucket.knows_checksums = False
    bucket.misfortune = lambda asked: (
        refusal if any(name.startswith("x-amz-checksum") for name in asked.headers) else None
    )
    store = store_for(URL)
    assert store.write(URL, data).size == len(data)
    store.write(URL, SMALL)
    before = len(served.asked)
    store.write(URL, SMALL)
    assert len(served.asked) == before + 1


@pytest.mark.parametrize("ours", [True, False])
def test_the_answer_to_a_creation_is_lost(bucket: Bucket, served: Service, ours: bool) -> None:
    store = store_for(URL)
    store.write("s3://bucket/dir/other", SMALL, overwrite=False)  # the condition is known from here on

    def lost(asked: Asked) -> None:
        if is_put(asked):
            bucket.aftermath = lambda asked: None
            if not ours:
                bucket.objects["dir/file"] = SMALL, '"x"', "somebody-else"
            raise OSError

    bucket.aftermath = lost
    if ours:
        assert store.write(URL, SMALL, overwrite=False).size == len(SMALL)
    else:
        with pytest.raises(errors.ResourceExistsError):
            store.write(URL, SMALL, overwrite=False)


@pytest.mark.parametrize("arrived", [True, False])
def test_all_answers_to_a_write_are_lost(bucket: Bucket, served: Service, arrived: bool) -> None:
    def lost(asked: Asked) -> bytes | None:
        if is_put(asked):
            if arrived:
                bucket._answer(asked)
            raise OSError
        return None

    bucket.misfortune = lost
    if arrived:
        assert store_for(URL).write(URL, SMALL).etag == bucket.objects["dir/file"][1]
    else:
        with pytest.raises(errors.OutcomeUnknownError):
            store_for(URL).write(URL, SMALL)


def test_a_file_that_becomes_shorter(bucket: Bucket, served: Service, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    def shorten(asked: Asked) -> bytes | None:
        if "uploads" in asked.query:
            os.truncate(path, 16 * MIB + 1)
        return None

    bucket.misfortune = shorten
    with path.open("rb") as file, pytest.raises(errors.IntegrityError, match="the local file ended"):
        store_for(URL).write(URL, file)
    assert not bucket.is_open
    assert bucket.objects == {}
