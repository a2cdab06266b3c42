"""Staging campaigns: how many requests, what becomes of each file, and going on after an end of any kind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import client_environment
from lsst.daf.butler_dcache.config.loading import settings_for
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.embedded.tape import TapeSystem
from lsst.daf.butler_dcache.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialError,
    DcacheError,
    DeadlineError,
    DoorUnavailableError,
    NearlineError,
    OutcomeUnknownError,
    ProtocolError,
    ResourceIsDirectoryError,
    ResourceNotFoundError,
    ServerBusyError,
    UnsupportedError,
)
from lsst.daf.butler_dcache.model import Locality
from lsst.daf.butler_dcache.rest.tape import RecallState, StageState, TapeApi, tape_path
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.store.stage_journal import StageJournal, recorded_requests
from lsst.daf.butler_dcache.store.stage_progress import FileChange, FileState, StageReport
from lsst.daf.butler_dcache.store.staging import StageCampaign
from lsst.daf.butler_dcache.store.webdav_store import WebdavStore
from lsst.daf.butler_dcache.transport.deadline import Deadline

DAY = 86400


class Clock:
    """Time that passes when somebody sleeps, and tells the server."""

    def __init__(self) -> None:
        self.now = 0.0
        self.on_sleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


class Server(TapeApi):
    """A tape API without network: files by path, requests by name, and what goes wrong."""

    def __init__(self) -> None:
        self.where: dict[str, Locality | DcacheError] = {}
        self.requests: dict[str, dict[str, StageState]] = {}
        self.posts: list[list[str]] = []
        self.polls = 0
        self.questions = 0
        self.cancelled: list[str] = []
        self.deleted: list[str] = []
        self.limit = 500
        self.troubles: list[DcacheError] = []
        self.poll_troubles: list[DcacheError] = []
        self.stuck: dict[str, str] = {}
        self.ends: dict[str, tuple[RecallState, str]] = {}
        self.is_slow = False

    def archive_info(self, urls, *, deadline):  # type: ignore[no-untyped-def]
        self.questions += 1
        return {url: self.where.get(tape_path(url), Locality.NEARLINE) for url in urls}

    def stage(self, urls, *, lifetime_seconds, deadline):  # type: ignore[no-untyped-def]
        assert len(urls) <= 500
        paths = [tape_path(url) for url in urls]
        self.posts.append(paths)
        if self.troubles:
            raise self.troubles.pop(0)
        if len(paths) > self.limit:
            raise ProtocolError("too large", status=413)
        name = f"r{len(self.posts)}"
        self.requests[name] = {path: StageState(path, RecallState.STARTED) for path in paths}
        if not self.is_slow:
            self.work()
        return name

    def work(self) -> None:
        for files in self.requests.values():
            for path, file in files.items():
                if file.state is RecallState.STARTED and path not in self.stuck:
                    state, text = self.ends.get(path, (RecallState.COMPLETED, ""))
                    files[path] = StageState(path, state, text)

    def state(self, request, *, deadline):  # type: ignore[no-untyped-def]
        self.polls += 1
        if self.poll_troubles:
            raise self.poll_troubles.pop(0)
        if request not in self.requests:
            raise ResourceNotFoundError("request not found", status=404)
        return list(self.requests[request].values())

    def cancel(self, request, urls, *, deadline):  # type: ignore[no-untyped-def]
        self.cancelled += [tape_path(url) for url in urls]

    def delete(self, request, *, deadline):  # type: ignore[no-untyped-def]
        self.deleted.append(request)
        self.requests.pop(request, None)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(count: int) -> list[str]:
    return [f"davs://d:1/t/{number:05}" for number in range(count)]


class Watched(StageCampaign):
    """A campaign with all its changes."""

    changes: list[FileChange]

    def last(self) -> dict[str, FileChange]:
        return {change.url: change for change in self.changes}


def campaign(
    server: TapeApi,
    urls: list[str],
    clock: Clock,
    *,
    seconds: float = 3600.0,
    journal: StageJournal | None = None,
    under_way: int = 10_000,
    on_setback: Callable[[DcacheError], object] | None = None,
) -> Watched:
    changes: list[FileChange] = []
    made = Watched(
        server,
        urls,
        len(urls),
        lifetime_seconds=2 * DAY,
        deadline=Deadline(seconds, clock),
        request_seconds=60.0,
        journal=journal,
        on_change=changes.append,
        on_setback=on_setback,
        files_under_way=under_way,
        clock=clock,
        sleep=clock.sleep,
    )
    made.changes = changes
    return made


def journal_in(folder: Path, now: float | None = None) -> StageJournal:
    when = time.time if now is None else (lambda: now)
    return StageJournal(
        folder / "s" / "j.jsonl", endpoint="davs://d:1", files="x", lifetime_seconds=2 * DAY, clock=when
    )


# ---- figures
def test_ten_thousand_files_are_twenty_requests_and_polls(tmp_path: Path) -> None:
    with (
        EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as dcache,
        client_environment(dcache),
    ):
        assert dcache.site.tape is not None
        dcache.site.tape.restore_seconds = 0.01
        urls = [f"{dcache.url}tape/{number}" for number in range(10_000)]
        for number in range(0, 10_000, 100):  # the others are missing, which costs the test less
            dcache.place(f"tape/{number}", b"", locality="NEARLINE")
        store = WebdavStore(replace(settings_for(dcache.url), frontend_url=dcache.frontend_url))
        failed: list[FileChange] = []
        report = (
            store.tape()
            .campaign(
                urls,
                len(urls),
                lifetime_seconds=3600,
                deadline=Deadline(60.0),
                on_change=lambda change: failed.append(change) if change.error is not None else None,
            )
            .run()
        )
        assert report.counts[FileState.STAGED] == 100
        assert len(failed) == 9900
        assert {type(change.error) for change in failed} == {ResourceNotFoundError}
        records = dcache.transcript()
        methods = [record.method for record in records]
        assert methods.count("POST") == 20
        assert set(methods) == {"POST", "GET"}
        assert methods.count("GET") <= 100


def test_polls_grow_rare_and_deleted_is_nothing(server: Server, clock: Clock) -> None:
    urls = names(10_000)
    server.stuck = dict.fromkeys(map(tape_path, urls), "")
    campaign(server, urls, clock, seconds=600.0).run()
    assert len(server.posts) == 20
    assert server.polls <= 20 * (6 + 10)
    assert server.deleted == []


def test_files_under_way_are_bounded_and_a_few_that_hang_hold_nobody_up(server: Server, clock: Clock) -> None:
    urls = names(5000)
    server.stuck = {tape_path(url): "" for url in urls[::500]}
    made = campaign(server, urls, clock, under_way=1000, seconds=600.0)
    most = 0

    def look() -> None:
        nonlocal most
        open_files = sum(not f.state.is_final for r in server.requests.values() for f in r.values())
        most = max(most, open_files)

    clock.on_sleep = look
    report = made.run()
    assert most <= 1000
    assert report.counts[FileState.STAGED] == 4990
    assert report.counts[FileState.OVERDUE] == 10
    assert isinstance(report.stopped, DeadlineError)


# ---- files
def test_each_file_has_its_own_end(server: Server, clock: Clock) -> None:
    good, disk, directory, missing, refused, lost, broken, withdrawn, silent = names(9)
    for url, said in {
        disk: "Cannot stage DISK only files",
        directory: "Cannot stage DISK only files",
        missing: "CacheException(rc=10001;msg=No such file or directory /t/00003)",
        refused: "CacheException(rc=10018;msg=Permission denied for /t/00004)",
        lost: "some words",
        broken: "the drive is on fire",
    }.items():
        server.ends[tape_path(url)] = (RecallState.FAILED, said)
    server.ends[tape_path(withdrawn)] = (RecallState.CANCELLED, "")
    server.where = {
        tape_path(disk): Locality.ONLINE,
        tape_path(directory): Locality.NONE,
        tape_path(lost): Locality.LOST,
    }
    made = campaign(server, [good, disk, directory, missing, refused, lost, broken, withdrawn, silent], clock)
    original = server.state
    server.state = lambda request, *, deadline: [  # type: ignore[method-assign]
        row for row in original(request, deadline=deadline) if row.path != tape_path(silent)
    ]
    report = made.run()
    last = made.last()
    assert (last[good].state, last[good].error) == (FileState.STAGED, None)
    assert (last[disk].state, last[disk].note) == (FileState.STAGED, "Cannot stage DISK only files")
    kinds = {
        directory: ResourceIsDirectoryError,
        missing: ResourceNotFoundError,
        refused: AccessDeniedError,
        lost: NearlineError,
        broken: NearlineError,
        withdrawn: NearlineError,
        silent: ProtocolError,
    }
    assert {url: type(last[url].error) for url in kinds} == kinds
    assert last[withdrawn].state is FileState.CANCELLED
    assert "the drive is on fire" in str(last[broken].error)
    assert [getattr(last[url].error, "locality", "") for url in (lost, broken)] == ["LOST", "NEARLINE"]
    assert (len(server.posts), server.questions) == (1, 1)
    assert report.stopped is None
    assert not report.is_complete


def test_a_recall_that_never_ends_is_overdue(server: Server, clock: Clock) -> None:
    hangs, elsewhere, good = names(3)
    server.stuck = {tape_path(hangs): "", tape_path(elsewhere): ""}
    server.where[tape_path(elsewhere)] = Locality.ONLINE_AND_NEARLINE
    made = campaign(server, [hangs, elsewhere, good], clock, seconds=500.0)
    report = made.run()
    last = made.last()
    assert last[hangs].state is FileState.OVERDUE
    assert "still started and NEARLINE after 500 s" in str(last[hangs].error)
    assert "own words" in str(last[hangs].error)
    assert last[elsewhere].state is last[good].state is FileState.STAGED
    assert clock.now == 500.0
    assert report.counts == {FileState.WAITING: 0, FileState.STAGED: 2, FileState.OVERDUE: 1} | {
        state: 0 for state in (FileState.SUBMITTED, FileState.STARTED)
    }


def test_what_came_by_another_way_is_there(server: Server, clock: Clock, tmp_path: Path) -> None:
    (url,) = names(1)
    server.stuck = {tape_path(url): ""}
    server.where[tape_path(url)] = Locality.ONLINE_AND_NEARLINE
    made = campaign(server, [url], clock, seconds=100.0, journal=journal_in(tmp_path))
    report = made.run()
    assert report.is_complete
    assert report.stopped is None
    assert "still under way" in made.last()[url].note


def test_a_name_that_json_cannot_carry_fails_alone(server: Server, clock: Clock) -> None:
    made = campaign(server, ["davs://d:1/t/%FF", *names(1)], clock)
    made.run()
    assert isinstance(made.last()["davs://d:1/t/%FF"].error, UnsupportedError)
    assert made.report.counts[FileState.STAGED] == 1


def test_two_campaigns_for_one_file(server: Server, clock: Clock) -> None:
    url = names(1)
    server.is_slow = True
    one, other = campaign(server, url, clock), campaign(server, url * 2, clock)
    clock.on_sleep = server.work
    assert one.run().is_complete
    assert other.run().is_complete
    assert len(server.requests) == 2


# ---- requests
def test_a_site_that_takes_fewer_files(server: Server, clock: Clock) -> None:
    server.limit = 48
    made = campaign(server, names(1000), clock)
    assert made.run().is_complete
    accepted = [post for post in server.posts if len(post) <= 48]
    assert sorted(path for post in accepted for path in post) == [tape_path(url) for url in names(1000)]
    assert len(server.posts) - len(accepted) <= 8


@pytest.mark.parametrize(
    "trouble", [DoorUnavailableError("x"), ServerBusyError("x"), OutcomeUnknownError("x")]
)
def test_trouble_passes(trouble: DcacheError, server: Server, clock: Clock) -> None:
    server.troubles, server.poll_troubles = [ServerBusyError("y", status=429)] + [trouble] * 3, [trouble] * 3
    told: list[DcacheError] = []
    assert campaign(server, names(3), clock, on_setback=told.append).run().is_complete
    assert len(server.posts) == 5
    kinds = [type(error) for error in told]
    # Once for each cause, and again when the server has served in between.
    assert kinds == [*dict.fromkeys([ServerBusyError, type(trouble)]), type(trouble)]


@pytest.mark.parametrize("trouble", [DoorUnavailableError("x"), DeadlineError("x")])
def test_a_server_that_never_answered_is_not_waited_for(
    trouble: DcacheError, server: Server, clock: Clock, tmp_path: Path
) -> None:
    server.troubles = [trouble]
    journal = journal_in(tmp_path)
    report = campaign(server, names(3), clock, journal=journal).run()
    assert report.stopped is trouble
    assert (report.counts[FileState.WAITING], len(server.posts), clock.now) == (3, 1, 0.0)
    journal.close()
    again = journal_in(tmp_path)
    assert campaign(server, names(3), clock, journal=again).run().is_complete
    again.close()


def test_requests_that_may_have_been_taken_are_not_sent_for_ever(server: Server, clock: Clock) -> None:
    server.troubles = [OutcomeUnknownError("lost")] * 1000
    made = campaign(server, names(3), clock, seconds=DAY)
    report = made.run()
    assert len(server.posts) < 12
    assert report.counts[FileState.FAILED] == 3


@pytest.mark.parametrize(
    "refusal",
    [AccessDeniedError("no", status=403), ProtocolError("what", status=400)],
    ids=lambda e: e.message,
)
def test_a_request_that_is_refused(refusal: DcacheError, server: Server, clock: Clock) -> None:
    server.troubles = [refusal]
    made = campaign(server, names(501), clock)
    report = made.run()
    assert (report.counts[FileState.FAILED], report.counts[FileState.STAGED]) == (500, 1)
    assert {change.error for change in made.changes if change.error is not None} == {refusal}


def test_no_tape_api(server: Server, clock: Clock) -> None:
    server.troubles = [UnsupportedError("no tape API")]
    with pytest.raises(UnsupportedError):
        campaign(server, names(3), clock).run()


def test_a_request_that_the_server_forgets(server: Server, clock: Clock) -> None:
    came, fails, again = names(3)
    server.is_slow = True
    made = campaign(server, [came, fails, again], clock)

    def forget() -> None:
        if len(server.posts) == 1 and server.polls == 1:
            server.requests.clear()
            server.where = {
                tape_path(came): Locality.ONLINE_AND_NEARLINE,
                tape_path(fails): ResourceNotFoundError("gone"),
            }
        if len(server.posts) == 2:
            server.work()

    clock.on_sleep = forget
    made.run()
    last = made.last()
    assert [last[url].state for url in (came, fails, again)] == [
        FileState.STAGED,
        FileState.FAILED,
        FileState.STAGED,
    ]
    assert "forgotten" in last[came].note
    assert server.posts[1:] == [[tape_path(again)]]


def test_a_server_that_forgets_everything(server: Server, clock: Clock) -> None:
    made = campaign(server, names(2), clock, seconds=DAY)
    clock.on_sleep = server.requests.clear
    report = made.run()
    assert report.counts[FileState.FAILED] == 2
    assert len(server.posts) == 4
    assert {type(change.error) for change in made.last().values()} == {OutcomeUnknownError}


# ---- going on
def test_a_token_that_ends_leaves_all_to_be_gone_on_with(
    server: Server, clock: Clock, tmp_path: Path
) -> None:
    urls = names(1200)
    server.stuck = {tape_path(url): "" for url in urls[500:]}
    journal = journal_in(tmp_path)
    made = campaign(server, urls, clock, journal=journal, under_way=600)
    clock.on_sleep = lambda: (
        server.poll_troubles.append(CredentialError("over")) if server.polls > 5 else None
    )
    report = made.run()
    assert isinstance(report.stopped, CredentialError)
    assert report.counts[FileState.STAGED] == 500
    assert report.counts[FileState.STARTED] + report.counts[FileState.WAITING] == 700
    journal.close()
    assert len(server.posts) == 3
    server.stuck, server.poll_troubles = {}, []
    clock.on_sleep = lambda: None
    server.work()
    again = campaign(server, urls, clock, journal=journal_in(tmp_path))
    assert again.run().is_complete
    assert len(server.posts) == 3  # those under way were gone on with
    assert [len(post) for post in server.posts] == [500, 500, 200]


def test_the_same_list_again_goes_on_and_then_begins_anew(
    server: Server, clock: Clock, tmp_path: Path
) -> None:
    urls = names(700)
    server.ends[tape_path(urls[3])] = (RecallState.FAILED, "no drive")
    server.stuck = {tape_path(urls[600]): ""}
    journal = journal_in(tmp_path)
    first = campaign(server, urls, clock, journal=journal, seconds=100.0)
    assert first.run().counts[FileState.OVERDUE] == 1
    journal.close()
    server.stuck = {}
    server.work()
    journal = journal_in(tmp_path)
    second = campaign(server, urls, clock, journal=journal)
    report = second.run()
    assert (report.counts[FileState.STAGED], report.counts[FileState.FAILED]) == (699, 1)
    assert "no drive" in str(second.last()[urls[3]].error)
    assert isinstance(second.last()[urls[3]].error, NearlineError)
    assert len(server.posts) == 2
    journal.close()
    journal = journal_in(tmp_path)
    assert campaign(server, urls, clock, journal=journal).run().counts[FileState.FAILED] == 1
    assert len(server.posts) == 4
    assert len(list(recorded_requests(journal.path))) == 4


def test_what_was_on_disk_for_too_long_ago_is_asked_for_again(
    server: Server, clock: Clock, tmp_path: Path
) -> None:
    urls = names(501)
    server.stuck = {tape_path(urls[500]): ""}
    journal = journal_in(tmp_path, now=1000.0)
    campaign(server, urls, clock, journal=journal, seconds=100.0).run()
    journal.close()
    server.stuck = {}
    server.work()
    journal = journal_in(tmp_path, now=1000.0 + 3 * DAY)
    assert campaign(server, urls, clock, journal=journal).run().is_complete
    assert [len(post) for post in server.posts] == [500, 1, 500]


def test_without_waiting(server: Server, clock: Clock, tmp_path: Path) -> None:
    urls = names(1500)
    server.stuck = dict.fromkeys(map(tape_path, urls), "")
    journal = journal_in(tmp_path)
    report = campaign(server, urls, clock, journal=journal, under_way=10).run(wait=False)
    assert report.counts[FileState.SUBMITTED] == 1500
    assert (len(server.posts), server.polls, clock.now) == (3, 0, 0.0)
    journal.close()
    server.stuck = {}
    server.work()
    assert campaign(server, urls, clock, journal=journal_in(tmp_path), under_way=10).run().is_complete
    assert len(server.posts) == 3


def test_cancelled_cleanly(server: Server, clock: Clock, tmp_path: Path) -> None:
    urls = names(1001)
    server.stuck = {tape_path(url): "" for url in urls[1:]}
    journal = journal_in(tmp_path)
    made = campaign(server, urls, clock, journal=journal)

    def interrupt() -> None:
        if server.polls:
            raise KeyboardInterrupt

    clock.on_sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert made.cancel() == []
    assert sorted(server.deleted) == ["r1", "r2", "r3"]
    assert sorted(server.cancelled) == [tape_path(url) for url in urls[1:]]
    journal.close()
    assert journal_in(tmp_path).parts == []


def test_a_request_without_an_answer_is_told_of_when_cancelled(server: Server, clock: Clock) -> None:
    def interrupt(urls: list[str], **_: object) -> str:
        raise KeyboardInterrupt

    made = campaign(server, names(1), clock)
    server.stage = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        made.run()
    (error,) = made.cancel()
    assert isinstance(error, OutcomeUnknownError)


def test_a_request_that_does_not_cancel_is_told_of(server: Server, clock: Clock) -> None:
    server.stuck = {tape_path(url): "" for url in names(501)}
    made = campaign(server, names(501), clock, seconds=10.0)
    made.run()
    trouble = DoorUnavailableError("down")

    def refuse(request: str, *, deadline: Deadline) -> None:
        if request == "r1":
            raise trouble

    server.delete = refuse  # type: ignore[method-assign]
    assert made.cancel() == [trouble]
    assert made.report.counts[FileState.CANCELLED] == 1


# ---- the journal
def test_journal_is_private_locked_and_survives_a_torn_line(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigurationError, match="another process"):
        journal_in(tmp_path)
    journal.posting(0, 2)
    journal.accepted("r1", 0, 2, ["/a", "/b"])
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"request": "r2", "fil')
    again = journal_in(tmp_path)
    assert [(part.start, part.stop, part.request) for part in again.parts] == [(0, 2, "r1")]
    again.ended(0, 2, {1: NearlineError("no luck", url="davs://u:pw@d:1/x?authz=secret")})
    again.close()
    text = journal.path.read_text()
    assert all(json.loads(line) for line in text.splitlines())
    assert "secret" not in text
    (part,) = journal_in(tmp_path).parts
    assert isinstance(part.failures[1], NearlineError)
    assert "no luck" in str(part.failures[1])


def test_journals_of_something_else_are_refused(tmp_path: Path) -> None:
    journal_in(tmp_path).close()
    path = tmp_path / "s" / "j.jsonl"
    with pytest.raises(ConfigurationError, match="other files"):
        StageJournal(path, endpoint="davs://d:1", files="y", lifetime_seconds=1)
    path.write_text("this is no journal\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        journal_in(tmp_path)


# ---- the store
@pytest.fixture(scope="module")
def dcache() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", limiter=False, time_scale=0.01) as running, client_environment(running):
        tape_of(running).restore_seconds = 0.01
        yield running


def tape_of(dcache: EmbeddedDcache) -> TapeSystem:
    assert dcache.site.tape is not None
    return dcache.site.tape


def test_stage_and_wait(dcache: EmbeddedDcache) -> None:
    dcache.place("tape/a", b"a", locality="NEARLINE")
    dcache.place("disk", b"d")
    store = WebdavStore(replace(settings_for(dcache.url), frontend_url=dcache.frontend_url))
    tape = store.tape()
    urls = [f"{dcache.url}{name}" for name in ("tape/a", "disk", "tape/none", "tape/")]
    assert tape.localities(urls[:1]) == {urls[0]: Locality.NEARLINE}
    errors = tape.stage_and_wait(urls, lifetime_seconds=60, deadline=Deadline(30.0))
    assert [type(errors[url]) for url in urls] == [
        type(None),
        type(None),
        ResourceNotFoundError,
        ResourceIsDirectoryError,
    ]
    assert store.read(urls[0]) == b"a"


def test_pins_have_names_and_hold_what_is_on_disk(dcache: EmbeddedDcache) -> None:
    dcache.place("pin/a", b"a", locality="ONLINE_AND_NEARLINE")
    dcache.place("pin/tape", b"d", locality="NEARLINE")
    store = WebdavStore(replace(settings_for(dcache.url), frontend_url=dcache.frontend_url))
    urls = [f"{dcache.url}pin/{name}" for name in ("a", "tape", "none", "")]
    entry = dcache.site.namespace.find("/data/pin/a")
    assert entry is not None
    errors = store.tape().pin(urls, lifetime_seconds=600, name="campaign 7")
    assert tape_of(dcache).pins(entry) == ["campaign 7"]
    assert [type(errors[url]) for url in urls] == [
        type(None),
        NearlineError,
        ResourceNotFoundError,
        ResourceIsDirectoryError,
    ]
    assert store.tape().unpin(urls[:1], name="another") == {urls[0]: None}
    assert tape_of(dcache).pins(entry) == ["campaign 7"]
    assert store.tape().unpin(urls[:1], name="campaign 7") == {urls[0]: None}
    assert tape_of(dcache).pins(entry) == []


def test_a_site_without_tape_says_so() -> None:
    with (
        EmbeddedDcache(frontend=False, tls=False, limiter=False, anonymous="full") as dcache,
        client_environment(dcache),
        pytest.raises(UnsupportedError, match="no tape API"),
    ):
        WebdavStore(settings_for(dcache.url)).tape()


def test_s3_has_no_tape() -> None:
    with pytest.raises(UnsupportedError, match="S3 server has no tape API"):
        store_for("s3://bucket/file").tape()


def test_report_of_nothing(server: Server, clock: Clock) -> None:
    assert campaign(server, [], clock).run() == StageReport(0, {FileState.WAITING: 0})
