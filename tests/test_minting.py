"""Macaroons that servers make for us, and how few of them are asked for."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.auth.credential import Credential, refused
from lsst.daf.butler_dcache.auth.macaroon import Activity, Dialect, Macaroon
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.config.settings import EndpointSettings
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport.control import Answer
from lsst.daf.butler_dcache.transport.deadline import Deadline
from lsst.daf.butler_dcache.webdav.minting import mint
from lsst.daf.butler_dcache.webdav.rights import Rights
from request_counter import counted
from test_macaroon import mint as make_macaroon
from test_store_webdav import endpoint

DOWNLOAD = {Activity.DOWNLOAD}


def revealed(credential: Credential) -> str:
    assert credential.secret is not None
    return credential.secret.reveal()


def read(credential: Credential) -> Macaroon:
    return Macaroon.parse(revealed(credential))


def account(server: Any) -> dict[str, Any]:
    password = Path(server.password_file).read_text().strip()
    return {"token": None, "user_name": server.user, "user_password": password}


@pytest.fixture
def with_account(embedded: Any, tmp_path: Path) -> Iterator[Store]:
    with endpoint(embedded, tmp_path, **account(embedded)) as store:
        yield store


def test_minted_at_a_door(embedded: Any, with_account: Store) -> None:
    url = f"{embedded.url}some%20dir/"
    with counted(embedded) as counter:
        credential = with_account.mint(
            url, activities={Activity.LIST, Activity.DOWNLOAD}, lifetime_seconds=600, addresses=["127.0.0.1"]
        )
    assert counter.methods() == ["door POST"]
    scope = read(credential).scope
    assert scope.path == "/some dir" or scope.path.endswith("/some dir")
    assert scope.activities == {Activity.LIST, Activity.DOWNLOAD, Activity.READ_METADATA}
    assert scope.addresses == ("127.0.0.1",)
    assert scope.expires is not None
    assert abs((scope.expires - datetime.now(UTC)).total_seconds() - 600) < 30
    assert revealed(credential) not in repr(credential)


def test_derived_without_validity(embedded: Any, tmp_path: Path) -> None:
    whole = Macaroon.parse(Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip())
    held = whole.narrow(activities={Activity.DOWNLOAD, Activity.LIST, Activity.UPLOAD})
    with endpoint(embedded, tmp_path, token=held) as store:
        derived = read(store.mint(embedded.url, activities=DOWNLOAD, lifetime_seconds=300))
        assert derived.scope.expires is not None
        assert derived.scope.expires < datetime.now(UTC) + timedelta(seconds=310)
        # Longer than the one that it is made of: as long as that lives.
        longer = read(store.mint(embedded.url, lifetime_seconds=10**6))
        assert longer.scope.expires is not None
        assert whole.expires is not None
        assert abs(longer.scope.expires - whole.expires) < timedelta(seconds=1)
        with (
            counted(embedded) as counter,
            pytest.raises(errors.AccessDeniedError, match="pass on DELETE"),
        ):
            store.mint(embedded.url, activities={Activity.DELETE})
        assert counter.records == []


@pytest.mark.parametrize(
    ("wishes", "reason", "hint"),
    [
        ({"lifetime_seconds": 30 * 86400}, "beyond maximum allowed", "shorter lifetime"),
        ({"addresses": ["home"]}, "", "will not accept"),
    ],
)
def test_refusals_of_a_door(
    embedded: Any, with_account: Store, wishes: dict[str, Any], reason: str, hint: str
) -> None:
    with pytest.raises(errors.AccessDeniedError) as caught:
        with_account.mint(embedded.url, **wishes)
    assert reason in caught.value.reason
    assert hint in str(caught.value)


def test_path_of_another(embedded: Any, tmp_path: Path) -> None:
    whole = Macaroon.parse(Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip())
    with endpoint(embedded, tmp_path, token=whole.narrow(path="/only/this")) as store:
        with pytest.raises(errors.AccessDeniedError, match="does not reach") as caught:
            store.mint(embedded.url)
        assert "not within existing path" in caught.value.reason


def test_nothing_is_asked_without_encryption_or_credential(tmp_path: Path, embedded: Any) -> None:
    with EmbeddedDcache(tls=False) as server, endpoint(server, tmp_path, **account(server)) as store:
        with counted(server) as counter, pytest.raises(errors.UnsupportedError, match="TLS"):
            store.mint(server.url)
        assert counter.records == []
    with endpoint(embedded, tmp_path, token=None) as store:
        with counted(embedded) as counter, pytest.raises(errors.CredentialError, match="nobody"):
            store.mint(embedded.url)
        assert counter.records == []


def test_ten_thousand_urls_cost_one_request(embedded: Any, with_account: Store) -> None:
    with counted(embedded) as counter:
        urls = {with_account.presign(f"{embedded.url}file{n}", "GET", 3600) for n in range(10_000)}
    assert len(urls) == 10_000
    assert counter.methods() == ["door POST"]


def test_delegation_at_no_request(embedded: Any) -> None:
    store = store_for(embedded.url)
    with counted(embedded) as counter:
        credential = store.delegate(
            embedded.url + "job/",
            activities={Activity.UPLOAD, Activity.LIST},
            lifetime_seconds=60,
            max_upload_bytes=100,
        )
    assert counter.records == []
    scope = read(credential).scope
    assert scope.activities == {Activity.UPLOAD, Activity.LIST, Activity.READ_METADATA}
    assert scope.max_upload_bytes == 100
    assert scope.path is not None
    assert scope.path.endswith("/job")


def test_forked_children_go_on_with_it(embedded: Any, with_account: Store) -> None:
    url = embedded.url + "file"
    with_account.presign(url, "GET", 60)
    with counted(embedded) as counter:
        for _ in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = 0 if store_for(url).presign(url, "GET", 60).startswith("https") else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    assert counter.records == []


@pytest.mark.parametrize("operation", ["read", "stat", "write"])
def test_doors_are_asked_again_with_a_renewed_token(embedded: Any, operation: str) -> None:
    """The token is renewed just as the old one is refused."""
    good = Path(embedded.environment["BEARER_TOKEN_FILE"]).read_text().strip()
    bad = Credential.bearer(good[:-24] + uuid.uuid4().hex[:8] + good[-16:])
    url = f"{embedded.url}{uuid.uuid4().hex}"
    store_for(url).write(url, b"x")

    class Renewing:
        def current(self) -> Credential:
            return Credential.bearer(good) if refused.knows(bad) else bad

    store = WebdavStore(settings_for(url), Renewing())
    with counted(embedded) as counter:
        {"read": lambda: store.read(url), "stat": lambda: store.stat(url),
         "write": lambda: store.write(url, b"y")}[operation]()  # fmt: skip
    assert [record["status"] for record in counter.records].count(401) == 1


# The engine alone, with a clock that is moved and a door that is scripted.


class Bench:
    """A door that mints, and the hands of the clock."""

    def __init__(self) -> None:
        self.settings = EndpointSettings("https://door.example:2880/")
        self.dialect = "dcache"
        self.seconds = time.time()
        self.credential = Credential.basic("user", "password")
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Answer | Exception] = self.make
        self.longest = 7 * 86400.0
        self.words: str | None = None
        self.bound: float | None = None
        self.credentials = self
        self.rights = Rights(self, clock=lambda: self.seconds, now=self.now)  # type: ignore[arg-type]

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def current(self) -> Credential:
        return self.credential

    def ask(self, method: str, url: str, *, body: bytes, **_: Any) -> Answer:
        wishes = json.loads(body)
        self.asked.append(wishes)
        answer = self.answer(wishes)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def make(self, wishes: dict[str, Any]) -> Answer:
        seconds = float(wishes["validity"][2:-1]) if "validity" in wishes else min(86400.0, self.longest)
        if seconds > self.longest:
            words = f"(PT{int(self.longest / 3600)}H)" if self.words is None else self.words
            reason = f"Bad requested caveat: before: requested duration beyond maximum allowed {words}"
            return Answer(400, reason, {}, b"", "", 1, 0.0)
        end = self.seconds + seconds if self.bound is None else self.bound
        before = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        token = make_macaroon(f"iid:{uuid.uuid4().hex[:8]}", "id:1;1;user", f"before:{before}")
        return Answer(200, "", {}, json.dumps({"macaroon": token}).encode(), "", 1, 0.0)

    def get(self, lifetime_seconds: float = 0.0, **options: Any) -> Credential | None:
        return self.rights._own.current(deadline=Deadline(5), lifetime_seconds=lifetime_seconds, **options)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_renewed_early(bench: Bench) -> None:
    first = bench.get()
    bench.seconds += 10.9 * 3600
    assert bench.get() is first
    bench.seconds += 0.2 * 3600
    second = bench.get()
    assert second is not first
    assert second is not None
    assert second.expires is not None
    assert len(bench.asked) == 2


def test_others_go_on_while_one_renews(bench: Bench) -> None:
    first = bench.get()
    bench.seconds += 11.5 * 3600
    asking, release = threading.Event(), threading.Event()

    def slow(wishes: dict[str, Any]) -> Answer:
        asking.set()
        assert release.wait(10)
        return bench.make(wishes)

    bench.answer = slow
    with ThreadPoolExecutor(1) as pool:
        renewed = pool.submit(bench.get)
        assert asking.wait(10)
        assert [bench.get() for _ in range(20)] == [first] * 20
        release.set()
        assert renewed.result(10) not in (None, first)
    assert len(bench.asked) == 2


def test_all_wait_for_the_first(bench: Bench) -> None:
    begun = threading.Barrier(8)

    def late(wishes: dict[str, Any]) -> Answer:
        return bench.make(wishes)

    bench.answer = late

    def get(_: int) -> Credential | None:
        begun.wait(10)
        return bench.get()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(get, range(8)))
    assert len({id(credential) for credential in found}) == 1
    assert len(bench.asked) == 1


def test_waiting_has_an_end(bench: Bench) -> None:
    release = threading.Event()

    def silent(wishes: dict[str, Any]) -> Answer:
        assert release.wait(10)
        return bench.make(wishes)

    bench.answer = silent
    with ThreadPoolExecutor(1) as pool:
        pool.submit(bench.get)
        while not bench.asked:
            os.sched_yield()
        with pytest.raises(errors.DeadlineError):
            bench.rights._own.current(deadline=Deadline(0.01))
        release.set()


def test_a_failed_renewal_is_no_harm(bench: Bench) -> None:
    first = bench.get()
    bench.seconds += 11.5 * 3600
    bench.answer = lambda wishes: errors.DoorUnavailableError("gone")
    assert bench.get() is first
    assert bench.get() is first
    assert len(bench.asked) == 2
    bench.seconds += 31
    assert bench.get(strict=True) is first
    assert len(bench.asked) == 3
    bench.seconds += 3600
    assert bench.get() is None
    with pytest.raises(errors.DoorUnavailableError):
        bench.get(strict=True)


def test_what_ends_with_the_token_is_not_asked_for_again(bench: Bench) -> None:
    bench.bound = bench.seconds + 240
    bench.credential = Credential("bearer", Credential.bearer("opaque").secret)
    bench.get()
    bench.seconds += 230
    found = [bench.get() for _ in range(10)]
    assert found[0] is not None
    assert len(bench.asked) == 2
    assert "validity" not in bench.asked[0]
    bench.credential = Credential.bearer("another")
    bench.bound = bench.seconds + 600
    bench.get()
    assert len(bench.asked) == 3


def test_longer_where_longer_is_wanted(bench: Bench) -> None:
    bench.get()
    for _ in range(5):
        bench.get(lifetime_seconds=86400)
        bench.seconds += 60
    assert [wishes["validity"] for wishes in bench.asked] == ["PT43200S", "PT108000S"]


def test_made_anew_when_the_server_has_lost_its_secret(bench: Bench) -> None:
    def narrowed() -> Credential | None:
        return bench.rights.without(Activity.DELETE, deadline=Deadline(5))

    first = narrowed()
    assert first is not None
    refused.remember(("https", "door.example", 2880), first, "Unable to find secret for macaroon")
    assert narrowed() is first  # it was made a moment ago: another would be no better
    bench.seconds += 60
    second = narrowed()
    assert second not in (None, first)
    assert narrowed() is second
    assert len(bench.asked) == 2


def test_a_shorter_life_than_asked_for_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    end = datetime.now(UTC) + timedelta(minutes=10)
    token = make_macaroon("iid:aaaaaaaa", f"before:{end.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    bench.credential = Credential.bearer(token, "the file of somebody")
    for _ in range(3):
        credential = bench.rights.delegate(
            "https://door.example:2880/f", activities=DOWNLOAD, lifetime_seconds=3600, deadline=Deadline(5)
        )
        assert credential.expires is not None
        assert credential.expires <= end
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "the file of somebody" in record.getMessage()
    assert token not in record.getMessage()
    assert bench.asked == []


def test_nothing_is_made_of_what_has_ended(bench: Bench) -> None:
    token = make_macaroon("iid:aaaaaaaa", "before:2020-01-01T00:00:00Z")
    bench.credential = Credential.bearer(token, "an old file")
    with pytest.raises(errors.CredentialError, match=r"expired.*an old file"):
        bench.rights.delegate(
            "https://door.example:2880/f", activities=DOWNLOAD, lifetime_seconds=60, deadline=Deadline(5)
        )


def test_sites_with_a_shorter_limit(bench: Bench) -> None:
    bench.longest = 3600.0
    for _ in range(5):
        assert bench.get(lifetime_seconds=7200) is not None
    assert bench.asked == [{"validity": "PT43200S"}, {"validity": "PT3600S"}]


def test_the_longest_that_a_site_gives(bench: Bench) -> None:
    """Which is not what it gives unasked."""
    bench.longest = 7 * 86400.0
    url = "https://door.example:2880/f"
    for _ in range(5):
        shared = bench.rights.delegate(
            url, activities=DOWNLOAD, lifetime_seconds=7 * 86400, deadline=Deadline(5)
        )
        assert shared.expires is not None
        assert (shared.expires - bench.now()).total_seconds() == pytest.approx(7 * 86400, abs=2)
    assert bench.asked == [{"validity": "PT756000S"}, {"validity": "PT604800S"}]


@pytest.mark.parametrize("words", ["", "(PT)", "(P7D)", "(PT0S)", f"(PT{'9' * 400}H)"])
def test_a_limit_that_cannot_be_read(bench: Bench, words: str) -> None:
    bench.longest, bench.words = 3600.0, words
    assert bench.get(lifetime_seconds=7200) is not None
    assert bench.asked == [{"validity": "PT43200S"}, {}]


def test_a_refusal_is_remembered_with_its_reason(bench: Bench) -> None:
    reason = "Cannot serialise restriction MultiTargetedRestriction"
    bench.answer = lambda wishes: Answer(400, reason, {}, b"", "", 1, 0.0)
    for _ in range(3):
        with pytest.raises(errors.UnsupportedError, match="Cannot serialise restriction"):
            bench.rights.delegate(
                "https://door.example:2880/f",
                activities=DOWNLOAD,
                lifetime_seconds=60,
                deadline=Deadline(5),
            )
    assert len(bench.asked) == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"macaroon": "xyz"}', b"[" * 5000, b'{"macaroon": null}']
)
def test_answers_without_a_macaroon(bench: Bench, body: bytes) -> None:
    bench.answer = lambda wishes: Answer(200, "", {}, body, "", 1, 0.0)
    with pytest.raises(errors.ProtocolError, match="no macaroon"):
        mint(bench, "https://door.example:2880/", deadline=Deadline(5))  # type: ignore[arg-type]


# XRootD


@pytest.fixture
def with_certificate(xrootd: Any, tmp_path: Path) -> Iterator[Store]:
    keys = {"user_cert": str(xrootd.folder / "user.pem"), "user_key": str(xrootd.folder / "user.key")}
    (entry,) = yaml.safe_load(Path(xrootd.environment["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    assert not set(keys) & set(entry)
    with endpoint(xrootd, tmp_path, token=None, **keys) as store:
        yield store


def test_minted_at_xrootd(xrootd: Any, with_certificate: Store) -> None:
    credential = with_certificate.mint(
        xrootd.url, activities={Activity.LIST, Activity.DOWNLOAD}, lifetime_seconds=600
    )
    macaroon = read(credential)
    assert macaroon.dialect is Dialect.XROOTD
    assert macaroon.scope.path == "/rw"
    assert macaroon.scope.identity == "tester"
    assert macaroon.activities == {Activity.LIST, Activity.DOWNLOAD, Activity.READ_METADATA}
    assert macaroon.scope.problems == ()


def test_xrootd_grants_less(xrootd: Any, with_certificate: Store, tmp_path: Path) -> None:
    with pytest.raises(errors.AccessDeniedError, match="STAGE"):
        with_certificate.mint(xrootd.url, activities={Activity.STAGE})
    with pytest.raises(errors.DcacheError):
        with_certificate.mint(xrootd.url, addresses=["127.0.0.1"])
    token = Path(xrootd.environment["BEARER_TOKEN_FILE"]).read_text().strip()
    with (
        endpoint(xrootd, tmp_path, token=token, dcache={"requests_per_second": 0}) as store,
        pytest.raises(errors.UnsupportedError, match="certificates"),
    ):
        store.mint(xrootd.url)


def test_urls_of_xrootd_at_first_sight(xrootd: Any, with_certificate: Store) -> None:
    presigned = with_certificate.presign(f"{xrootd.url}file", "GET", 60)
    caveats = Macaroon.parse(presigned.partition("authz=")[2]).caveats
    assert [caveat for caveat in caveats if caveat.startswith("path:")] == ["path:/rw/", "path:/rw/file"]


def test_urls_of_xrootd(xrootd: Any, with_certificate: Store) -> None:
    url = f"{xrootd.url}{uuid.uuid4().hex}"
    with_certificate.write(url, b"shared")
    presigned = with_certificate.presign(url, "GET", 60)
    macaroon = Macaroon.parse(presigned.partition("authz=")[2])
    assert macaroon.scope.path == "/rw/" + url.rpartition("/")[2]
    assert macaroon.activities == {Activity.DOWNLOAD, Activity.READ_METADATA}


def test_token_endpoint_of_xrootd(
    xrootd: Any, with_certificate: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not know the usual request is asked as RFC 8414 and RFC 6749 have it."""
    monkeypatch.setattr("lsst.daf.butler_dcache.webdav.minting._MACAROON_REQUEST", "application/unknown")
    credential = with_certificate.mint(
        xrootd.url + "a%2Bb", activities={Activity.LIST, Activity.DOWNLOAD}, lifetime_seconds=600
    )
    macaroon = read(credential)
    assert macaroon.scope.path == "/rw/a+b"
    assert macaroon.activities == {Activity.LIST, Activity.DOWNLOAD, Activity.READ_METADATA}
    assert macaroon.expires is not None
    assert macaroon.expires < datetime.now(UTC) + timedelta(seconds=610)


@pytest.mark.parametrize("endpoint", ["https://elsewhere.example/token", "http://door.example:2880/t", "", 7])
def test_token_endpoints_of_others_are_not_asked(bench: Bench, endpoint: Any) -> None:
    bench.dialect = "generic"
    asked = []

    def ask(method: str, url: str, **_: Any) -> Answer:
        asked.append(url)
        if method == "GET":
            return Answer(200, "", {}, json.dumps({"token_endpoint": endpoint}).encode(), url, 1, 0.0)
        return Answer(405, "", {}, b"", url, 1, 0.0)

    bench.ask = ask  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.UnsupportedError, match="token endpoint"):
        mint(bench, "https://door.example:2880/x", deadline=Deadline(5))  # type: ignore[arg-type]
    assert asked[1:] == ["https://door.example:2880/.well-known/oauth-authorization-server"]
