"""The tape API's client, against the embedded dCache and scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from conftest import client_environment
from lsst.daf.butler_dcache.auth.sources import source_for
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceNotFoundError,
    ServerError,
    UnsupportedError,
)
from lsst.daf.butler_dcache.model import Locality
from lsst.daf.butler_dcache.rest.api import Api
from lsst.daf.butler_dcache.rest.tape import RecallState, TapeApi, tape_path
from lsst.daf.butler_dcache.transport.control import Answer, ControlPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.pacing import pacer_for

ODD = "a#b%25+c;d é🙂 "


@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as running:
        assert running.site.tape is not None
        running.site.tape.restore_seconds = 0.01
        with client_environment(running):
            yield running


@pytest.fixture
def api(dcache: EmbeddedDcache) -> TapeApi:
    settings = replace(settings_for(dcache.url), frontend_url=dcache.frontend_url)
    control = ControlPlane(settings, source_for(settings), pacer_for(settings, dcache.frontend_url))
    return TapeApi(Api(f"{dcache.frontend_url}api/v1/tape", control))


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(60.0)


class Scripted:
    """A control plane that answers as it is told, and remembers what it was asked."""

    def __init__(self, *answers: Answer | Exception | Callable[[Any], Answer]) -> None:
        self.answers = list(answers)
        self.bodies: list[Any] = []

    def request(self, method: str, url: str, *, body: bytes | None = None, **_: Any) -> Answer:
        self.bodies.append(None if body is None else json.loads(body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(self.bodies[-1]) if callable(answer) else answer


def said(status: int, document: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    body = b"" if document is None else json.dumps(document).encode()
    kind = {"Content-Type": "application/json"} if headers is None else headers
    return Answer(status, "", kind, body, "https://f:1/api/v1/tape")


def scripted(script: Scripted) -> TapeApi:
    return TapeApi(Api("https://f:1/api/v1/tape", cast(ControlPlane, script)))


def test_where_files_are(dcache: EmbeddedDcache, api: TapeApi, deadline: Deadline) -> None:
    dcache.place("where/disk", b"1")
    dcache.place("where/tape", b"2", locality="NEARLINE")
    dcache.place("where/both", b"3", locality="ONLINE_AND_NEARLINE")
    dcache.place("where/away", b"4", locality="UNAVAILABLE")
    dcache.place(f"where/{ODD}", b"5", locality="NEARLINE")
    base = f"{dcache.url}where/"
    odd = base + "a%23b%2525%2Bc%3Bd%20%C3%A9%F0%9F%99%82%20"
    found = api.archive_info(
        [base, *(base + name for name in ("disk", "tape", "both", "away", "none")), odd, base + "%FF"],
        deadline=deadline,
    )
    none, unspeakable = found.pop(base + "none"), found.pop(base + "%FF")
    assert isinstance(none, ResourceNotFoundError)
    assert isinstance(unspeakable, UnsupportedError)
    assert found == {
        base: Locality.NONE,
        base + "disk": Locality.ONLINE,
        base + "tape": Locality.NEARLINE,
        base + "both": Locality.ONLINE_AND_NEARLINE,
        base + "away": Locality.UNAVAILABLE,
        odd: Locality.NEARLINE,
    }


def test_thousands_are_asked_for_in_thousands(
    dcache: EmbeddedDcache, api: TapeApi, deadline: Deadline
) -> None:
    before = len(dcache.transcript())
    urls = [f"{dcache.url}nowhere/{number}" for number in range(2500)]
    found = api.archive_info(urls, deadline=deadline)
    assert list(found) == urls
    assert all(isinstance(one, ResourceNotFoundError) for one in found.values())
    assert len(dcache.transcript()) - before == 3


def test_no_row_no_absence(deadline: Deadline) -> None:
    """What a short answer does not name, and what it names by another error, is not said to be absent."""
    rows = [
        {"path": "/c", "error": "Permission denied for /c"},
        {"path": "/does not exist", "error": "no luck with /does not exist"},
        {"path": "/d", "locality": "CLOUD"},
        {"path": "/a", "locality": "TAPE"},
    ]
    urls = [f"davs://d:1/{name}" for name in ("a", "b", "c", "does%20not%20exist", "d")]
    found = scripted(Scripted(said(200, rows))).archive_info(urls, deadline=deadline)
    kinds = [ProtocolError, AccessDeniedError, ServerError, ProtocolError]
    assert found[urls[0]] is Locality.NEARLINE
    assert [type(found[url]) for url in urls[1:]] == kinds


def test_two_urls_of_one_file_are_one_question(deadline: Deadline) -> None:
    script = Scripted(said(200, [{"path": "/a/b", "locality": "DISK"}]))
    urls = ["davs://d:1/a/b", "davs://d:1//a//b/", "https://d:1/a/b"]
    found = scripted(script).archive_info(urls, deadline=deadline)
    assert found == dict.fromkeys(urls, Locality.ONLINE)
    assert script.bodies == [{"paths": ["/a/b"]}]


def test_a_server_that_takes_fewer_paths_is_asked_for_fewer(deadline: Deadline) -> None:
    def at_most_48(body: Any) -> Answer:
        paths = body["paths"]
        return said(413) if len(paths) > 48 else said(200, [{"path": p, "locality": "TAPE"} for p in paths])

    script = Scripted(at_most_48)
    urls = [f"davs://d:1/{number}" for number in range(100)]
    found = scripted(script).archive_info(urls, deadline=deadline)
    assert found == dict.fromkeys(urls, Locality.NEARLINE)
    assert [len(body["paths"]) for body in script.bodies] == [100, 50, 25, 25, 25, 25]


def test_a_question_whose_answer_is_lost_is_asked_again(deadline: Deadline) -> None:
    script = Scripted(OutcomeUnknownError("lost"), said(200, [{"path": "/a", "locality": "LOST"}]))
    assert scripted(script).archive_info(["davs://d:1/a"], deadline=deadline) == {
        "davs://d:1/a": Locality.LOST
    }
    script = Scripted(OutcomeUnknownError("lost"))
    with pytest.raises(OutcomeUnknownError):
        scripted(script).archive_info(["davs://d:1/a"], deadline=deadline)
    assert len(script.bodies) == 3
    script = Scripted(OutcomeUnknownError("lost"))
    with pytest.raises(OutcomeUnknownError):
        scripted(script).stage(["davs://d:1/a"], lifetime_seconds=60, deadline=deadline)
    assert len(script.bodies) == 1


def ended(api: TapeApi, request: str, deadline: Deadline) -> dict[str, tuple[RecallState, str]]:
    while deadline.remaining():
        files = api.state(request, deadline=deadline)
        if all(file.state.is_final for file in files):
            break
    return {file.path: (file.state, file.error) for file in files}


def test_stage_state_release_cancel_delete(dcache: EmbeddedDcache, api: TapeApi, deadline: Deadline) -> None:
    dcache.place("stage/tape", b"1", locality="NEARLINE")
    dcache.place("stage/disk", b"2")
    base = f"{dcache.url}stage/"
    tape, urls = base + "tape", [base + name for name in ("tape", "disk", "none")]
    request = api.stage(urls, lifetime_seconds=90, deadline=deadline)
    states = ended(api, request, deadline)
    assert states[tape_path(tape)] == (RecallState.COMPLETED, "")
    assert states[tape_path(urls[1])] == (RecallState.FAILED, "Cannot stage DISK only files")
    assert "rc=10001" in states[tape_path(urls[2])][1]
    entry = dcache.site.namespace.find("/data/stage/tape")
    assert entry is not None
    assert dcache.site.tape is not None
    assert dcache.site.tape.pins(entry) == [request]
    api.cancel(request, urls, deadline=deadline)
    with pytest.raises(ProtocolError, match="File missing from stage request"):
        api.cancel(request, [base + "foreign"], deadline=deadline)
    api.release(request, [tape, base + "foreign"], deadline=deadline)
    assert dcache.site.tape.pins(entry) == []
    api.delete(request, deadline=deadline)
    api.delete(request, deadline=deadline)
    with pytest.raises(ResourceNotFoundError):
        api.state(request, deadline=deadline)


def test_too_many_files(dcache: EmbeddedDcache, api: TapeApi, deadline: Deadline) -> None:
    urls = [f"{dcache.url}{number}" for number in range(501)]
    with pytest.raises(ProtocolError) as caught:
        api.stage(urls, lifetime_seconds=60, deadline=deadline)
    assert caught.value.status == 413


def test_lifetimes_are_durations(deadline: Deadline) -> None:
    script = Scripted(said(201, {"requestId": "r"}))
    for seconds, text in ((172800, "P2D"), (90, "PT90S")):
        assert scripted(script).stage(["davs://d:1/a"], lifetime_seconds=seconds, deadline=deadline) == "r"
        assert script.bodies[-1] == {"files": [{"path": "/a", "diskLifetime": text}]}
    with pytest.raises(ValueError, match="0 s"):
        scripted(script).stage(["davs://d:1/a"], lifetime_seconds=0, deadline=deadline)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_site_without_a_tape_api(status: int, deadline: Deadline) -> None:
    with pytest.raises(UnsupportedError):
        scripted(Scripted(said(status))).archive_info(["davs://d:1/a"], deadline=deadline)
    with pytest.raises(UnsupportedError):
        scripted(Scripted(said(status))).stage(["davs://d:1/a"], lifetime_seconds=60, deadline=deadline)


@pytest.mark.parametrize(
    "document", [{"files": [{}]}, {"files": ["x"]}, {"files": [{"path": "/a", "state": "ODD"}]}, {"files": 3}]
)
def test_a_state_that_cannot_be_read(document: Any, deadline: Deadline) -> None:
    with pytest.raises(ProtocolError):
        scripted(Scripted(said(200, document))).state("r", deadline=deadline)


def test_a_request_without_a_name(deadline: Deadline) -> None:
    with pytest.raises(ProtocolError):
        scripted(Scripted(said(201, {}))).stage(["davs://d:1/a"], lifetime_seconds=60, deadline=deadline)
