"""That the works of the benchmarks are what they say: files, parts, names, mixes, a Butler, suites."""

from __future__ import annotations

import importlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from lsst.daf.butler_dcache.bench import formats, goals, partial
from lsst.daf.butler_dcache.bench.load import drive
from lsst.daf.butler_dcache.bench.partial import WrongBytesError
from lsst.daf.butler_dcache.bench.peers import butler
from lsst.daf.butler_dcache.bench.peers.client import Client
from lsst.daf.butler_dcache.bench.peers.ours import Ours
from lsst.daf.butler_dcache.bench.peers.registry import PEERS
from lsst.daf.butler_dcache.bench.row import QUANTITIES, Row
from lsst.daf.butler_dcache.bench.servers import TARGETS
from lsst.daf.butler_dcache.bench.suites import SUITES
from lsst.daf.butler_dcache.bench.work import Access, Job, Outcome, Step, UnsupportedWorkError, Work, contents
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from request_counter import Counter, counted

ALL_ROWS = [row for rows in SUITES.values() for row in rows]

FILES: dict[str, tuple[Callable[[Work], bytes], Callable[[bytes], int], int]] = {
    "header": (formats.make_image, formats.needs_of_image("header"), 1_000_000),
    "hdu": (formats.make_image, formats.needs_of_image("hdu"), 1_000_000),
    "cutout": (formats.make_image, formats.needs_of_image("cutout"), 1_000_000),
    "column": (formats.make_table, formats.table_bytes_needed, 4_000_000),
    "member": (formats.make_archive, formats.archive_bytes_needed, 500_000),
}


class InMemory(Client):
    """A client of one file, which counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__("memory")
        self.data = data
        self.moved = 0
        self.opened = 0

    def open(self, name: str) -> BinaryIO:
        client = self
        client.opened += 1

        class File(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                client.moved += len(data)
                return data

            def readinto(self, buffer: Any, /) -> int:
                count = super().readinto(buffer)
                client.moved += count
                return count

        return File(self.data)

    def filesystem(self, name: str) -> tuple[Any, str]:
        class FileSystem:
            def cat_ranges(self, paths: Sequence[str], begins: list[int], ends: list[int]) -> list[bytes]:
                return [client.data[begin:end] for begin, end in zip(begins, ends, strict=True)]

        client = self
        return FileSystem(), name


def made(operation: str, seed: int = 1) -> tuple[Work, bytes]:
    """A work and the file that it is about."""
    make, needs, size = FILES[operation]
    work = Work(operation, size, 3, seed=seed)
    data = make(work)
    return replace(work, size_bytes=len(data), needed_bytes=needs(data)), data


class TestParts:
    @pytest.mark.parametrize("operation", FILES)
    def test_libraries_read_little_more_than_they_need(self, operation: str) -> None:
        work, data = made(operation)
        client = InMemory(data)
        reader = partial.reader(client, work)
        assert [reader.read("file", number).bytes_moved for number in range(3)] == [work.needed_bytes] * 3
        reader.close()
        assert client.opened == 3
        # A table's footer is read with the 64 kB before it.
        assert client.moved / 3 < 1.1 * work.needed_bytes + (66_000 if operation == "column" else 3000)
        assert work.needed_bytes < len(data) / 2

    @pytest.mark.parametrize("operation", FILES)
    def test_files_are_made_of_the_seed(self, operation: str) -> None:
        assert made(operation)[1] == made(operation)[1]
        if operation != "header":
            assert made(operation, 2)[1] != made(operation)[1]

    @pytest.mark.parametrize("operation", ["hdu", "cutout", "column"])
    def test_another_file_is_noticed(self, operation: str) -> None:
        work, _ = made(operation)
        reader = partial.reader(InMemory(made(operation, 2)[1]), work)
        with pytest.raises(WrongBytesError):
            reader.read("file", 0)

    def test_another_member_is_noticed(self) -> None:
        work, _ = made("member")
        with pytest.raises(WrongBytesError, match="member-"):
            partial.reader(InMemory(made("member", 1000)[1]), work).read("file", 0)

    def test_random_pieces_share_an_open_file(self) -> None:
        work = Work("read_random", 3_000_000, 20, piece_bytes=16_000)
        client = InMemory(contents(work.size_bytes))
        reader = partial.reader(client, work)
        assert sum(reader.read("file", number).bytes_moved for number in range(20)) == work.total_bytes
        assert client.opened == 1
        reader.close()
        with pytest.raises(WrongBytesError, match="a piece at"):
            partial.reader(InMemory(bytes(work.size_bytes)), work).read("file", 0)

    def test_scattered_pieces_are_one_call(self) -> None:
        work = Work("read_scattered", 3_000_000, 2, batch=10, piece_bytes=16_000)
        reader = partial.reader(InMemory(contents(work.size_bytes)), work)
        assert [reader.read("file", number).bytes_moved for number in range(2)] == [160_000] * 2

    def test_a_file_that_ends_early_is_noticed(self) -> None:
        work = Work("read_sequential", 100_000, piece_bytes=1000)
        assert partial.reader(InMemory(contents(100_000)), work).read("file", 0).bytes_moved == 100_000
        with pytest.raises(WrongBytesError, match="99000 bytes of 100000"):
            partial.reader(InMemory(contents(99_000)), work).read("file", 0)

    @pytest.mark.parametrize("operation", ["header", "column"])
    def test_a_library_that_is_missing_is_named(
        self, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(name: str) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr(importlib, "import_module", missing)
        library = {"header": "astropy", "column": "pyarrow"}[operation]
        with pytest.raises(UnsupportedWorkError, match=f"needs {library}"):
            partial.reader(InMemory(b""), Work(operation, 1000))


def test_a_document_has_the_size_that_was_asked_for() -> None:
    assert len(formats.make_document(Work("get", 2000))) == 2000


class TestSuites:
    @pytest.mark.parametrize("suite", SUITES)
    def test_names_are_unique(self, suite: str) -> None:
        names = [row.name for row in SUITES[suite]]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("row", ALL_ROWS, ids=lambda row: row.name)
    def test_rows_are_consistent(self, row: Row) -> None:
        assert set(row.peers) <= set(PEERS)
        assert set(row.targets) <= set(TARGETS)
        for kind in row.kinds:
            assert any(kind in PEERS[peer].kinds for peer in row.peers)
        for claim in row.claims:
            assert claim.quantity in QUANTITIES
            assert claim.client in row.peers
            assert claim.peer in ("", "the fastest", *row.peers)
        assert (row.make_file is None) == (row.needs is None)
        if row.work.rate:
            assert row.work.count / row.work.rate < 10

    def test_the_field_is_covered(self) -> None:
        rows = SUITES["field"]
        operations = {step.operation for row in rows for step in row.work.steps}
        operations |= {row.work.operation for row in rows}
        wanted = "get put header hdu cutout column member look exists_many walk delete remove rename mint"
        assert {*wanted.split(), "presign", "mix"} <= operations
        assert any(row.work.rate > 250 for row in rows)
        levels = {PEERS[peer].level for row in rows for peer in row.peers}
        assert levels == {"store", "path", "butler", "program"}
        assert {2000, 18_000_000, 110_000_000} <= {row.work.size_bytes for row in rows}

    def test_an_hour_has_time_for_all_sizes(self) -> None:
        rows = SUITES["thorough"]
        field = SUITES["field"]
        assert [row.name for row in rows[: len(field)]] == [row.name for row in field]
        assert all(set(few.peers) <= set(row.peers) for few, row in zip(field, rows, strict=False))
        sizes = [row.work.size_bytes for row in rows]
        assert {180_000_000, 4_000_000_000} <= set(sizes)
        assert sizes[-1] == max(sizes)

    def test_a_row_knows_what_holds_at_which_server(self) -> None:
        row = next(row for row in SUITES["field"] if row.name == "put-visit")
        assert {claim.quantity for claim in row.at("webdav").claims} == {"door", "pool"}
        assert not row.at("s3").claims
        assert "curl" in row.at("webdav").peers
        assert {"ours", "boto3"} <= set(row.at("s3").peers)
        assert not {"curl", "boto3"} & (set(row.at("s3").peers) & set(row.at("webdav").peers))

    def test_sizes_make_a_curve(self) -> None:
        """A report draws the throughput of rows against their size that run as many at a time."""
        for operation in ("get", "put"):
            sizes = {
                row.work.size_bytes
                for row in SUITES["field"]
                if row.work.operation == operation
                and row.work.threads == 4
                and {"ours", "curl"} <= {*row.peers}
            }
            assert len(sizes) >= 3

    def test_rows_for_any_machine_claim_nothing_about_speed(self) -> None:
        claims = [claim for row in SUITES["ci"] for claim in row.claims]
        assert claims
        assert all(claim.is_counted for claim in claims)

    def test_the_goals_of_a_mix_are_those_of_its_steps(self) -> None:
        steps = (Step("exists_many", 1, 4), Step("get", 10), Step("put", 10, 2), Step("put", 10**6))
        assert goals.requests(Work("mix", 0, 3, steps=steps)) == (3 * (5 + 1 + 4 + 2), 3 * (0 + 1 + 0 + 1))


class Site:
    """Jobs at the embedded dCache, done in this process."""

    def __init__(self, dcache: EmbeddedDcache, folder: Path) -> None:
        self._dcache = dcache
        self._folder = folder
        self._access = Access("http" + dcache.url.removeprefix("dav"), {})

    def place(self, directory: str, count: int, data: bytes) -> tuple[str, ...]:
        names = tuple(f"{directory}/{number:05d}.dat" for number in range(count))
        for name in names:
            self._dcache.place(name, data)
        return names

    def run(self, client: Client, work: Work, names: tuple[str, ...]) -> tuple[Outcome, Counter]:
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        sources = []
        for step in work.steps or (Step("put", work.size_bytes),):
            source = scratch / f"source-{step.size_bytes}"
            source.write_bytes(contents(step.size_bytes))
            sources.append(str(source) if step.operation == "put" else "")
        job = Job(client.name, work, self._access, names, "", str(scratch), sources[0], tuple(sources))
        run = client.prepare(job) or drive(client, job)
        with counted(self._dcache) as counter:
            outcome = run()
        assert not outcome.errors
        return outcome, counter


@pytest.fixture
def site(embedded: EmbeddedDcache, tmp_path: Path) -> Site:
    return Site(embedded, tmp_path)


def assert_reached(work: Work, counter: Counter) -> None:
    door, pool = goals.requests(work)
    assert counter.at_door <= door, str(counter)
    assert counter.at_pool <= pool, str(counter)


class TestGoals:
    """What is promised is what this client needs."""

    @pytest.mark.parametrize("operation", ["look", "remove", "rename", "presign", "mint", "get"])
    def test_one_file_at_a_time(self, site: Site, operation: str) -> None:
        work = Work(operation, 1000, 4, files=4)
        names = site.place(f"{operation}-one", 4, contents(1000))
        if operation == "mint":
            names = (f"{operation}-one",)
        if operation in ("presign", "mint"):
            site.run(Ours("ours"), work, names)  # the first of all looks at what there is
        _, counter = site.run(Ours("ours"), work, names)
        assert_reached(work, counter)

    def test_many_files_by_one_call(self, site: Site) -> None:
        for work in (Work("exists_many", 1, batch=20), Work("delete", 1, batch=20)):
            names = site.place(f"{work.operation}-many", 20, b"x")
            _, counter = site.run(Ours("ours"), work, names)
            assert_reached(work, counter)

    @pytest.mark.parametrize("operation", FILES)
    def test_parts(self, site: Site, operation: str) -> None:
        work, data = made(operation)
        work = replace(work, files=2)
        outcome, counter = site.run(Ours("ours"), work, site.place(f"{operation}-part", 2, data))
        assert outcome.operations == 3
        assert_reached(work, counter)

    def test_a_mix(self, site: Site) -> None:
        steps = (Step("exists_many", 1, 4), Step("get", 5000, 2), Step("put", 200_000), Step("put", 500, 2))
        work = Work("mix", 0, 2, steps=steps)
        read = site.place("mix-read", 2, contents(5000))
        names: list[str] = []
        for number in range(2):
            new = [f"mix-new/{number}-{each}.dat" for each in range(7)]
            names += [*new[:4], *read, *new[4:]]
        outcome, counter = site.run(Ours("ours"), work, tuple(names))
        assert outcome.bytes_moved == work.total_bytes == 2 * (10_000 + 201_000)
        assert {"mix.exists_many", "mix.get", "mix.put"} <= set(outcome.seconds)
        assert_reached(work, counter)


class TestButler:
    """Each call is asked of the door as rarely as the rows say."""

    def test_documents(self, site: Site) -> None:
        work = Work("get", 2000, 3, files=3)
        names = site.place("butler-documents", 3, formats.make_document(work))
        peer = butler.make("butler-ours")
        outcome, counter = site.run(peer, work, names)
        assert (outcome.bytes_moved, counter.at_door) == (6000, 3)
        work = Work("delete", 2000, batch=3)
        _, counter = site.run(butler.make("butler-ours"), work, names)
        assert counter.at_door == 3
        assert counter.at_pool == 0

    def test_new_datasets(self, site: Site) -> None:
        for directory, work in (("put", Work("put", 2000, 3)), ("ingest", Work("put", 2000, batch=3))):
            names = tuple(f"butler-{directory}/{number}.dat" for number in range(3))
            outcome, counter = site.run(butler.make("butler-ours"), work, names)
            assert outcome.bytes_moved == 6000
            assert counter.at_door == 6

    def test_tables(self, site: Site) -> None:
        work, data = made("column")
        names = site.place("butler-tables", 2, data)
        for operation, pool in (("column", 9), ("header", 6)):
            client = butler.make("butler-ours")
            outcome, counter = site.run(client, replace(work, operation=operation, files=2), names)
            assert outcome.operations == 3
            assert counter.at_door == 3
            assert counter.at_pool <= pool

    def test_it_belongs_to_one_thread(self) -> None:
        job = Job("butler-ours", Work("get", 1, threads=2), Access("", {}), ("a",), "", "")
        with pytest.raises(UnsupportedWorkError, match="one thread"):
            butler.make("butler-ours").connect(job)
