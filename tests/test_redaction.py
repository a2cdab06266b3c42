"""What is shown of secrets, URLs and texts, and what the frames of errors hold."""

from __future__ import annotations

import copy
import dataclasses
import faulthandler
import inspect
import json
import os
import pickle
import pprint
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler_dcache.auth.credential import Credential
from lsst.daf.butler_dcache.auth.macaroon import Macaroon
from lsst.daf.butler_dcache.auth.sources import StaticSource, source_for
from lsst.daf.butler_dcache.config.loading import load_file, settings_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import DcacheError
from lsst.daf.butler_dcache.redaction import Secret, redact_text, redact_url
from lsst.daf.butler_dcache.transport.control import ControlPlane
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for
from scripted_server import ScriptedServer, Talk

WORD = "SECRETWORD-of-some-length"


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        ascii,
        pprint.pformat,
        lambda secret: f"{secret} {secret!s} {secret!r} {secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: "{} {!r}".format(secret, secret),  # noqa: UP032
        lambda secret: str([secret, {secret: secret}]),
        lambda secret: repr(Credential("bearer", secret)),
        lambda secret: repr(vars(Credential("bearer", secret))),
        lambda secret: repr(EndpointSettings("https://x:1/", token=secret, user_password=secret)),
        lambda secret: json.dumps(secret, default=str),
        lambda secret: str(ValueError(secret)) + repr(ValueError(secret)),
    ],
)
def test_a_secret_is_not_shown(show: Callable[[Secret], str]) -> None:
    assert WORD not in show(Secret(WORD))


@pytest.mark.parametrize(
    "take",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        vars,
        bytes,
        len,
        iter,
        "".join,
        lambda secret: secret.__getstate__(),
        lambda secret: secret + "",
        lambda secret: os.fspath(secret),
        lambda secret: dataclasses.asdict(EndpointSettings("https://x:1/", token=secret)),
        lambda secret: pickle.dumps(Credential("bearer", secret)),
        lambda secret: copy.deepcopy({"token": secret}),
    ],
)
def test_a_secret_is_not_taken_along(take: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        take(Secret(WORD))
    assert WORD not in str(caught.value)


def test_secrets_are_compared() -> None:
    assert Secret("ä") == Secret("ä")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("davs://door:2880/a%20b?authz=T", "davs://door:2880/a%20b?authz=***"),
        ("https://me:word@door/a", "https://door/a"),
        (
            "https://d/x?limit=5&children=true&access_token=T",
            "https://d/x?limit=5&children=true&access_token=***",
        ),
        ("https://p/x?dcache-http-uuid=1-2&new-kind=3", "https://p/x?dcache-http-uuid=***&new-kind=***"),
        ("https://s/b?X-Amz-Signature=a&X-Amz-Date=b&Signature=c", None),
        ("https://s/b?partNumber=3&uploadId=4", "https://s/b?partNumber=3&uploadId=***"),
        ("https://s/b?limit=" + "a" * 60, "https://s/b?limit=***"),
        ("https://s/b?limit=a%3Db", "https://s/b?limit=***"),
        ("https://s/b?TOKEN", "https://s/b?***"),
        ("https://s/b?dG9rZW4/Lw==&" + "x" * 50 + "=1", "https://s/b?***&***"),
        ("https://s/b?limit=1&TOKEN", "https://s/b?limit=1&***"),
        ("https://s/b#TOKEN", "https://s/b"),
        ("https://[/", "***"),
    ],
)
def test_urls(url: str, shown: str | None) -> None:
    if shown is None:
        shown = "https://s/b?X-Amz-Signature=***&X-Amz-Date=***&Signature=***"
    assert redact_url(url) == shown
    if "://[" not in url:
        assert redact_text(f"<{url}> failed") == f"<{shown}> failed"


MACAROON = "MDAxY2xvY2F0aW9uIE9wdGlvbmFsLmVtcHR5CjAwMTFpZGVudGlmaWVyIHgKMDAyZnNpZ25hdHVyZSA"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('"GET /a?authz=T&limit=2 HTTP/1.1" 200', '"GET /a?authz=***&limit=2 HTTP/1.1" 200'),
        ("sig=abc, token=abc X-Amz-Credential=abc", "sig=***, token=*** X-Amz-Credential=***"),
        (f"what is {MACAROON}?", "what is ***?"),
        ("eyJhbGciOiJub25lIn0.eyJleHAiOjF9.c2ln is over", "*** is over"),
        (f"https%3A%2F%2Fdoor%2Fa%3Fauthz%3D{MACAROON}", "https%3A%2F%2Fdoor%2Fa%3Fauthz%3D***"),
        ("x%3Fauthz%3Dabc", "x%3Fauthz%3D***"),
        (f"x%3D{MACAROON}", "x%3D***"),
        ('{"access_token": "abc", "scope": "s"}', '{"access_token": "***", "scope": "s"}'),
        ("a bearer token is not sent", "a bearer token is not sent"),
        ("key token: /a/b", "key token: /a/b"),
        ("which? a=b", "which? a=b"),
        ("validity=PT5M is too long", "validity=PT5M is too long"),
        ("/pnfs/a/Middle-Earth/x_0123456789.fits", "/pnfs/a/Middle-Earth/x_0123456789.fits"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert redact_text(text) == shown
    assert shown in str(DcacheError("message", reason=text, hint=text))


# -- frames


def whole(error: BaseException) -> str:
    """What a logger prints that shows the variables of all frames but those of the tests."""
    lines = []
    todo: list[BaseException | None] = [error]
    while todo:
        item = todo.pop()
        if item is None:
            continue
        todo += [item.__cause__, item.__context__]
        lines.append(f"{item} {item!r} {item.args} {vars(item)}")
        shown = traceback.TracebackException.from_exception(item, capture_locals=True)
        lines += [
            line
            for frame, line in zip(shown.stack, shown.stack.format(), strict=True)
            if Path(frame.filename).parent != Path(__file__).parent
        ]
    return "\n".join(lines)


def jwt_with(word: str) -> str:
    return f"eyJhbGciOiJub25lIn0.{word}.x"


def private(path: Path, text: str) -> str:
    path.touch(0o600)
    path.write_text(text)
    return str(path)


def configured(path: Path) -> list[EndpointSettings]:
    return load_file(
        private(path / "site.yaml", f"- base_url: davs://x/\n  token: {WORD}\n  retries: many\n")
    )


def from_environment(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("X509_USER_CERT", "BEARER_TOKEN", "NETRC"):
            patch.setenv(name, WORD)
        patch.setenv("X509_CERT_DIR", "/no/such/directory")
        settings_for("davs://x.example/")


def from_file(path: Path, text: str) -> Any:
    file = private(path / "token", text)
    return source_for(EndpointSettings("https://x:1/", token_file=file, credential_origin="key")).current()


@pytest.mark.parametrize(
    "fail",
    [
        configured,
        from_environment,
        lambda path: Credential.bearer(WORD + " "),
        lambda path: Credential.bearer(jwt_with(WORD)),
        lambda path: Credential.basic("me", WORD + "\n"),
        lambda path: Macaroon.parse(WORD),
        lambda path: source_for(EndpointSettings("https://x:1/", token=Secret(jwt_with(WORD)))),
        lambda path: from_file(path, WORD + "\nsecond"),
        lambda path: from_file(path, jwt_with(WORD)),
        lambda path: source_for(
            EndpointSettings("https://x:1/", token_command=("echo", jwt_with(WORD)))
        ).current(),
    ],
)
def test_frames_of_those_that_read_secrets(fail: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(DcacheError) as caught:
        fail(tmp_path)
    assert WORD not in whole(caught.value)


@pytest.mark.parametrize("plane", ["control", "data"])
@pytest.mark.parametrize(
    "answer", [None, b"", b"garbage\r\n\r\n", b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n"]
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_frames_of_those_that_send_secrets(plane: str, answer: bytes | None, method: str) -> None:
    """Whatever becomes of a request, its head is not in the traceback."""

    def speak(talk: Talk) -> None:
        talk.head()
        talk.say(answer or b"")

    with ScriptedServer(speak) as server:
        url = f"http://localhost:{1 if answer is None else server.port}/"
        settings = EndpointSettings(url, requests_per_second=0)
        source = StaticSource(Credential.basic("me", WORD))
        header = source.current().header()
        assert header is not None
        if plane == "control":
            ask = partial(ControlPlane(settings, source, pacer_for(settings)).request, deadline=Deadline(0.4))
        else:
            data = DataPlane(settings, source, pacer_for(settings))
            ask = partial(data.open, authenticate=True, deadline=Deadline(0.4))
        with pytest.raises(DcacheError) as caught:
            ask(method, url, body=b"x").close()
    text = whole(caught.value)
    assert "in wrapper" in text, "the frames that may be shown are"
    assert WORD not in text
    assert header.partition(" ")[2] not in text


def test_the_dump_of_a_crash_holds_no_values(tmp_path: Path) -> None:
    secret = Secret(WORD)
    with open(tmp_path / "dump", "w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        text = file.read()
    assert "test_the_dump_of_a_crash" in text
    assert secret.reveal() not in text


def test_what_an_inspector_sees() -> None:
    credential = Credential("bearer", Secret(WORD))
    assert WORD not in repr(inspect.getmembers(credential, lambda value: not callable(value)))


def test_the_profile_of_an_s3_url_is_shown_and_an_account_is_not() -> None:
    assert redact_url("s3://site@bucket/a/b") == "s3://site@bucket/a/b"
    assert redact_text("of s3://site@tenant:bucket/key failed") == "of s3://site@tenant:bucket/key failed"
    assert redact_url("s3://AKEY:SKEY@bucket/a/b") == "s3://bucket/a/b"
    assert redact_url("davs://site@door/a") == "davs://door/a"
