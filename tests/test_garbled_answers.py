"""Answers that are not HTTP: a read tells it, and of anything else nobody knows what became of it."""

from __future__ import annotations

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from scripted_server import ScriptedServer, Talk


def nonsense(talk: Talk) -> None:
    if talk.head():
        talk.say(b"HELLO?\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("GET", errors.ProtocolError),
        ("MOVE", errors.OutcomeUnknownError),
        ("PUT", errors.OutcomeUnknownError),
    ],
)
def test_garbled(method: str, kind: type[errors.DcacheError]) -> None:
    with ScriptedServer(nonsense) as server:
        plane = DataPlane(EndpointSettings(server.url))
        with pytest.raises(errors.DcacheError) as caught:
            plane.open(method, server.url + "f", body=b"x" if method == "PUT" else None, deadline=Deadline(9))
    assert type(caught.value) is kind
    assert caught.value.operation == method
    assert len(server.heads) == 1, "it is not sent again"


def test_garbled_answer_to_a_stream() -> None:
    def script(talk: Talk) -> None:
        talk.head()
        talk.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        talk.body(1)
        talk.say(b"HELLO?\r\n\r\n")

    with ScriptedServer(script) as server:
        plane = DataPlane(EndpointSettings(server.url))
        outgoing = plane.begin("PUT", server.url + "f", length=1, deadline=Deadline(9))
        outgoing.send(b"x", Deadline(9))  # type: ignore[union-attr]
        with pytest.raises(errors.OutcomeUnknownError):
            outgoing.finish(Deadline(9))  # type: ignore[union-attr]
