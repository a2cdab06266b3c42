"""Macaroons, with `pymacaroons` as second opinion."""

from __future__ import annotations

import base64
import pickle
import random
from datetime import UTC, datetime, timedelta

import pymacaroons
import pytest
from lsst.daf.butler_dcache.auth.macaroon import (
    Activity,
    Macaroon,
    MacaroonAttenuationError,
    NotAMacaroonError,
)
from lsst.daf.butler_dcache.errors import DcacheError

KEY = "secret of the issuer"
# To the day: names of tests are made of it, and must be the same in all processes.
FUTURE = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT00:00:00Z")


def mint(*caveats: str, location: str = "Optional.empty") -> str:
    """Token of the other implementation."""
    macaroon = pymacaroons.Macaroon(location=location, identifier="FdzWMQEX", key=KEY)
    for caveat in caveats:
        macaroon.add_first_party_caveat(caveat)
    return str(macaroon.serialize())


def verify(token: str) -> list[str]:
    """Caveats of a token whose signature the other implementation accepts."""
    macaroon = pymacaroons.Macaroon.deserialize(token)
    verifier = pymacaroons.Verifier()
    verifier.satisfy_general(lambda caveat: True)
    assert verifier.verify(macaroon, KEY)
    return [caveat.caveat_id for caveat in macaroon.caveats]


def test_reads_what_the_other_writes() -> None:
    token = mint("iid:aaaaaaaa", "id:1000;1000;alice", f"before:{FUTURE}", "path:/a", location="Optional[/a]")
    macaroon = Macaroon.parse(token)
    assert macaroon.location == "Optional[/a]"
    assert macaroon.identifier == b"FdzWMQEX"
    assert macaroon.caveats == ("iid:aaaaaaaa", "id:1000;1000;alice", f"before:{FUTURE}", "path:/a")
    assert macaroon.activities == frozenset(Activity)
    assert macaroon.expires == datetime.fromisoformat(FUTURE)
    assert macaroon.serialise() == token.rstrip("=")


def test_the_other_verifies_what_we_append() -> None:
    caveats = (
        "activity:DOWNLOAD,LIST",
        "path:/b c/ü",
        f"before:{FUTURE}",
        "ip:192.0.2.0/24,::1",
        "max-upload:5",
    )
    assert verify(Macaroon.parse(mint("path:/a")).attenuate(*caveats)) == ["path:/a", *caveats]


def test_random_chains_agree() -> None:
    draw = random.Random(20261124)
    for _ in range(300):
        first = ["iid:x"]
        if draw.random() < 0.5:
            first.append(
                "activity:" + ",".join(a.value for a in draw.sample(list(Activity), draw.randint(1, 8)))
            )
        macaroon = Macaroon.parse(mint(*first))
        asked: list[str] = []
        for _ in range(draw.randint(0, 4)):
            current = macaroon.activities
            wanted = draw.sample(list(Activity), draw.randint(1, 4))
            caveat = draw.choice(
                (
                    "activity:" + ",".join(a.value for a in wanted),
                    f"path:/{draw.randint(0, 10**9)}",
                    f"max-upload:{draw.randint(1, 10**12)}",
                )
            )
            try:
                token = macaroon.attenuate(caveat)
            except MacaroonAttenuationError:
                # Refused only where the set would grow; READ_METADATA may be implied and not in the set.
                assert caveat.startswith("activity:")
                assert not set(wanted) <= current - {Activity.READ_METADATA}
                continue
            asked.append(caveat)
            macaroon = Macaroon.parse(token)
            assert macaroon.activities <= current
        assert verify(macaroon.serialise()) == first + asked


def test_without_delete_creates_only() -> None:
    token = Macaroon.parse(mint("path:/a")).without(Activity.DELETE)
    assert verify(token)[-1] == "activity:LIST,DOWNLOAD,MANAGE,UPLOAD,READ_METADATA,UPDATE_METADATA,STAGE"
    again = Macaroon.parse(token).without(Activity.DELETE, Activity.STAGE)
    assert verify(again)[-1] == "activity:LIST,DOWNLOAD,MANAGE,UPLOAD,READ_METADATA,UPDATE_METADATA"


def test_without_does_not_name_what_is_only_implied() -> None:
    macaroon = Macaroon.parse(mint("activity:DOWNLOAD,UPLOAD"))
    assert macaroon.activities == {Activity.DOWNLOAD, Activity.UPLOAD, Activity.READ_METADATA}
    assert verify(macaroon.without(Activity.UPLOAD))[-1] == "activity:DOWNLOAD"
    with pytest.raises(MacaroonAttenuationError):
        macaroon.without(Activity.UPLOAD, Activity.DOWNLOAD)


@pytest.mark.parametrize(
    "caveat",
    [
        "activity:LIST",  # an intersection by the manual, an error by the server
        "activity:READ_METADATA",  # implied, but not in the set
        "activity:download",
        "activity:DOWNLOAD, UPLOAD",
        "activity:",
        "activity:DOWNLOAD,",
        "before:2001-01-01T00:00:00Z",
        "before:tomorrow",
        f"before:{FUTURE[:-1]}",
        "ip:nobody",
        "ip:",
        "max-upload:0",
        "max-upload:-1",
        "max-upload:many",
        "max-upload:٣",
        "path:",
        "path:/a\n/b",
        "path:" + "x" * 5000,
        "iid:again",
        "id:0;0;root",
        "issuer:me",
        "nocolon",
        "",
    ],
)
def test_what_the_server_would_refuse_is_refused_here(caveat: str) -> None:
    with pytest.raises(MacaroonAttenuationError) as caught:
        Macaroon.parse(mint("activity:DOWNLOAD,UPLOAD")).attenuate(caveat)
    assert isinstance(caught.value, DcacheError)


def test_the_earliest_end_counts() -> None:
    macaroon = Macaroon.parse(
        mint(
            "before:2030-01-01T00:00:00Z",
            "before:2029-06-01T00:00:00+02:00",
            "before:2029-12-01T00:00:00.123456789Z",
            "before:never",
        )
    )
    assert macaroon.expires == datetime(2029, 5, 31, 22, tzinfo=UTC)


def test_repr_shows_no_capability() -> None:
    token = mint("path:/a")
    macaroon = Macaroon.parse(token)
    assert "signature" not in repr(macaroon)
    assert macaroon.signature.hex() not in repr(macaroon)


def test_both_alphabets_and_padding() -> None:
    token = mint("path:/???>>>~~~", "path:/ÿÿÿ")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for form in (base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.b64encode(raw).rstrip(b"=")):
        assert Macaroon.parse(form.decode()) == Macaroon.parse(token)


def test_garbage_gives_one_kind_of_error() -> None:
    token = mint("path:/a", "activity:DOWNLOAD")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    third = pymacaroons.Macaroon(location="x", identifier="y", key=KEY)
    third.add_third_party_caveat("elsewhere", "key" * 11, "id")
    cases = ["", "abc", "=", "a.b.c", "ü" * 20, token[:-4], token * 300, str(third.serialize())]
    cases += [base64.urlsafe_b64encode(raw[:at]).decode() for at in range(len(raw))]
    for case in cases:
        with pytest.raises(NotAMacaroonError):
            Macaroon.parse(case)


def test_flipped_bytes_give_a_macaroon_or_our_error() -> None:
    raw = bytearray(base64.urlsafe_b64decode(mint("path:/a", f"before:{FUTURE}") + "=="))
    draw = random.Random(7)
    for _ in range(2000):
        bent = bytearray(raw)
        bent[draw.randrange(len(bent))] ^= 1 << draw.randrange(8)
        try:
            macaroon = Macaroon.parse(base64.urlsafe_b64encode(bent).decode())
        except NotAMacaroonError:
            continue
        assert macaroon.expires is None or macaroon.expires.tzinfo is not None
        assert macaroon.activities <= frozenset(Activity)


def test_errors_pickle() -> None:
    error = pickle.loads(pickle.dumps(NotAMacaroonError("why")))
    assert isinstance(error, ValueError)
    assert str(error) == "why"
