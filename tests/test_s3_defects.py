"""Answers that a server of S3 gives once in a while, and what was concluded from them wrongly."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.s3 import s3_settings_for
from lsst.daf.butler_dcache.model import ByteRange
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from s3_service import SESSION_TOKEN, Asked, error, reply, service

DIRECTORY = "s3://bucket/dir/"
URL = f"{DIRECTORY}file"
FAR_AWAY = "Mon, 20 Nov 1995 19:12:08 +9999999999999999"


def ask(tmp_path: Path, answer: bytes | Callable[[Asked], bytes], act: Callable[[Store], Any]) -> Any:
    with service(tmp_path, answer if callable(answer) else lambda asked: answer):
        return act(store_for(URL))


def page(*entries: str, count: int | str = 1, encoding: str = "") -> bytes:
    kind = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    text = f"<ListBucketResult><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>{kind}"
    return reply(200, f"{text}{''.join(entries)}</ListBucketResult>", Content_Type="application/xml")


def entry(key: str = "dir/file", size: str = "1", modified: str = "2026-11-24T00:00:00.000Z") -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{modified}</LastModified></Contents>"


def uploads(*keys: str, further: str = "<IsTruncated>false</IsTruncated>", encoding: str = "") -> bytes:
    found = "".join(f"<Upload><Key>{key}</Key><UploadId>id</UploadId></Upload>" for key in keys)
    kind = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    return reply(200, f"<ListMultipartUploadsResult>{kind}{further}{found}</ListMultipartUploadsResult>")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(page(entry(modified="yesterday")), id="time"),
        pytest.param(page(entry(size="one")), id="size"),
        pytest.param(page(entry(), count="some"), id="count"),
        pytest.param(page(entry("dir/%ff"), encoding="url"), id="not-utf-8"),
    ],
)
def test_illegible_listing(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        ask(tmp_path, answer, lambda store: store.list_directory(DIRECTORY))
    assert DIRECTORY in str(caught.value)


def test_encoded_listing(tmp_path: Path) -> None:
    found = ask(
        tmp_path,
        page(entry("dir/a%2Bb+c%01"), encoding="url"),
        lambda store: store.list_directory(DIRECTORY),
    )
    assert [one.url for one in found] == [f"{DIRECTORY}a%2Bb%20c%01"]


def test_directory_within_itself(tmp_path: Path) -> None:
    """Whoever walked into it would never come out."""
    itself = "<CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>"
    with pytest.raises(errors.ProtocolError):
        ask(tmp_path, page(itself), lambda store: store.list_directory(DIRECTORY))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            reply(
                200,
                "<ListMultipartUploadsResult><Upload><UploadId>id</UploadId></Upload>"
                "</ListMultipartUploadsResult>",
            ),
            id="no-key",
        ),
        pytest.param(uploads("dir/%ff", encoding="url"), id="not-utf-8"),
    ],
)
def test_illegible_uploads(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        ask(tmp_path, answer, lambda store: list(store.unfinished_uploads(DIRECTORY)))


def test_upload_whose_key_xml_cannot_hold(tmp_path: Path) -> None:
    """One such name must not keep all others from being found."""

    def answer(asked: Asked) -> bytes:
        return (
            uploads("dir/a%01", "dir/b", encoding="url")
            if asked.query.get("encoding-type") == "url"
            else uploads("dir/a\x01")
        )

    found = ask(tmp_path, answer, lambda store: list(store.unfinished_uploads(DIRECTORY)))
    assert [one.url for one in found] == [f"{DIRECTORY}a%01", f"{DIRECTORY}b"]


def test_uploads_in_a_circle(tmp_path: Path) -> None:
    """Two pages that each name the other as the next one have no end."""
    asked_so_often = []

    def answer(asked: Asked) -> bytes:
        asked_so_often.append(asked)
        if len(asked_so_often) > 20:
            return error(400, "Enough")
        marker = "b" if asked.query.get("key-marker") == "dir/a" else "a"
        return uploads(further=f"<IsTruncated>true</IsTruncated><NextKeyMarker>dir/{marker}</NextKeyMarker>")

    with pytest.raises(errors.ProtocolError, match="again"):
        ask(tmp_path, answer, lambda store: list(store.unfinished_uploads(DIRECTORY)))


@pytest.mark.parametrize("name", ["stat", "open_reader"])
def test_time_beyond_all_clocks(tmp_path: Path, name: str) -> None:
    def act(store: Store) -> Any:
        return store.stat(URL) if name == "stat" else store.open_reader(URL).info

    assert ask(tmp_path, reply(200, b"x", Last_Modified=FAR_AWAY), act).modified is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, errors.AccessDeniedError), (404, errors.ResourceNotFoundError), (507, errors.StoreFullError)],
)
def test_cut_explanation(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    """The status says enough."""
    answer = reply(status, "<Error><Code>Some", length=4000, Connection="close")
    with pytest.raises(kind):
        ask(tmp_path, answer, lambda store: store.write(URL, b"x"))


def test_cut_explanation_of_a_moment(tmp_path: Path) -> None:
    answers = iter([reply(503, "<Err", length=4000, Retry_After="0", Connection="close"), reply(200)])
    assert ask(tmp_path, lambda asked: next(answers), lambda store: store.write(URL, b"x")).size == 1


def test_range_beyond_the_end_of_all_that_came(tmp_path: Path) -> None:
    """From a server that ignores ranges."""
    ranges = [ByteRange(1, 3), ByteRange(10**6, 10**6 + 5)]
    found = ask(tmp_path, reply(200, b"0123456789"), lambda store: store.read_ranges(URL, ranges))
    assert found == [b"12", b""]


def test_rest_that_ends_when_the_connection_does(tmp_path: Path) -> None:
    """Nothing would tell it from one that was cut."""
    answer = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nConnection: close\r\n\r\n' + b"y" * 20_000
    with pytest.raises(errors.IntegrityError):
        ask(tmp_path, answer, lambda store: list(store.open_reader(URL).stream(5)))


def test_longer_object_in_the_place_of_what_is_copied(tmp_path: Path) -> None:
    """Its beginning is no copy of anything."""
    old, new = b"a" * (17 << 20), b"b" * (18 << 20)
    tags = {old: '"aa-2"', new: '"bb-2"'}
    looked: list[bytes] = []
    written: dict[str, bytes] = {}

    def answer(asked: Asked) -> bytes:
        if asked.key == "dir/file" and asked.method == "HEAD":
            looked.append(new if looked else old)
            return reply(200, b"", length=len(looked[-1]), ETag=tags[looked[-1]])
        if asked.key == "dir/file":
            first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
            data = new[int(first) : int(last) + 1]
            span = f"bytes {first}-{int(first) + len(data) - 1}/{len(new)}"
            return reply(206, data, Content_Range=span, ETag=tags[new])
        if asked.method == "PUT" and asked.key in written:
            return error(412, "PreconditionFailed")
        if asked.method == "PUT":
            written[asked.key] = asked.body
            return reply(200)
        if asked.method == "DELETE":
            return reply(204)
        is_there = asked.key in written
        # That of a server where nothing but one PUT creates.
        return reply(200, b"", Seaweed_="1") if is_there else reply(404)

    ask(tmp_path, answer, lambda store: store.copy(URL, f"{DIRECTORY}copy"))
    assert written["dir/copy"] == new
    assert looked == [old, new]


def test_removals_before_a_request_that_fails_as_a_whole(tmp_path: Path) -> None:
    """What is gone is not said to be there."""
    failed = "<Error><Key>dir/b</Key><Code>InternalError</Code></Error>"
    first = reply(200, f"<DeleteResult><Deleted><Key>dir/a</Key></Deleted>{failed}</DeleteResult>")
    answers = iter([first, error(403, "AccessDenied")])
    urls = [f"{DIRECTORY}a", f"{DIRECTORY}b"]
    results = ask(tmp_path, lambda asked: next(answers), lambda store: store.remove_many(urls))
    assert results[urls[0]] is None
    assert isinstance(results[urls[1]], errors.AccessDeniedError)


def test_session_token_in_what_a_service_says(tmp_path: Path) -> None:
    """A service that explains what it signed quotes the headers."""
    message = f"I signed x-amz-security-token:{SESSION_TOKEN} and X-Amz-Security-Token: {SESSION_TOKEN}"
    with (
        service(tmp_path, lambda asked: error(403, "SignatureDoesNotMatch", message), token=SESSION_TOKEN),
        pytest.raises(errors.CredentialError, match="I signed") as caught,
    ):
        store_for(URL).read(URL)
    assert SESSION_TOKEN not in str(caught.value)


@pytest.mark.parametrize("value", ["ftp://AK:{}@host", "https://AK:{}/@host", "https://AK:{}@host:99999"])
def test_frames_of_what_reads_the_variables(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Some loggers print the variables of all frames."""
    secret = "nobody-must-see-this"
    monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_wrong", value.format(secret))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"also-{secret}")
    with pytest.raises(errors.ConfigurationError) as caught:
        s3_settings_for("wrong", "bucket")
    own = caught.value.__traceback__
    assert own is not None
    shown = traceback.TracebackException(type(caught.value), caught.value, own.tb_next, capture_locals=True)
    assert secret not in "".join(shown.format())


@pytest.mark.parametrize("overwrite", [True, False])
def test_failures_after_the_effect(tmp_path: Path, overwrite: bool) -> None:
    """A relay may answer for a server that has done as it was told."""
    held: dict[str, Asked] = {}

    def answer(asked: Asked) -> bytes:
        if asked.method == "PUT" and "if-none-match" in asked.headers and asked.key in held:
            return error(412, "PreconditionFailed")
        if asked.method == "PUT":
            held[asked.key] = asked
            return reply(500, Retry_After="0") if asked.key == "dir/file" else reply(200)
        if asked.method == "DELETE":
            return reply(204)
        found = held[asked.key]
        word = found.headers.get("x-amz-meta-dcb-writer", "")
        tag = f'"{hashlib.md5(found.body).hexdigest()}"'
        return reply(200, found.body, ETag=tag, x_amz_meta_dcb_writer=word)

    assert ask(tmp_path, answer, lambda store: store.write(URL, b"x", overwrite=overwrite)).size == 1
