"""Answers that the data plane reads whole: what breaks off, is garbled, or too large."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import (
    DcacheError,
    DoorUnavailableError,
    OutcomeUnknownError,
    ProtocolError,
)
from lsst.daf.butler_dcache.transport import short_answers
from lsst.daf.butler_dcache.transport.control import Answer
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.retry import Phase, rule_for
from scripted_server import ScriptedServer, Talk, answering

CHUNKED = b"HTTP/1.1 207 Multi-Status\r\nTransfer-Encoding: chunked\r\n\r\n"


def cut(talk: Talk) -> None:
    talk.head()
    talk.say(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\nInternal prob")


def garbled(talk: Talk) -> None:
    talk.head()
    talk.say(CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n")


def ask(server: ScriptedServer, method: str, **changes: Any) -> Answer:
    plane = DataPlane(EndpointSettings(server.url))
    options = {"deadline": Deadline(60), "authenticate": False, "most_bytes": 1000, **changes}
    return short_answers.ask_shortly(plane, method, server.url + "a", **options)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waits.append)
    monkeypatch.setattr(short_answers, "time", clock)
    return waits


def test_what_a_cut_answer_means_for_a_move() -> None:
    """The status is known and the reason is not: whoever sent it must look."""
    with ScriptedServer(cut) as server, pytest.raises(OutcomeUnknownError) as caught:
        ask(server, "MOVE")
    assert caught.value.status == 500
    assert isinstance(caught.value.__cause__, DoorUnavailableError)
    assert len(server.heads) == 1


def test_a_read_whose_answer_is_cut_is_sent_again(waits: list[float]) -> None:
    with ScriptedServer(cut, answering(CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")) as server:
        answer = ask(server, "PROPFIND")
    assert (answer.status, answer.body, answer.attempts) == (207, b"abcd", 2)
    assert (len(server.heads), len(waits)) == (2, 1)


def test_a_read_whose_answer_is_cut_each_time(waits: list[float]) -> None:
    rule = rule_for(Phase.NO_ANSWER, "PROPFIND")
    assert rule is not None
    with ScriptedServer(cut) as server, pytest.raises(DoorUnavailableError) as caught:
        ask(server, "PROPFIND")
    assert caught.value.attempts == len(server.heads) == len(waits) + 1 == rule.attempts


def test_a_cut_answer_where_there_is_another_door(waits: list[float]) -> None:
    with ScriptedServer(cut) as server, pytest.raises(DoorUnavailableError):
        ask(server, "PROPFIND", elsewhere=True)
    assert (len(server.heads), waits) == (1, [])


@pytest.mark.parametrize(("method", "kind"), [("PROPFIND", ProtocolError), ("MOVE", OutcomeUnknownError)])
def test_a_garbled_body(method: str, kind: type[DcacheError]) -> None:
    with ScriptedServer(garbled) as server, pytest.raises(DcacheError) as caught:
        ask(server, method)
    assert type(caught.value) is kind
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
    ],
    ids=["chunked", "announced"],
)
def test_an_answer_that_is_too_large(answer: bytes) -> None:
    with ScriptedServer(answering(answer)) as server:
        with pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            ask(server, "PROPFIND")
        assert ask(server, "PROPFIND", most_bytes=1001).body == b"x" * 1001
    assert len(server.heads) == 2


def test_an_answer_of_several_pieces() -> None:
    body = bytes(range(256)) * 700
    head = b"HTTP/1.1 207 Multi-Status\r\nContent-Length: %d\r\n\r\n" % len(body)
    with ScriptedServer(answering(head + body)) as server:
        assert ask(server, "PROPFIND", most_bytes=len(body)).body == body
