"""Short answers of the data plane that break off."""

from __future__ import annotations

import pytest
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.errors import DoorUnavailableError, OutcomeUnknownError
from lsst.daf.butler_dcache.transport.data import DataPlane
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.transport.short_answers import ask_shortly
from scripted_server import ScriptedServer, Talk


def cut(talk: Talk) -> None:
    talk.head()
    talk.say(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\nInternal prob")


def test_what_a_cut_answer_means_for_a_move() -> None:
    """The status is known and the reason is not: whoever sent it must look."""
    with ScriptedServer(cut) as server:
        plane = DataPlane(EndpointSettings(server.url))
        with pytest.raises(OutcomeUnknownError) as caught:
            ask_shortly(plane, "MOVE", server.url + "a", deadline=Deadline(10), authenticate=False)
    assert caught.value.status == 500
    assert isinstance(caught.value.__cause__, DoorUnavailableError)


def test_what_a_cut_answer_means_for_a_read() -> None:
    with ScriptedServer(cut) as server:
        plane = DataPlane(EndpointSettings(server.url))
        with pytest.raises(DoorUnavailableError):
            ask_shortly(plane, "GET", server.url + "a", deadline=Deadline(10), authenticate=False)
