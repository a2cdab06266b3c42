"""The tape API of another author: XRootD's own server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.errors import DcacheError, ResourceNotFoundError, UnsupportedError
from lsst.daf.butler_dcache.model import Locality
from lsst.daf.butler_dcache.store import staging
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport.deadline import Deadline
from xrootd_server import XrootdTape


@pytest.fixture
def root(xrootd_tape: XrootdTape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(staging, "_FIRST_POLL_SECONDS", 0.02)
    for folder, names in (
        (xrootd_tape.archive, ("tape", "both", "odd #%+")),
        (xrootd_tape.disk, ("disk", "both")),
    ):
        (folder / tmp_path.name).mkdir()
        (folder / tmp_path.name).chmod(0o777)
        for name in names:
            (folder / tmp_path.name / name).write_bytes(b"1")
            (folder / tmp_path.name / name).chmod(0o666)
    return f"{xrootd_tape.url}{tmp_path.name}/"


def test_discovery(xrootd_tape: XrootdTape) -> None:
    store: Any = store_for(xrootd_tape.url)
    api = store._frontends.tape(Deadline(10))
    assert urlsplit(api.base_url)[:2] == ("https", urlsplit(xrootd_tape.url).netloc)
    assert store._frontends.get(Deadline(10)) is None, "a tape API is no frontend"


def kinds(answers: dict[str, Locality | DcacheError]) -> list[Locality | type[DcacheError]]:
    return [type(one) if isinstance(one, DcacheError) else one for one in answers.values()]


def test_localities(root: str) -> None:
    urls = [root + name for name in ("tape", "both", "disk", "odd%20%23%25+", "none")]
    assert kinds(store_for(root).tape().localities(urls)) == [
        Locality.NEARLINE,
        Locality.ONLINE_AND_NEARLINE,
        Locality.ONLINE,
        Locality.NEARLINE,
        ResourceNotFoundError,
    ]


def test_stage_cancel_and_release(root: str) -> None:
    tape = store_for(root).tape()
    urls = [root + name for name in ("tape", "disk", "none", "odd%20%23%25+")]
    errors = tape.stage_and_wait(urls, lifetime_seconds=600, deadline=Deadline(30.0))
    assert [type(error) for error in errors.values()] == [
        type(None),
        type(None),
        ResourceNotFoundError,
        type(None),
    ]
    assert tape.localities(urls[:1]) == {urls[0]: Locality.ONLINE_AND_NEARLINE}
    deadline = Deadline(30.0)
    request = tape.api.stage(urls[:1], lifetime_seconds=600, deadline=deadline)
    tape.api.cancel(request, urls[:1], deadline=deadline)
    with pytest.raises(DcacheError, match="file does not belong to the stage request"):
        tape.api.cancel(request, urls[1:2], deadline=deadline)
    tape.release(request, urls[:1], forget=True)
    assert tape.localities(urls[:1]) == {urls[0]: Locality.NEARLINE}
    with pytest.raises(ResourceNotFoundError):
        tape.api.state(request, deadline=deadline)
    tape.release(request, urls[:1], forget=True)


def test_it_pins_nothing(root: str) -> None:
    with pytest.raises(UnsupportedError, match="only the frontend of a dCache"):
        store_for(root).tape().pin([root + "both"], lifetime_seconds=600, name="x")


def test_commands(root: str) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    run("stage", root + "tape", root + "both")
    assert [row["locality"] for row in json.loads(run("locality", "--json", root + "tape"))] == [
        "ONLINE_AND_NEARLINE"
    ]
    run("release", root + "tape")
    assert run("locality", root + "tape").split()[0] == "NEARLINE"
