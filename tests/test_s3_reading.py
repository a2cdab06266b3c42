"""Reading from S3: verified by whatever there is, over several connections, resumed, and of one version."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import random
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.remote_file import RemoteFile
from lsst.daf.butler_dcache.s3 import downloads, parallel_read
from lsst.daf.butler_dcache.s3.checksums import Digests
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.exchange import Exchange, add_observer, remove_observer
from s3_service import Asked, error, listing, reply, service

URL = "s3://bucket/dir/file"
DATA = random.Random(7).randbytes(300_000)
OTHER = random.Random(8).randbytes(300_000)
LARGE = random.Random(9).randbytes(5_000_001)


def digest(data: bytes, algorithm: str) -> Digests:
    seen = Digests(algorithm)
    seen.update(data)
    return seen


SUM = {"x_amz_checksum_crc32c": digest(LARGE, "crc32c").base64("crc32c")}


def tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def whole(data: bytes = DATA, cut: int | None = None, **headers: str) -> bytes:
    """A whole object; a cut one ends the connection."""
    if cut is not None:
        headers["Connection"] = "close"
    return reply(200, data[:cut], length=len(data), **{"ETag": tag(data), **headers})


def part(asked: Asked, data: bytes = DATA, cut: int | None = None, **headers: str) -> bytes:
    """The bytes of an object that were asked for, or that there is another version."""
    if asked.headers.get("if-match", tag(data)) != tag(data):
        return error(412, "PreconditionFailed")
    first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
    start, stop = (int(first), min(int(last or len(data)) + 1, len(data))) if first else (-int(last), None)
    if first and start >= len(data):
        return error(416, "InvalidRange", Content_Range=f"bytes */{len(data)}")
    start, stop, _ = slice(start, stop).indices(len(data))
    span = f"bytes {start}-{stop - 1}/{len(data)}"
    if cut is not None:
        headers["Connection"] = "close"
    body = data[start:stop]
    given = {"ETag": tag(data), "Content_Range": span, **headers}
    return reply(206, body[:cut], length=len(body), **given)


def without_condition(asked: Asked) -> Asked:
    """What a server sees that does not look at conditions."""
    headers = {name: value for name, value in asked.headers.items() if name != "if-match"}
    return replace(asked, headers=headers)


def of(asked: Asked, data: bytes = DATA) -> bytes:
    """What a server answers that is well."""
    if "range" in asked.headers:
        return part(asked, data)
    if asked.headers.get("if-match", tag(data)) != tag(data):
        return error(412, "PreconditionFailed")
    return whole(data)


class Recorded:
    """Requests of one block of a test."""

    def __init__(self) -> None:
        self.all: list[Exchange] = []

    @property
    def methods(self) -> list[str]:
        return [one.method for one in self.all]

    @property
    def received(self) -> int:
        return sum(one.received for one in self.all)


@contextlib.contextmanager
def recorded() -> Iterator[Recorded]:
    requests = Recorded()
    observer = requests.all.append
    add_observer(observer)
    try:
        yield requests
    finally:
        remove_observer(observer)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small objects come over three connections, in many segments."""
    monkeypatch.setattr(downloads, "PARALLEL_BYTES", 200_000)
    monkeypatch.setattr(downloads, "CONNECTIONS", 3)
    monkeypatch.setattr(parallel_read, "_TRIAL_BYTES", 0)
    monkeypatch.setattr(parallel_read, "_SEGMENT_BYTES", 40_000)
    monkeypatch.setattr(parallel_read, "_PIECE_BYTES", 15_000)


def fetched(url: str, path: Path) -> tuple[bytes, Any]:
    with path.open("w+b") as file:
        info = store_for(url).download(url, file)
        assert file.tell() == info.size
    return path.read_bytes(), info


def streamed() -> bytes:
    return b"".join(store_for(URL).open_reader(URL).stream())


class TestRealServer:
    """SeaweedFS, or the server that the environment names."""

    @pytest.fixture
    def client(self, seaweed: Any) -> Any:
        return seaweed.client()

    @pytest.mark.parametrize("algorithm", ["CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1"])
    def test_verified_by_what_the_server_keeps(
        self, seaweed: Any, client: Any, s3_url: str, tmp_path: Path, algorithm: str
    ) -> None:
        url = f"{s3_url}file"
        client.put_object(
            Bucket=seaweed.bucket, Key=url.split("/", 3)[3], Body=DATA, ChecksumAlgorithm=algorithm
        )
        assert store_for(url).read(url) == DATA
        data, info = fetched(url, tmp_path / "file")
        assert data == DATA
        name = algorithm.lower()
        assert info.checksums[name] == digest(DATA, name).hexdigest(name)
        assert info.checksums["adler32"] == digest(DATA, "adler32").hexdigest("adler32")
        assert info.etag == tag(DATA)
        assert info.modified is not None

    @pytest.mark.usefixtures("several")
    @pytest.mark.parametrize("algorithm", ["CRC64NVME", "SHA256"])
    @pytest.mark.parametrize("size", [0, 1, 199_999, 200_000, len(LARGE)])
    def test_every_size(
        self, seaweed: Any, client: Any, s3_url: str, tmp_path: Path, size: int, algorithm: str
    ) -> None:
        url, data = f"{s3_url}file", LARGE[:size]
        client.put_object(
            Bucket=seaweed.bucket, Key=url.split("/", 3)[3], Body=data, ChecksumAlgorithm=algorithm
        )
        with recorded() as requests:
            assert store_for(url).read(url) == data
        is_parallel = size >= 200_000 and algorithm == "CRC64NVME"
        assert set(requests.methods) == {"GET"}
        assert (len(requests.all) > 1) == is_parallel
        found, info = fetched(url, tmp_path / "file")
        assert found == data
        assert info.checksums["adler32"] == digest(data, "adler32").hexdigest("adler32")

    def test_an_object_of_parts_without_a_checksum_of_all(
        self, seaweed: Any, client: Any, s3_url: str, tmp_path: Path, several: None
    ) -> None:
        url = f"{s3_url}file"
        data = LARGE * 3
        client.upload_fileobj(io.BytesIO(data), seaweed.bucket, url.split("/", 3)[3])
        with recorded() as requests:
            found, info = fetched(url, tmp_path / "file")
        assert found == data
        assert len(requests.all) > 1
        assert set(info.checksums) == {"adler32"}

    def test_written_behind_what_is_there(self, s3_url: str, tmp_path: Path, several: None) -> None:
        url = f"{s3_url}file"
        store_for(url).write(url, LARGE)
        with (tmp_path / "file").open("w+b") as file:
            file.write(b"before")
            store_for(url).download(url, file)
            file.seek(0)
            assert file.read() == b"before" + LARGE

    def test_few_requests_for_a_file_that_is_opened(self, s3_url: str) -> None:
        url = f"{s3_url}file"
        store_for(url).write(url, LARGE)
        with recorded() as requests, RemoteFile(store_for(url).open_reader(url), url) as file:
            assert file.read(2880) == LARGE[:2880]
            file.seek(-100, io.SEEK_END)
            assert file.tell() == len(LARGE) - 100
            assert requests.methods == ["GET"]
            assert requests.received < 20_000
            file.seek(0)
            assert file.read() == LARGE
            assert requests.methods == ["GET", "GET"]

    def test_ranges_that_are_near_come_in_one(self, s3_url: str) -> None:
        url = f"{s3_url}file"
        store_for(url).write(url, LARGE)
        near = [ByteRange(n, n + 10) for n in range(100_000, 300_000, 10_000)]
        far = [ByteRange(n, n + 10) for n in range(0, 5_000_000, 1_000_000)]
        with recorded() as requests:
            assert store_for(url).read_ranges(url, near) == [LARGE[one.start : one.stop] for one in near]
            assert requests.methods == ["GET"]
            assert store_for(url).read_ranges(url, far) == [LARGE[one.start : one.stop] for one in far]
            assert requests.methods == ["GET"] * 6
            assert requests.received < 250_000

    def test_a_small_file_is_there_once_it_is_open(self, s3_url: str) -> None:
        url = f"{s3_url}file"
        store_for(url).write(url, DATA[:9000])
        with recorded() as requests:
            reader = store_for(url).open_reader(url)
            assert b"".join(reader.stream()) == DATA[:9000]
            assert b"".join(reader.stream(8999)) == DATA[8999:9000]
            assert reader.read_tail(5) == (8995, DATA[8995:9000])
            assert reader.read_ranges([ByteRange(7, 9)]) == [DATA[7:9]]
            assert requests.methods == ["GET"]

    @pytest.mark.parametrize("again", [True, False])
    def test_a_file_that_is_replaced_or_removed_while_it_is_open(self, s3_url: str, again: bool) -> None:
        url = f"{s3_url}file"
        store = store_for(url)
        store.write(url, DATA)
        reader = store.open_reader(url)
        if again:
            store.write(url, OTHER)
        else:
            store.remove(url)
        expected = errors.IntegrityError if again else errors.ResourceNotFoundError
        for read in (
            lambda: reader.read_ranges([ByteRange(200_000, 200_010)]),
            lambda: reader.read_ranges([ByteRange(20_000, 20_010), ByteRange(280_000, 280_010)]),
            lambda: b"".join(reader.stream()),
            lambda: b"".join(reader.stream(5)),
            lambda: reader.read_tail(10),
        ):
            with pytest.raises(expected):
                read()
        reader.close()
        with pytest.raises(ValueError, match="closed"):
            reader.read_ranges([ByteRange(0, 1)])


class TestSeveralConnections:
    """What may go wrong while an object comes from both of its ends."""

    pytestmark = pytest.mark.usefixtures("several")

    @pytest.mark.parametrize("to_file", [True, False])
    def test_no_byte_is_asked_for_twice(self, tmp_path: Path, to_file: bool) -> None:
        crc = digest(LARGE, "crc64nvme")
        headers = {"x_amz_checksum_crc64nvme": crc.base64("crc64nvme")}

        def answer(asked: Asked) -> bytes:
            return part(asked, LARGE) if "range" in asked.headers else whole(LARGE, **headers)

        with service(tmp_path, answer) as server:
            data = fetched(URL, tmp_path / "file")[0] if to_file else store_for(URL).read(URL)
            assert data == LARGE
        ranges = [asked.headers["range"] for asked in server.asked if "range" in asked.headers]
        assert len(ranges) > 1
        assert len(ranges) == len(set(ranges)) == len(server.asked) - 1
        assert all(asked.headers["if-match"] == tag(LARGE) for asked in server.asked[1:])

    def test_one_connection_that_is_fast_enough(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parallel_read, "_TRIAL_BYTES", 50_000)
        monkeypatch.setattr(parallel_read, "_FAST_BYTES_PER_SECOND", 1)
        with service(tmp_path, lambda asked: whole(LARGE, **SUM)) as server:
            assert fetched(URL, tmp_path / "file")[0] == LARGE
            assert store_for(URL).read(URL) == LARGE
        assert len(server.asked) == 2

    def test_a_server_that_ignores_ranges(self, tmp_path: Path) -> None:
        with service(tmp_path, lambda asked: whole(LARGE, **SUM)):
            assert fetched(URL, tmp_path / "file")[0] == LARGE
            assert store_for(URL).read(URL) == LARGE

    @pytest.mark.parametrize("honest", [True, False], ids=["412", "another tag"])
    def test_replaced_meanwhile(self, tmp_path: Path, honest: bool) -> None:
        """All of the new object comes, although the old one had begun to."""
        current = [LARGE]

        def answer(asked: Asked) -> bytes:
            before = current[0]
            if "range" not in asked.headers:
                current[0] = LARGE[::-1]
                return whole(before, x_amz_checksum_crc32c=digest(before, "crc32c").base64("crc32c"))
            return part(asked if honest else without_condition(asked), current[0])

        with service(tmp_path, answer):
            assert fetched(URL, tmp_path / "file")[0] == LARGE[::-1]

    def test_ranges_that_break_off(self, tmp_path: Path) -> None:
        """The rest is asked for, and nothing that had come."""
        broken: set[int] = set()

        def answer(asked: Asked) -> bytes:
            if "range" not in asked.headers:
                return whole(LARGE, **SUM)
            start = int(asked.headers["range"][6:].partition("-")[0])
            if start - 777 in broken:
                return part(asked, LARGE)
            broken.add(start)
            return part(asked, LARGE, 777)

        with service(tmp_path, answer) as server:
            assert fetched(URL, tmp_path / "file")[0] == LARGE
        assert broken
        assert len(server.asked) == 1 + 2 * len(broken)

    def test_a_damaged_range(self, tmp_path: Path) -> None:
        """A wrong byte is noticed by the checksum of all ranges together; one connection does better."""

        def answer(asked: Asked) -> bytes:
            if "range" not in asked.headers:
                return whole(LARGE, **SUM)
            return part(asked, LARGE).replace(b"\r\n\r\n", b"\r\n\r\n#", 1)[:-1]

        with service(tmp_path, answer) as server:
            assert fetched(URL, tmp_path / "file")[0] == LARGE
        assert [("range" in asked.headers) for asked in server.asked].count(False) == 2

    def test_the_error_of_a_range_is_told(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if "range" in asked.headers:
                return error(403, "AccessDenied")
            return whole(LARGE, **SUM)

        with service(tmp_path, answer), pytest.raises(errors.AccessDeniedError):
            store_for(URL).read(URL)

    def test_an_object_without_tags(self, tmp_path: Path) -> None:
        """Ranges could be of another version."""
        with service(tmp_path, lambda asked: whole(LARGE, ETag="", **SUM)) as server:
            assert store_for(URL).read(URL) == LARGE
        assert ["range" in asked.headers for asked in server.asked] == [False]

    def test_an_error_holds_no_memory(self, tmp_path: Path) -> None:
        """What had come of a large object is freed when the error is forgotten, not some time later."""

        class Memory(io.BytesIO):
            pass

        def answer(asked: Asked) -> bytes:
            return error(403, "AccessDenied") if "range" in asked.headers else whole(LARGE, **SUM)

        made: list[weakref.ref[Memory]] = []

        def make(data: bytes) -> Memory:
            memory = Memory(data)
            made.append(weakref.ref(memory))
            return memory

        gc.disable()
        try:
            with service(tmp_path, answer), pytest.MonkeyPatch.context() as patch:
                patch.setattr(downloads, "io", SimpleNamespace(BytesIO=make))
                with contextlib.suppress(errors.AccessDeniedError):
                    store_for(URL).read(URL)
            assert [memory() for memory in made] == [None]
        finally:
            gc.enable()

    def test_a_whole_answer_that_breaks_off(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            return of(asked, LARGE) if "range" in asked.headers else whole(LARGE, 100_000, **SUM)

        with service(tmp_path, answer):
            assert fetched(URL, tmp_path / "file")[0] == LARGE


class TestBreaks:
    """Bodies that break off go on where they ended, or begin anew; never are two versions put together."""

    @pytest.fixture(params=["read", "download", "stream"])
    def read(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], bytes]:
        return {
            "read": lambda: store_for(URL).read(URL),
            "download": lambda: fetched(URL, tmp_path / "file")[0],
            "stream": streamed,
        }[request.param]

    @pytest.mark.parametrize("cut", [0, 1, 250_000])
    def test_goes_on_with_the_same_version(self, tmp_path: Path, read: Callable[[], bytes], cut: int) -> None:
        def answer(asked: Asked) -> bytes:
            return part(asked) if "range" in asked.headers else whole(cut=cut)

        with service(tmp_path, answer) as server:
            assert read() == DATA
        assert server.asked[-1].headers["range"] == f"bytes={cut}-{len(DATA) - 1}"
        assert server.asked[-1].headers["if-match"] == tag(DATA)

    def test_breaks_again_and_again(self, tmp_path: Path, read: Callable[[], bytes]) -> None:
        def answer(asked: Asked) -> bytes:
            return part(asked, cut=30_000) if "range" in asked.headers else whole(cut=5)

        with service(tmp_path, answer), pytest.raises(errors.DoorUnavailableError):
            read()

    def test_a_stream_does_not_go_on_with_another_version(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if asked.headers.get("range", "").startswith("bytes=0-"):
                return part(asked)
            return part(asked, OTHER) if "range" in asked.headers else whole(cut=100_000)

        with service(tmp_path, answer), pytest.raises(errors.DoorUnavailableError):
            streamed()

    @pytest.mark.parametrize("kind", ["412", "whole", "wrong tag", "wrong range", "wrong size", "416"])
    def test_begins_anew(self, tmp_path: Path, kind: str) -> None:
        """What cannot be continued, surely with the same version, is forgotten."""

        def answer(asked: Asked) -> bytes:
            if "range" not in asked.headers:
                begun.append(1)
                return whole(cut=100_000) if len(begun) == 1 else whole(OTHER)
            if kind.startswith("wrong"):
                asked = without_condition(asked)
            return {
                "412": lambda: part(asked, OTHER),
                "whole": lambda: whole(OTHER),
                "wrong tag": lambda: part(asked, OTHER),
                "wrong range": lambda: part(asked, Content_Range=f"bytes 0-{len(DATA) - 1}/{len(DATA)}"),
                "wrong size": lambda: part(asked, OTHER + b"1", ETag=tag(DATA)),
                "416": lambda: error(416, "InvalidRange"),
            }[kind]()

        begun: list[int] = []
        with service(tmp_path, answer):
            assert fetched(URL, tmp_path / "file")[0] == OTHER
        assert len(begun) == 2

    def test_a_removed_object(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if "list-type" in asked.query:
                return listing()
            return error(404, "NoSuchKey") if "range" in asked.headers else whole(cut=100_000)

        with service(tmp_path, answer), pytest.raises(errors.ResourceNotFoundError):
            store_for(URL).read(URL)

    def test_a_target_that_cannot_begin_anew(self, tmp_path: Path) -> None:
        class Pipe(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data: Any) -> int:
                return len(data)

        def answer(asked: Asked) -> bytes:
            return error(412, "PreconditionFailed") if "range" in asked.headers else whole(cut=1000)

        with service(tmp_path, answer), pytest.raises(errors.DoorUnavailableError):
            store_for(URL).download(URL, Pipe())  # type: ignore[arg-type]


class TestOddServers:
    """Answers that S3 does not give, and some servers do."""

    def test_neither_length_nor_checksum(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            if "range" in asked.headers:
                return part(asked)
            return b'HTTP/1.1 200 OK\r\nConnection: close\r\nETag: "x"\r\n\r\n' + DATA

        with service(tmp_path, answer), pytest.raises(errors.IntegrityError, match="neither"):
            store_for(URL).read(URL)

    def test_chunks_with_a_checksum(self, tmp_path: Path) -> None:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: {tag(DATA)}\r\n\r\n"
        with service(tmp_path, lambda asked: head.encode() + body):
            assert store_for(URL).read(URL) == DATA
            found, info = fetched(URL, tmp_path / "file")
        assert (found, info.size) == (DATA, len(DATA))

    def test_an_empty_object_whose_416_tells_nothing(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            return error(416, "InvalidRange") if "range" in asked.headers else whole(b"")

        with service(tmp_path, answer) as server:
            reader = store_for(URL).open_reader(URL)
            assert reader.info.size == 0
            assert b"".join(reader.stream()) == b""
            assert reader.read_tail(5) == (0, b"")
        assert [asked.method for asked in server.asked] == ["GET", "HEAD"]

    def test_a_range_that_is_refused(self, tmp_path: Path) -> None:
        with service(tmp_path, lambda asked: error(416, "InvalidRange", Content_Range="bytes */300000")):
            with pytest.raises(errors.ProtocolError):
                store_for(URL).read_ranges(URL, [ByteRange(100, 200)])
            assert store_for(URL).read_ranges(URL, [ByteRange(300_000, 300_001)]) == [b""]

    def test_answers_of_two_versions_to_one_question(self, tmp_path: Path) -> None:
        """Requests that are under way at once name no version: their answers are compared."""

        def answer(asked: Asked) -> bytes:
            return part(asked, DATA if asked.headers["range"].startswith("bytes=0-") else OTHER)

        with service(tmp_path, answer), pytest.raises(errors.IntegrityError, match="replaced"):
            store_for(URL).read_ranges(URL, [ByteRange(0, 10), ByteRange(280_000, 280_010)])

    def test_an_object_without_tags(self, tmp_path: Path) -> None:
        """Nothing is put together of it; the whole comes in one stream or not at all."""

        def answer(asked: Asked) -> bytes:
            assert "if-match" not in asked.headers
            return whole(ETag="", cut=None if len(server.asked) > 1 else 10)

        with service(tmp_path, answer) as server:
            assert store_for(URL).read(URL) == DATA
        assert ["range" in asked.headers for asked in server.asked] == [False, False]

    def test_a_server_that_ignores_conditions(self, tmp_path: Path) -> None:
        def answer(asked: Asked) -> bytes:
            return part(asked) if len(server.asked) == 1 else of(without_condition(asked), OTHER)

        with service(tmp_path, answer) as server:
            reader = store_for(URL).open_reader(URL)
            with pytest.raises(errors.IntegrityError, match="replaced"):
                b"".join(reader.stream())
            with pytest.raises(errors.IntegrityError, match="replaced"):
                b"".join(reader.stream(20_000))

    def test_a_small_file_that_is_damaged(self, tmp_path: Path) -> None:
        small = DATA[:5000]
        with service(tmp_path, lambda asked: part(asked, small, ETag=tag(small + b"#"))):
            with pytest.raises(errors.IntegrityError, match="md5"):
                store_for(URL).open_reader(URL)
            assert store_for(URL).read_ranges(URL, [ByteRange(0, 4999)]) == [small[:4999]]

    def test_what_a_range_says_is_not_said_of_the_object(self, tmp_path: Path) -> None:
        with service(tmp_path, lambda asked: part(asked, **SUM)):
            info = store_for(URL).open_reader(URL).info
        assert info.checksums == {"md5": tag(DATA).strip('"')}

    def test_a_directory_has_no_bytes(self, tmp_path: Path) -> None:
        with service(tmp_path, lambda asked: whole()) as server:
            for read in (store_for(URL).read, store_for(URL).open_reader):
                with pytest.raises(errors.ResourceIsDirectoryError):
                    read("s3://bucket/dir/")
        assert server.asked == []
