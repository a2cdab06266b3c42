"""The embedded dCache's macaroons, against pymacaroons and against what a real door says."""

import base64
import json

import pytest
from lsst.daf.butler_dcache.embedded.caveats import Activity, MacaroonContext
from lsst.daf.butler_dcache.embedded.duration import format_duration, parse_duration
from lsst.daf.butler_dcache.embedded.macaroons import (
    BadMacaroonRequestError,
    LoginCache,
    MacaroonMint,
    MacaroonRefusedError,
)
from pymacaroons import Macaroon
from pymacaroons.serializers import BinarySerializer

ALICE = MacaroonContext(1000, (1000, 2000), "alice")
NOW = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mint(clock: Clock) -> MacaroonMint:
    return MacaroonMint(clock=clock)


def ask(*caveats: str, validity: str | None = None) -> bytes:
    return json.dumps({"caveats": caveats, **({"validity": validity} if validity else {})}).encode()


def read(token: str) -> Macaroon:
    return BinarySerializer().deserialize(token)


def narrowed(token: str, *caveats: str) -> str:
    """Let the independent implementation append caveats."""
    macaroon = read(token)
    for caveat in caveats:
        macaroon.add_first_party_caveat(caveat)
    return BinarySerializer().serialize(macaroon)


def caveats_of(token: str) -> list[str]:
    return [caveat.caveat_id for caveat in read(token).caveats]


def refusal(mint: MacaroonMint, token: str, client: str = "127.0.0.1") -> str:
    with pytest.raises(MacaroonRefusedError) as caught:
        mint.verify(token, client)
    return str(caught.value)


def test_issued_in_dcaches_order(mint: MacaroonMint) -> None:
    holder = MacaroonContext(
        7, (8, 9), "bob", root="/r", home="/h", activities=frozenset({Activity.LIST}), max_upload=5
    )
    token = mint.issue(holder, "/a//b/", ask("activity:LIST", "ip:127.0.0.1", validity="PT10M"))
    found = caveats_of(token)
    assert [caveat.partition(":")[0] for caveat in found] == [
        "iid", "id", "before", "root", "home", "path", "max-upload", "activity", "activity", "ip",
    ]  # fmt: skip
    assert found[1:7] == [
        "id:7;8,9;bob", "before:2027-01-15T08:10:00.000Z", "root:/r", "home:/h", "path:/a/b", "max-upload:5",
    ]  # fmt: skip
    assert read(token).location == "Optional[/a/b]"
    assert "=" not in token
    assert len(base64.b64decode(read(token).identifier)) == 6


def test_root_adds_no_path(mint: MacaroonMint) -> None:
    token = mint.issue(ALICE, "/", b"")
    assert read(token).location == "Optional.empty"
    context = mint.verify(token, "127.0.0.1")
    assert (context.path, context.activities, context.username) == (None, None, "alice")
    assert context.expires == NOW + 86400


def test_attenuated_by_another_implementation(mint: MacaroonMint) -> None:
    token = mint.issue(ALICE, "/a", ask("activity:DOWNLOAD,LIST,UPLOAD"))
    child = narrowed(token, "activity:DOWNLOAD", "path:b", "path:/../c", "max-upload:7", "max-upload:9")
    context = mint.verify(child, "::1")
    assert context.path == "/a/b/c"
    assert context.activities == {Activity.DOWNLOAD, Activity.READ_METADATA}
    assert context.max_upload == 7


@pytest.mark.parametrize(
    ("caveats", "cause"),
    [
        (["activity:DOWNLOAD,DELETE"], "attempt to enlarge activity set: activity:DOWNLOAD,DELETE"),
        (["activity:DOWNLOAD", "activity:LIST"], "attempt to enlarge activity set: activity:LIST"),
        (["activity:READ_METADATA"], "attempt to enlarge activity set: activity:READ_METADATA"),
        (["before:2020-01-01T00:00:00Z"], "expired: before:2020-01-01T00:00:00Z"),
        (["ip:192.0.2.1"], "Client fails to match IP caveat ip:192.0.2.1"),
        (["ip:nonsense"], "Invalid subnets: [nonsense]"),
        (["iid:AAAAAAAA"], "Multiple iid: iid:AAAAAAAA"),
        (["max-upload:0"], "max-upload must be a positive value: max-upload:0"),
        (["colour:red"], "Unknown caveat colour and Unknown caveat colour: colour:red"),
        (["red"], "Missing ':' and Missing ':': red"),
        (["root:/elsewhere"], "root extends outside of path: root:/elsewhere"),
        (
            ["activity:download"],
            "Bad activity value: No enum constant org.dcache.auth.attributes.Activity.download"
            ": activity:download",
        ),
    ],
)
def test_refusals(mint: MacaroonMint, caveats: list[str], cause: str) -> None:
    token = narrowed(mint.issue(ALICE, "/a", ask("activity:DOWNLOAD,LIST")), *caveats)
    name = base64.b64encode(bytes.fromhex(read(token).signature)[:6]).decode()
    assert refusal(mint, token) == f"macaroon login denied: Invalid macaroon [-:{name}]: {cause}"


def test_refusals_without_cause(mint: MacaroonMint) -> None:
    token = mint.issue(ALICE, "/a", b"{}")
    assert refusal(mint, "nonsense") == "login failed"
    assert refusal(mint, token[:-40]) == "login failed"
    assert refusal(mint, narrowed(token, "id:0;0;root")) == "login failed"
    assert refusal(mint, token[:-6] + "AAAAAA").startswith("macaroon login denied: Invalid macaroon [-:")
    assert "Unable to find secret for macaroon" in refusal(MacaroonMint(), token)


def test_addresses_and_offsets(mint: MacaroonMint) -> None:
    token = narrowed(mint.issue(ALICE, "/", b""), "ip:127.0.0.0/8,::1", "before:2035-01-01T00:00:00+01:00")
    for client in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert mint.verify(token, client).username == "alice"


@pytest.mark.parametrize(
    ("issued_for", "root", "path", "home"),
    [("/a/b", "/a", "/b", "/"), ("/a", "/a/b/c", None, "/"), ("/a", "/a", None, "/h")],
)
def test_root_moves_path_and_home(
    mint: MacaroonMint, issued_for: str, root: str, path: str | None, home: str
) -> None:
    token = mint.issue(MacaroonContext(1, (1,), "x", home="/a/h"), issued_for, b"")
    context = mint.verify(narrowed(token, f"root:{root}"), "127.0.0.1")
    assert (context.root, context.path) == (root, path)
    assert context.home == ("/h" if root == "/a" else home)


def test_derived_macaroons_only_narrow(mint: MacaroonMint) -> None:
    first = mint.verify(mint.issue(ALICE, "/a", ask("activity:LIST,DOWNLOAD", validity="PT10M")), "::1")
    again = mint.issue(first, "/", b"")
    context = mint.verify(again, "::1")
    assert context == first
    assert "activity:LIST,DOWNLOAD,READ_METADATA" in caveats_of(again)
    with pytest.raises(BadMacaroonRequestError, match="Bad request path: Desired path not within"):
        mint.issue(first, "/ab", b"")
    with pytest.raises(BadMacaroonRequestError, match="before: cannot extend session lifetime"):
        mint.issue(first, "/a", ask(validity="PT1H"))
    wider = mint.issue(first, "/a", ask("activity:DELETE"))
    assert "attempt to enlarge activity set" in refusal(mint, wider)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Unable to parse JSON: java.io.EOFException: End of input at line 1 column 2 path $."),
        (b'{"validity": "soon"}', "Bad validity value: Text cannot be parsed to a Duration"),
        (ask("colour:red"), "Bad requested caveat: Unknown caveat colour"),
        (ask("red"), "Bad requested caveat: Missing ':'"),
        (ask("before:2020-01-01T00:00:00Z"), "Bad requested caveat: before: requested expiry in past"),
        (
            ask(validity="P30D"),
            "Bad requested caveat: before: requested duration beyond maximum allowed (PT168H)",
        ),
    ],
)
def test_bad_requests(mint: MacaroonMint, body: bytes, reason: str) -> None:
    with pytest.raises(BadMacaroonRequestError) as caught:
        mint.issue(ALICE, "/a", body)
    assert str(caught.value) == reason


def test_earliest_end_wins(mint: MacaroonMint) -> None:
    token = mint.issue(ALICE, "/", ask("before:2027-01-15T08:05:00Z", validity="PT10M"))
    assert mint.verify(token, "::1").expires == NOW + 300
    assert sum(caveat.startswith("before:") for caveat in caveats_of(token)) == 1


def test_values_are_judged_at_use_only(mint: MacaroonMint) -> None:
    token = mint.issue(ALICE, "/a", ask("activity:DANCE"))
    assert "No enum constant" in refusal(mint, token)


def test_expiry_and_the_memory_of_a_door(mint: MacaroonMint, clock: Clock) -> None:
    ticks = Clock(0.0)
    cache = LoginCache(mint, clock=ticks)
    used = mint.issue(ALICE, "/a", ask(validity="PT1M"))
    unused = mint.issue(ALICE, "/b", ask(validity="PT1M"))
    assert cache.login(used, "::1").path == "/a"
    clock.now, ticks.now = NOW + 120, 120.0
    assert cache.login(used, "::1").path == "/a"
    for token, client in ((unused, "::1"), (used, "127.0.0.1")):
        with pytest.raises(MacaroonRefusedError, match="expired: before:"):
            cache.login(token, client)
    ticks.now = 600.0
    with pytest.raises(MacaroonRefusedError, match="expired: before:"):
        cache.login(used, "::1")


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT10M", 600), ("P2D", 172800), ("pt1h0.5s", 3600.5), ("-PT5S", -5), ("PT-5S", -5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "P", "PT", "P1DT", "P1Y", "10", ""])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be parsed"):
        parse_duration(text)


def test_written_durations() -> None:
    assert [format_duration(s) for s in (604800, 90, 0)] == ["PT168H", "PT1M30S", "PT0S"]
