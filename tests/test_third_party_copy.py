"""Copies that servers make between themselves: of two embedded dCaches, within one, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote, urlsplit

import pytest
from lsst.daf.butler_dcache.auth.macaroon import Activity, Macaroon
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport import exchange
from lsst.daf.butler_dcache.transport.deadline import Deadline
from request_counter import counted
from two_dcaches import ADLER32, DATA, Sites, Told, copy, name, read, sites, two

__all__ = ("sites", "two")  # fixtures


class TestRequests:
    """What a copy asks of whom."""

    def test_three_at_the_target_and_two_at_the_source(self, sites: Sites) -> None:
        source, directory = f"{sites.near.url}source", f"{sites.far.url}{name()}/"
        copy(source, f"{directory}first")
        seen: list[exchange.Exchange] = []
        exchange.add_observer(seen.append)
        told = Told()
        try:
            with counted(sites.near) as near, counted(sites.far) as far:
                info = copy(source, f"{directory}second", progress=told)
        finally:
            exchange.remove_observer(seen.append)
        assert far.methods() == ["door COPY", "door PROPFIND", "door MOVE"]
        assert near.methods() == ["door PROPFIND", "door GET", "pool GET"]
        assert sum(one.sent + one.received for one in seen) < 8192
        assert (info.size, dict(info.checksums)) == (len(DATA), {"adler32": ADLER32})
        assert (told.size, told.at[-1]) == (len(DATA), len(DATA))
        assert read(f"{directory}second") == DATA

    def test_within_one_server(self, sites: Sites) -> None:
        target = f"{sites.near.url}{name()}"
        with counted(sites.near) as near:
            copy(f"{sites.near.url}source", target)
        assert near.methods() == [
            "door PROPFIND",
            "door COPY",
            "door GET",
            "pool GET",
            "door PROPFIND",
            "door MOVE",
        ]
        assert read(target) == DATA

    def test_a_push(self, sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
        sites.configure(monkeypatch, near={"third_party": "push"})
        target = f"{sites.far.url}new/{name()}"
        with counted(sites.near) as near, counted(sites.far) as far:
            copy(f"{sites.near.url}source", target)
        assert near.methods() == ["door PROPFIND", "door COPY"]
        # The pool puts and looks; the client looks, too, and publishes.
        assert [one for one in far.methods() if one.startswith("door")] == [
            "door PUT",
            "door HEAD",
            "door PROPFIND",
            "door MOVE",
        ]
        assert read(target) == DATA

    def test_an_empty_file_is_written(self, sites: Sites) -> None:
        sites.near.place("empty", b"")
        target = f"{sites.far.url}{name()}"
        with counted(sites.near) as near, counted(sites.far) as far:
            copy(f"{sites.near.url}empty", target)
        assert near.methods() == ["door PROPFIND"]
        assert far.methods() == ["door PUT", "door MOVE"]
        assert read(target) == b""

    def test_never(self, sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
        sites.configure(monkeypatch, far={"third_party": "never"})
        target = f"{sites.far.url}{name()}"
        told = Told()
        with counted(sites.far) as far:
            copy(f"{sites.near.url}source", target, progress=told)
        assert "door COPY" not in far.methods()
        assert (told.size, told.at[-1]) == (len(DATA), len(DATA))
        assert read(target) == DATA


def test_small_files_may_pass_through(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    sites.configure(monkeypatch, far={"third_party_from_bytes": len(DATA) + 1})
    told: list[str] = []
    copy(f"{sites.near.url}source", f"{sites.far.url}{name()}", on_way=told.append)
    sites.near.place("larger", DATA + b"x")
    copy(f"{sites.near.url}larger", f"{sites.far.url}{name()}", on_way=told.append)
    assert told == ["client", "server"]


@pytest.mark.parametrize("writes", [False, True])
def test_what_is_handed_over_is_good_for_one_file_and_little_else(sites: Sites, writes: bool) -> None:
    url = f"{sites.near.url}source"
    store = store_for(url)
    store.exists(url)
    if writes:
        target = f"{sites.near.url}{name()}"
        with store.landing(target, 5, overwrite=True, deadline=Deadline(60)) as landing:
            grant = landing.grant(600)
        wanted = {Activity.UPLOAD, Activity.DELETE, Activity.READ_METADATA}
    else:
        grant = store.grant(url, 600)
        wanted = {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert grant.credential is not None
    assert grant.credential.secret is not None
    macaroon = Macaroon.parse(grant.credential.secret.reveal())
    assert macaroon.activities == wanted
    assert macaroon.scope.path == unquote(urlsplit(grant.url).path)
    assert macaroon.expires is not None
    assert macaroon.expires < datetime.now(UTC) + timedelta(seconds=601)
    assert grant.credential.secret.reveal() not in repr(grant)


@pytest.mark.parametrize(
    "odd", ["a#b", "100%", "a+b", "a;b", "blank ", "\N{SNOWMAN}\U0001f52d", "a?b&c=d", "%41"]
)
@pytest.mark.parametrize("way", ["pull", "push"])
def test_odd_names(sites: Sites, monkeypatch: pytest.MonkeyPatch, odd: str, way: str) -> None:
    sites.configure(monkeypatch, far={"third_party": way})
    sites.near.place(f"odd/{odd}", DATA)
    target = f"{sites.far.url}{way} {odd}".replace(sites.far.url, "")
    target = sites.far.url + quote(target, safe="")
    with counted(sites.near) as near, counted(sites.far) as far:
        copy(f"{sites.near.url}odd/{quote(odd, safe='')}", target)
    assert "door COPY" in (far if way == "pull" else near).methods()
    assert read(target) == DATA
