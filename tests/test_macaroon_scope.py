"""What macaroons allow, and how they are narrowed in one's own terms."""

from __future__ import annotations

import base64
import contextlib
import json
import posixpath
from datetime import UTC, datetime, timedelta

import pymacaroons
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.daf.butler_dcache.auth.caveats import in_words
from lsst.daf.butler_dcache.auth.macaroon import (
    Activity,
    Dialect,
    Macaroon,
    MacaroonAttenuationError,
    NotAMacaroonError,
)
from lsst.daf.butler_dcache.embedded.caveats import BadCaveatError, BrokenContextError, narrow_all
from test_macaroon import FUTURE, KEY, mint, verify

FIRST = ("iid:aaaaaaaa", "id:1000;1000,2000;alice", f"before:{FUTURE}")
UUID = "12345678-90ab-cdef-1234-567890abcdef"


def dcache(*caveats: str) -> Macaroon:
    return Macaroon.parse(mint(*FIRST, *caveats))


def xrootd(*caveats: str) -> Macaroon:
    token = pymacaroons.Macaroon(location="SITE", identifier=UUID, key=KEY)
    for caveat in ("name:tester", *caveats):
        token.add_first_party_caveat(caveat)
    return Macaroon.parse(str(token.serialize()))


def caveats(token: str, skip: int) -> list[str]:
    return verify(token)[skip:]


def test_description() -> None:
    macaroon = dcache("root:/data", "path:/a", "path:b/", "activity:DOWNLOAD,LIST", "max-upload:9", "ip:::1")
    found = macaroon.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["issuer"] == "dCache"
    assert found["identity"] == "alice"
    assert (found["root"], found["path"], found["max_upload_bytes"]) == ("/data", "/a/b", 9)
    assert found["activities"] == ["LIST", "DOWNLOAD", "READ_METADATA"]
    assert found["expires"] == FUTURE
    assert found["expired"] is False
    assert found["addresses"] == ["::1"]
    assert found["problems"] == []
    assert {"caveat": "path:/a", "meaning": "only /a, below the paths before it"} in found["caveats"]
    assert macaroon.signature.hex() not in json.dumps(found)


def test_what_others_added_stays_and_is_reported() -> None:
    macaroon = dcache("colour:red", "activity:DANCE,LIST", "before:soon", "max-upload:x", "ip:home", "red")
    assert [problem.partition(": ")[0] for problem in macaroon.scope.problems] == [
        "colour:red",
        "activity:DANCE,LIST",
        "before:soon",
        "max-upload:x",
        "ip:home",
        "red",
    ]
    assert macaroon.activities == {Activity.LIST, Activity.READ_METADATA}
    assert macaroon.expires == datetime.fromisoformat(FUTURE)
    token = macaroon.narrow(path="/a")
    assert caveats(token, len(FIRST))[:-1] == list(macaroon.caveats[len(FIRST) :])
    assert in_words("colour:red", Dialect.DCACHE) == "a condition that is not known here"


@pytest.mark.parametrize(
    ("held", "asked", "appended"),
    [
        ((), "/a/b", ["path:/a/b"]),
        ((), "/", []),
        (("path:/a",), "/a", []),
        (("path:/a",), "/a/b c", ["path:/b c"]),
        (("path:/a", "path:b/../c"), "/a/c/d", ["path:/d"]),
        (("root:/r", "path:/a"), "/a/b", ["path:/b"]),
        (("path:/r/s", "root:/r"), "/s/t", ["path:/t"]),
        (("path:/a",), "//a/b", ["path:/b"]),
        (("path:/a",), "/x/../a/./b/", ["path:/b"]),
        (("path:/a",), "/a/b/../c", ["path:/c"]),
        (("path:/a",), "/ab", None),
        (("path:/a",), "/a/../b", None),
        (("path:/a",), "a/b", None),
    ],
)
def test_paths_of_dcache(held: tuple[str, ...], asked: str, appended: list[str] | None) -> None:
    macaroon = dcache(*held)
    if appended is None:
        with pytest.raises(MacaroonAttenuationError):
            macaroon.narrow(path=asked)
        return
    token = macaroon.narrow(path=asked)
    assert caveats(token, len(FIRST) + len(held)) == appended
    assert Macaroon.parse(token).scope.path == posixpath.normpath("/" + asked.lstrip("/"))


def test_root_and_home() -> None:
    macaroon = dcache("home:/r/h", "path:/r/s")
    inside = Macaroon.parse(macaroon.attenuate("root:/r"))
    assert (inside.scope.root, inside.scope.path, inside.scope.home) == ("/r", "/s", "/h")
    assert Macaroon.parse(inside.attenuate("home:/x")).scope.home == "/x"
    with pytest.raises(MacaroonAttenuationError, match="root is outside of the path"):
        macaroon.attenuate("root:/elsewhere")


def test_xrootd_judges_each_caveat_by_itself() -> None:
    macaroon = xrootd("activity:READ_METADATA,MANAGE,DOWNLOAD", "path:/rw", f"before:{FUTURE}")
    assert macaroon.dialect is Dialect.XROOTD
    assert macaroon.scope.identity == "tester"
    assert macaroon.scope.path == "/rw"
    token = macaroon.narrow(path="/rw/d", activities={Activity.UPLOAD})
    assert caveats(token, 4)[:2] == ["activity:UPLOAD", "path:/rw/d"]
    narrowed = Macaroon.parse(token)
    assert narrowed.activities == {Activity.UPLOAD, Activity.READ_METADATA}
    assert narrowed.scope.path == "/rw/d"


@pytest.mark.parametrize(
    "caveat",
    [
        "ip:127.0.0.1",
        "max-upload:5",
        "root:/rw",
        "name:other",
        "path:/else",
        "path:rw/relative",
        "activity:DELETE",
        "before:2035-01-01T00:00:00+01:00",
        "before:2035-01-01T00:00:00.5Z",
    ],
)
def test_what_xrootd_would_refuse(caveat: str) -> None:
    with pytest.raises(MacaroonAttenuationError):
        xrootd("activity:READ_METADATA,DOWNLOAD", "path:/rw").attenuate(caveat)


def test_narrowing_says_no_more_than_is_needed() -> None:
    macaroon = dcache("activity:DOWNLOAD,LIST")
    end = macaroon.expires
    assert end is not None
    token = macaroon.narrow(
        activities={Activity.LIST, Activity.DOWNLOAD}, path="/", before=end + timedelta(days=1)
    )
    assert token == macaroon.serialise()
    metadata = {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert caveats(macaroon.narrow(activities=metadata), 4) == ["activity:DOWNLOAD"]
    with pytest.raises(MacaroonAttenuationError, match="enlarge"):
        macaroon.narrow(activities={Activity.UPLOAD})
    with pytest.raises(MacaroonAttenuationError, match="passed"):
        macaroon.narrow(before=datetime.now(UTC) - timedelta(seconds=2))
    with pytest.raises(MacaroonAttenuationError, match="has ended"):
        Macaroon.parse(mint("before:2020-01-01T00:00:00Z")).narrow(path="/a")
    with pytest.raises(MacaroonAttenuationError, match="longer"):
        macaroon.narrow(path="/x" * 2000, addresses=["192.0.2.1"] * 350)


# Whatever the client appends, the issuer accepts; whatever it reports as wrong, the issuer refuses.

PATHS = st.text(st.sampled_from("ab./ü %"), max_size=12)
WORDS = st.lists(st.sampled_from([*(a.value for a in Activity), "DANCE", "list", ""]), max_size=4)
CAVEAT = st.one_of(
    WORDS.map(lambda words: "activity:" + ",".join(words)),
    PATHS.map(lambda path: "path:" + path),
    PATHS.map(lambda path: "root:" + path),
    PATHS.map(lambda path: "home:" + path),
    st.sampled_from(
        [f"before:{FUTURE}", "before:2035-01-01", "max-upload:7", "max-upload:0", "ip:127.0.0.1"]
    ),
    st.sampled_from(["ip:127.0.0.0/8,::1", "ip:x", "iid:b", "id:0;0;root", "colour:red", "red"]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(CAVEAT, max_size=5))
def test_the_embedded_dcache_agrees(asked: list[str]) -> None:
    macaroon = dcache()
    for caveat in asked:
        before = macaroon.scope
        try:
            macaroon = Macaroon.parse(macaroon.attenuate(caveat))
        except MacaroonAttenuationError:
            continue
        assert macaroon.activities <= before.activities
    verify(macaroon.serialise())
    context = narrow_all(list(macaroon.caveats), "127.0.0.1", datetime.now(UTC).timestamp())
    scope = macaroon.scope
    assert scope.problems == ()
    assert scope.root == context.root
    assert scope.path == (context.path or "/")
    everything = frozenset(Activity)
    theirs = everything if context.activities is None else {Activity(a.value) for a in context.activities}
    assert scope.activities == theirs
    assert scope.max_upload_bytes == context.max_upload


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(CAVEAT, max_size=5))
def test_problems_are_those_of_the_embedded_dcache(added: list[str]) -> None:
    macaroon = Macaroon.parse(mint(*FIRST, *added))
    try:
        narrow_all(list(macaroon.caveats), "127.0.0.1", datetime.now(UTC).timestamp())
    except (BadCaveatError, BrokenContextError):
        assert macaroon.scope.problems


# The parser: whatever comes in, one kind of error comes out.


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(st.text(max_size=200), st.binary(max_size=400).map(lambda raw: base64.b64encode(raw).decode()))
)
def test_parser_survives_anything(text: str) -> None:
    with contextlib.suppress(NotAMacaroonError):
        Macaroon.parse(text)


PACKET = st.tuples(
    st.sampled_from([b"location", b"identifier", b"cid", b"vid", b"signature", b"", b"\xff"]),
    st.binary(max_size=60),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(PACKET, max_size=8), st.binary(max_size=8))
def test_parser_survives_odd_packets(packets: list[tuple[bytes, bytes, int | None]], rest: bytes) -> None:
    raw = b"".join(
        b"%04x" % (len(key) + len(value) + 6 if length is None else length) + key + b" " + value + b"\n"
        for key, value, length in packets
    )
    try:
        macaroon = Macaroon.parse(base64.urlsafe_b64encode(raw + rest).decode())
    except NotAMacaroonError:
        return
    json.dumps(macaroon.describe())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.one_of(CAVEAT, st.text(max_size=40)), max_size=8), st.text(max_size=30))
def test_any_caveats_are_described_and_judged(held: list[str], appended: str) -> None:
    token = mint(*(caveat.encode("utf-8", "ignore").decode() for caveat in held))
    macaroon = Macaroon.parse(token)
    description = macaroon.describe()
    shown = [line["meaning"] for line in description["caveats"]] + description["problems"]  # type: ignore[operator, attr-defined]
    assert all(line.isprintable() for line in shown)
    assert macaroon.serialise() == token.rstrip("=")
    for caveat in (appended, "path:" + appended, "activity:" + appended, "before:" + appended):
        with contextlib.suppress(MacaroonAttenuationError):
            assert verify(macaroon.attenuate(caveat))[-1] == caveat


def test_long_tokens_are_bounded() -> None:
    with pytest.raises(NotAMacaroonError, match="longer"):
        Macaroon.parse("M" * 70_000)
    many = b"000bcid a:\n" * 4000
    with pytest.raises(NotAMacaroonError, match="more than"):
        Macaroon.parse(base64.b64encode(many).decode())
