"""What is written, copied, renamed and removed on S3 services that keep more or less of the protocol."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.s3 import conditions
from lsst.daf.butler_dcache.s3.address import parse
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.retry import counted
from s3_service import Asked, error, listing, reply, service

BASE = "s3://bucket/dir/"
LARGE = bytes(range(256)) * 70_000


@dataclass
class Bucket:
    """An S3 service in memory, with the faults that a test gives it."""

    keeps: frozenset[str] = frozenset({"put", "complete", "delete"})
    """Which conditions it keeps; it ignores the others."""
    refuses: frozenset[str] = frozenset()
    """Which conditions it refuses to be given."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Headers of its answers to HEAD."""
    instead: Callable[[Asked, Bucket], bytes | None] = lambda asked, bucket: None
    """Answers in its place."""

    def __post_init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}

    def put(self, key: str, content: bytes, tag: str = "", metadata: Mapping[str, str] | None = None) -> str:
        self.objects[key] = content
        self.tags[key] = tag or f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        self.metadata[key] = dict(metadata or {})
        return self.tags[key]

    def answer(self, asked: Asked) -> bytes:
        special = self.instead(asked, self)
        return self.act(asked) if special is None else special

    def act(self, asked: Asked) -> bytes:
        key, headers = asked.key, asked.headers
        if asked.method in ("GET", "HEAD") and not key:
            prefix = asked.query["prefix"]
            return listing(*sorted(one for one in self.objects if one.startswith(prefix)), prefix=prefix)
        if asked.method in ("GET", "HEAD"):
            if key not in self.objects:
                return error(404, "NoSuchKey")
            given = {f"x-amz-meta-{name}": value for name, value in self.metadata[key].items()}
            given |= {"ETag": self.tags[key], "Last_Modified": formatdate(0, usegmt=True), **self.marks}
            content = self.objects[key]
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
            if span is None:
                return reply(200, content, **given)
            part = content[int(span[1]) : int(span[2]) + 1]
            where = f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(content)}"
            return reply(206, part, Content_Range=where, **given)
        if "uploads" in asked.query:
            name = f"upload-{len(self.uploads)}"
            metadata = {
                header.removeprefix("x-amz-meta-"): value
                for header, value in headers.items()
                if header.startswith("x-amz-meta-")
            }
            self.uploads[name] = {"key": key, "metadata": metadata, "parts": {}}
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>")
        if "delete" in asked.query:
            return self._delete(asked)
        if "uploadId" in asked.query:
            return self._part(asked)
        for condition, header in (("put", "if-none-match"), ("delete", "if-match")):
            if header in headers and condition in self.refuses:
                return error(501, "NotImplemented")
        if asked.method == "DELETE":
            if "delete" in self.keeps and headers.get("if-match", self.tags.get(key)) != self.tags.get(key):
                return error(412, "PreconditionFailed")
            self.objects.pop(key, None)
            return reply(204)
        if "if-none-match" in headers and "put" in self.keeps and key in self.objects:
            return error(412, "PreconditionFailed")
        metadata = {name[11:]: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
        if "x-amz-copy-source" in headers:
            source = self._source(asked)
            if source is None:
                return error(412, "PreconditionFailed")
            return _xml("CopyObjectResult", f"<ETag>{self.put(key, source)}</ETag>")
        return reply(200, ETag=self.put(key, asked.body, metadata=metadata))

    def _source(self, asked: Asked) -> bytes | None:
        key = unquote(asked.headers["x-amz-copy-source"]).partition("/")[2]
        if asked.headers["x-amz-copy-source-if-match"] != self.tags[key]:
            return None
        return self.objects[key]

    def _part(self, asked: Asked) -> bytes:
        upload = self.uploads.get(asked.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        number = asked.query.get("partNumber")
        if asked.method == "DELETE":
            del self.uploads[asked.query["uploadId"]]
            return reply(204)
        if number is not None:
            content = asked.body
            if "x-amz-copy-source" in asked.headers:
                source = self._source(asked)
                if source is None:
                    return error(412, "PreconditionFailed")
                start, stop = map(int, asked.headers["x-amz-copy-source-range"][6:].split("-"))
                content = source[start : stop + 1]
            upload["parts"][int(number)] = content
            tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
            if "x-amz-copy-source" in asked.headers:
                return _xml("CopyPartResult", f"<ETag>{tag}</ETag>")
            return reply(200, ETag=tag)
        if "if-none-match" in asked.headers and "complete" in self.keeps and asked.key in self.objects:
            return error(412, "PreconditionFailed")
        parts = [upload["parts"][number] for number in sorted(upload["parts"])]
        digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
        tag = f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"'
        self.put(asked.key, b"".join(parts), tag, upload["metadata"])
        del self.uploads[asked.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>{tag}</ETag>")

    def _delete(self, asked: Asked) -> bytes:
        keys = [unescape(key) for key in re.findall("<Key>([^<]*)</Key>", asked.body.decode())]
        for key in keys:
            self.objects.pop(key, None)
        return _deleted(keys)


def _xml(name: str, inside: str) -> bytes:
    return reply(200, f'<?xml version="1.0"?><{name}>{inside}</{name}>', Content_Type="application/xml")


def _deleted(keys: list[str], **failed: str) -> bytes:
    entries = [f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys]
    entries += [f"<Error><Key>dir/{key}</Key><Code>{code}</Code></Error>" for key, code in failed.items()]
    return _xml("DeleteResult", "".join(entries))


# Creating


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_creating_where_conditions_are_kept(tmp_path: Path, data: bytes) -> None:
    bucket = Bucket()
    with service(tmp_path, bucket.answer):
        store = store_for(BASE)
        for number in range(2):
            assert store.write(f"{BASE}{number}", data, overwrite=False).size == len(data)
            with pytest.raises(errors.ResourceExistsError):
                store.write(f"{BASE}{number}", b"other" * 5_000_000, overwrite=False)
        store.copy(f"{BASE}0", f"{BASE}copy")
        store.move(f"{BASE}1", f"{BASE}moved")
        for act in (store.copy, store.move):
            with pytest.raises(errors.ResourceExistsError):
                act(f"{BASE}0", f"{BASE}moved")
    assert bucket.objects == dict.fromkeys(("dir/0", "dir/copy", "dir/moved"), data)
    assert bucket.uploads == {}


def test_the_condition_is_tried_once(tmp_path: Path) -> None:
    with service(tmp_path, (bucket := Bucket()).answer) as server:
        store = store_for(BASE)
        store.write(f"{BASE}0", b"", overwrite=False)
        before = len(server.asked)
        store.write(f"{BASE}1", b"", overwrite=False)
        assert len(server.asked) == before + 1
    assert set(bucket.objects) == {"dir/0", "dir/1"}


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", ["ignores", "refuses"])
def test_creating_where_no_condition_is_kept(tmp_path: Path, data: bytes, fault: str) -> None:
    refuses = frozenset({"put"}) if fault == "refuses" else frozenset()
    bucket = Bucket(keeps=frozenset(), refuses=refuses)
    with service(tmp_path, bucket.answer):
        store = store_for(BASE)
        store.write(f"{BASE}a", b"a")
        for act in (
            lambda: store.write(f"{BASE}b", data, overwrite=False),
            lambda: store.open_writer(f"{BASE}b", overwrite=False),
            lambda: store.copy(f"{BASE}a", f"{BASE}b"),
            lambda: store.move(f"{BASE}a", f"{BASE}b"),
        ):
            with pytest.raises(errors.UnsupportedError, match="best_effort"):
                act()
        store.move(f"{BASE}a", f"{BASE}c", overwrite=True)
    assert bucket.objects == {"dir/c": b"a"}
    with service(tmp_path, bucket.answer, exclusive="best_effort"):
        store = store_for(BASE)
        store.write(f"{BASE}b", data, overwrite=False)
        store.copy(f"{BASE}b", f"{BASE}d")
        for url in (f"{BASE}b", f"{BASE}c"):
            with pytest.raises(errors.ResourceExistsError):
                store.write(url, b"other", overwrite=False)
        with pytest.raises(errors.ResourceExistsError):
            store.copy(f"{BASE}b", f"{BASE}c")
    assert bucket.objects == {"dir/b": data, "dir/c": b"a", "dir/d": data}


@pytest.mark.parametrize(
    "bucket",
    [Bucket(keeps=frozenset({"put"})), Bucket(marks={"Seaweed-X-Amz-Owner": "admin"})],
    ids=["ignored by complete", "looked at before by complete"],
)
def test_creating_where_one_put_keeps_the_condition(tmp_path: Path, bucket: Bucket) -> None:
    def check(asked: Asked, _: Bucket) -> bytes | None:
        assert ".dcb-" in asked.key or "uploadId" not in asked.query
        return None

    bucket.instead = check
    with service(tmp_path, bucket.answer):
        store = store_for(BASE)
        store.write(f"{BASE}a", LARGE, overwrite=False)
        store.copy(f"{BASE}a", f"{BASE}b")
        store.move(f"{BASE}b", f"{BASE}c")
        with pytest.raises(errors.ResourceExistsError):
            store.copy(f"{BASE}a", f"{BASE}c")
    assert bucket.objects == {"dir/a": LARGE, "dir/c": LARGE}


def test_an_answer_to_the_probe_that_says_nothing(tmp_path: Path) -> None:
    """Whoever may not write there is told so, and the question is asked again the next time."""
    allowed = False

    def deny(asked: Asked, _: Bucket) -> bytes | None:
        return error(403, "AccessDenied") if asked.method == "PUT" and not allowed else None

    with service(tmp_path, (bucket := Bucket(instead=deny)).answer):
        store = store_for(BASE)
        with pytest.raises(errors.AccessDeniedError):
            store.write(f"{BASE}a", b"a", overwrite=False)
        allowed = True
        store.write(f"{BASE}a", b"a", overwrite=False)
    assert bucket.objects == {"dir/a": b"a"}


def test_temporary_names() -> None:
    for key in ("a", "dir/a", "dir/", "", "n" * 255, "d/" * 400 + "\N{SNOWMAN}" * 70):
        address = parse("s3://bucket/").with_key(key)
        temporary = conditions.temporary_address(address)
        assert temporary.name.startswith(".dcb-")
        assert temporary.key.rpartition("/")[0] == key.rstrip("/").rpartition("/")[0]
        assert len(temporary.name.encode()) <= 255
        assert temporary != conditions.temporary_address(address)


# Copies


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("kind", ["copy", "create"])
def test_lost_answers_to_copies(tmp_path: Path, kind: str, is_done: bool) -> None:
    """Whether the copy is there although the server failed is found out."""
    lost: list[str] = []

    def lose(asked: Asked, bucket: Bucket) -> bytes | None:
        is_last = asked.method == "POST" and "uploadId" in asked.query
        is_copy = asked.method == "PUT" and "x-amz-copy-source" in asked.headers and not asked.query
        if ".dcb-" in asked.key or not (is_last or is_copy) or lost:
            return None
        lost.append(asked.method)
        if is_done:
            bucket.act(asked)
        return error(500, "InternalError")

    with service(tmp_path, (bucket := Bucket(instead=lose)).answer):
        store = store_for(BASE)
        bucket.put("dir/a", b"content")
        store.copy(f"{BASE}a", f"{BASE}b", overwrite=kind == "copy")
    assert lost == ["PUT" if kind == "copy" else "POST"]
    assert bucket.objects == {"dir/a": b"content", "dir/b": b"content"}
    assert bucket.uploads == {}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_copy_with_other_bytes(tmp_path: Path, overwrite: bool) -> None:
    def damage(asked: Asked, bucket: Bucket) -> bytes | None:
        if "x-amz-copy-source" not in asked.headers:
            return None
        answer = bucket.act(asked)
        if overwrite:
            tag = bucket.put("dir/b", b"c0ntent")
            return _xml("CopyObjectResult", f"<ETag>{tag}</ETag>")
        return answer.replace(hashlib.md5(b"content").hexdigest().encode(), b"0" * 32)

    with service(tmp_path, (bucket := Bucket(instead=damage)).answer):
        store = store_for(BASE)
        bucket.put("dir/a", b"content")
        with pytest.raises(errors.IntegrityError, match="md5"):
            store.move(f"{BASE}a", f"{BASE}b", overwrite=overwrite)
    assert bucket.objects["dir/a"] == b"content"
    assert bucket.uploads == {}


def test_a_source_that_changes_before_it_is_copied(tmp_path: Path) -> None:
    changes = 1

    def change(asked: Asked, bucket: Bucket) -> bytes | None:
        nonlocal changes
        if "x-amz-copy-source" in asked.headers and changes:
            changes -= 1
            bucket.put("dir/a", b"newer %d" % changes)
        return None

    with service(tmp_path, (bucket := Bucket(instead=change)).answer):
        store = store_for(BASE)
        bucket.put("dir/a", b"older")
        store.move(f"{BASE}a", f"{BASE}b", overwrite=True)
        assert bucket.objects == {"dir/b": b"newer 0"}
        bucket.put("dir/a", b"older")
        changes = 100
        with pytest.raises(errors.UploadDisplacedError):
            store.move(f"{BASE}a", f"{BASE}b", overwrite=True)
    assert bucket.objects["dir/a"].startswith(b"newer")


@pytest.mark.parametrize("delete", ["keeps", "ignores", "refuses"])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_source_that_changes_after_it_was_copied(tmp_path: Path, delete: str, is_late: bool) -> None:
    """Only what was copied is removed. Nothing helps in the last moment where no condition is kept."""

    def change(asked: Asked, bucket: Bucket) -> bytes | None:
        if (
            bucket.objects.get("dir/a") == b"older"
            and "dir/b" in bucket.objects
            and ((asked.method == "DELETE") if is_late else (asked.key == "dir/a"))
        ):
            bucket.put("dir/a", b"newer")
        return None

    bucket = Bucket(
        keeps=frozenset({"delete"} if delete == "keeps" else {}),
        refuses=frozenset({"delete"} if delete == "refuses" else {}),
        instead=change,
    )
    with service(tmp_path, bucket.answer):
        store = store_for(BASE)
        bucket.put("dir/a", b"older")
        if is_late and delete != "keeps":
            store.move(f"{BASE}a", f"{BASE}b", overwrite=True)
            assert bucket.objects == {"dir/b": b"older"}
            return
        with pytest.raises(errors.UploadDisplacedError):
            store.move(f"{BASE}a", f"{BASE}b", overwrite=True)
    assert bucket.objects == {"dir/a": b"newer", "dir/b": b"older"}


# Removal


def test_results_of_many_removals(tmp_path: Path) -> None:
    """Each key has its own; what failed for a moment is asked for again, and nothing else."""
    bodies: list[bytes] = []

    def some(asked: Asked, _: Bucket) -> bytes | None:
        if "delete" not in asked.query:
            return None
        bodies.append(asked.body)
        failed = {"denied": "AccessDenied", "slow": "SlowDown", "broken": "InternalError"}
        if len(bodies) == 1:
            return _deleted(["dir/gone"], **failed, none="NoSuchKey")
        return _deleted(["dir/slow"], broken="InternalError")

    names = ["gone", "none", "denied", "slow", "broken", "forgotten"]
    with service(tmp_path, Bucket(instead=some).answer):
        results = store_for(BASE).remove_many([BASE + name for name in names])
    assert [type(results[BASE + name]) for name in names] == [
        type(None),
        type(None),
        errors.AccessDeniedError,
        type(None),
        errors.ServerError,
        errors.ProtocolError,
    ]
    assert all(b"gone" not in body and b"denied" not in body for body in bodies[1:])


def test_what_is_done_is_not_waited_for(tmp_path: Path) -> None:
    again: list[None] = []
    with service(tmp_path, Bucket().answer), counted(lambda: again.append(None)):
        results = store_for(BASE).remove_many([f"{BASE}a", f"{BASE}b"])
    assert set(results.values()) == {None}
    assert again == []


def test_a_key_that_xml_cannot_hold(tmp_path: Path) -> None:
    with service(tmp_path, (bucket := Bucket()).answer) as server:
        bucket.put("dir/bell\a", b"")
        bucket.put("dir/a&b", b"")
        results = store_for(BASE).remove_many([f"{BASE}bell%07", f"{BASE}a&b"])
        assert server.count("DELETE") == 1
    assert set(results.values()) == {None}
    assert bucket.objects == {}


def test_no_more_than_one_refusal(tmp_path: Path) -> None:
    """A wrong key is wrong for all batches."""

    def refuse(asked: Asked, _: Bucket) -> bytes | None:
        return error(403, "InvalidAccessKeyId") if "delete" in asked.query else None

    with service(tmp_path, Bucket(instead=refuse).answer) as server:
        results = store_for(BASE).remove_many([f"{BASE}{number}" for number in range(5000)])
        assert server.count("POST") <= 2
    assert len(results) == 5000
    assert all(isinstance(result, errors.CredentialError) for result in results.values())


def test_directories_are_removed_last(tmp_path: Path) -> None:
    with service(tmp_path, (bucket := Bucket()).answer):
        for key in ("dir/a/", "dir/a/b/", "dir/a/b/c", "dir/full/", "dir/full/x"):
            bucket.put(key, b"")
        results = store_for(BASE).remove_many(
            [f"{BASE}a/", f"{BASE}a/b/", f"{BASE}a/b/c", f"{BASE}full/", f"{BASE}none/"]
        )
    assert [type(result) for result in results.values()] == [
        *[type(None)] * 3,
        errors.DirectoryNotEmptyError,
        errors.ResourceNotFoundError,
    ]
    assert set(bucket.objects) == {"dir/full/", "dir/full/x"}


# Looking


def test_many_names_of_a_bucket_that_may_not_be_listed(tmp_path: Path) -> None:
    """Each is asked for; of one that is not there nobody without the right to list is told so."""

    def deny(asked: Asked, bucket: Bucket) -> bytes | None:
        return None if asked.key in bucket.objects else error(403, "AccessDenied")

    urls = [f"{BASE}{number}" for number in range(5)]
    with service(tmp_path, (bucket := Bucket(instead=deny)).answer):
        store = store_for(BASE)
        for number in range(5):
            bucket.put(f"dir/{number}", b"")
        assert store.exists_many(urls) == dict.fromkeys(urls, True)
        del bucket.objects["dir/3"]
        with pytest.raises(errors.AccessDeniedError):
            store.exists_many(urls)
