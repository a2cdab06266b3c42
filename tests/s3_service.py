"""An S3 service that says what a test has it say, request by request, and a client that is set up for it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import yaml
from lsst.daf.butler_dcache.store.registry import reset_stores
from scripted_server import ScriptedServer, Talk

__all__ = ("Asked", "Service", "error", "listing", "reply", "service")

ACCESS_KEY = "AKSCRIPTED"
SECRET_KEY = "a-secret-key-that-nobody-must-see"
SESSION_TOKEN = "a-session-token-that-nobody-must-see"
BUCKET = "bucket"


@dataclass
class Asked:
    """A request."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


Answer = Callable[[Asked], bytes]


class Service(ScriptedServer):
    """Runs a function for each request, and keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(self._talk)
        self._answer = answer
        self.asked: list[Asked] = []

    def _talk(self, talk: Talk) -> None:
        while head := talk.head():
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            if headers.get("expect") == "100-continue":
                talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(headers.get("content-length", 0))
            body = talk.body(length)
            if len(body) < length:
                return  # the client went away: that is no request
            parts = urlsplit(target)
            key = unquote(parts.path.removeprefix(f"/{BUCKET}").removeprefix("/"))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            asked = Asked(method, key, query, headers, body)
            self.asked.append(asked)
            answer = self._answer(asked)
            if not answer:
                continue
            if method == "HEAD":
                answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            now = f"Date: {formatdate(usegmt=True)}"
            talk.say(answer.replace(_DATED, now.encode(), 1))
            if b"Connection: close" in answer:
                return

    def count(self, method: str) -> int:
        """How many requests there were of a method."""
        return sum(asked.method == method for asked in self.asked)


_NOW = "when it is given"
_DATED = f"Date: {_NOW}".encode()


def reply(status: int, body: bytes | str = b"", *, length: int | None = None, **headers: str) -> bytes:
    """Bytes of an answer; underscores in names of headers become hyphens.

    It may be written long before it is given, so its date is that of the moment at which it is.
    """
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body) if length is None else length}"]
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given.setdefault("Date", _NOW)
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error(status: int, code: str, message: str = "", **headers: str) -> bytes:
    """An answer as S3 gives it when something went wrong; radosgw leaves the message out."""
    said = f"<Message>{message}</Message>" if message else ""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code>{said}<RequestId>1</RequestId></Error>'
    return reply(status, text, **{"Content_Type": "application/xml", **headers})


def listing(*keys: str, prefix: str = "", truncated: str = "false", more: str = "", dtd: str = "") -> bytes:
    """One page of a listing."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-11-24T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;c4ca4238a0b923820dcc509a6f75849b&quot;</ETag></Contents>"
        for key in keys
    )
    state = f"<IsTruncated>{truncated}</IsTruncated>" if truncated else ""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>{dtd}'
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{BUCKET}</Name>'
        f"<Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>{state}{more}{entries}"
        "</ListBucketResult>"
    )
    return reply(200, text, Content_Type="application/xml")


@contextlib.contextmanager
def service(folder: Path, answer: Answer, *, token: str = "", **settings: Any) -> Iterator[Service]:
    """Run a service, and set up the client of this process for it."""
    with Service(answer) as server, pytest.MonkeyPatch.context() as patch:
        url = server.url.removesuffix("/")
        own = {"idle_timeout_seconds": 2.0, "total_timeout_seconds": 20.0, **settings}
        site = folder / f"{uuid.uuid4().hex}.yaml"
        entry = {"base_url": f"{url}/", "timeout_read": own.pop("timeout_read", 5.0), "dcache": own}
        site.write_text(yaml.safe_dump([entry]))
        variables = {
            "S3_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "LSST_RESOURCES_WEBDAV_CONFIG": str(site),
        }
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in {**variables, **({"AWS_SESSION_TOKEN": token} if token else {})}.items():
            patch.setenv(name, value)
        try:
            yield server
        finally:
            reset_stores()
