"""What every store must do, whatever protocol it speaks: one suite for all implementations.

A test module makes a class of `StoreConformance` that gives it two fixtures: ``store`` and ``base``, the URL
of a directory of the test's own, with trailing slash, which need not exist.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import threading
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from lsst.daf.butler_dcache import errors
from lsst.daf.butler_dcache.model import ByteRange, EntryKind
from lsst.daf.butler_dcache.store.protocol import Store

SMALL = b"hello, pool"
LARGE = bytes(range(256)) * 1200  # beyond what goes through a door in one request

NAMES = [
    "plain.fits",
    "a b.txt",
    "100%25.bin",
    "a+b&c=d.dat",
    "\N{LATIN SMALL LETTER E WITH ACUTE}t\u00e9.fits",
    "x#y?z",
]


def quoted(name: str) -> str:
    return quote(name, safe="")


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


class StoreConformance:
    """The law."""

    is_tree = True
    """Whether names form a tree: one is a file or a directory and never both, ``..`` leads upwards, and a
    directory stays when it becomes empty. If not, the law is the weaker one that the tests then spell out."""

    tells_what_was_missing = True
    """Whether a removal of many files tells of which there were none."""

    pieces_of_a_stream = 12
    """How many times `LARGE` is more than a writer holds before it sends something."""

    checksum_of_copies = "adler32"
    """What is known of a file that the server has copied."""

    # Looking

    def test_missing(self, store: Store, base: str) -> None:
        url = base + "none"
        assert store.exists(url) is False
        for ask in (store.stat, store.size, store.info, store.read, store.open_reader, store.remove):
            with pytest.raises(FileNotFoundError) as caught:
                ask(url)
            assert isinstance(caught.value, errors.ResourceNotFoundError)

    @pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE], ids=["empty", "one", "small", "large"])
    def test_round_trip(self, store: Store, base: str, data: bytes) -> None:
        url = base + "file"
        before = datetime.now(UTC) - timedelta(seconds=2)
        info = store.write(url, data)
        assert (info.url, info.kind, info.size) == (url, EntryKind.FILE, len(data))
        assert info.checksums["adler32"] == adler32(data)
        assert info.modified is not None
        assert info.modified >= before
        assert store.exists(url) is True
        assert store.size(url) == len(data)
        stat = store.stat(url)
        assert (stat.url, stat.kind, stat.size) == (url, EntryKind.FILE, len(data))
        assert stat.modified is not None
        assert stat.modified >= before
        assert store.read(url) == data
        target = io.BytesIO(b"head")
        target.seek(4)
        assert store.download(url, target).checksums["adler32"] == adler32(data)
        assert target.getvalue() == b"head" + data

    unusual_names = True
    """Whether a question mark may be part of a name."""

    @pytest.mark.parametrize("name", NAMES)
    def test_names(self, store: Store, base: str, name: str) -> None:
        if "?" in name and not self.unusual_names:
            with pytest.raises(errors.DcacheError):
                store.write(base + quoted(name), SMALL)
            return
        url = base + quoted(name)
        store.write(url, SMALL)
        assert store.read(url) == SMALL
        assert [entry.url for entry in store.list_directory(base)] == [url]
        assert store.exists_many([url, base + "other", base + "another"])[url] is True
        moved = base + "moved-" + quoted(name)
        store.move(url, moved)
        assert store.read(moved) == SMALL
        assert store.read_ranges(moved, [ByteRange(1, 3)]) == [SMALL[1:3]]
        store.remove(moved)
        assert store.exists(moved) is False

    def test_stat_of_a_directory(self, store: Store, base: str) -> None:
        store.make_directory(base)
        for url in (base, base.rstrip("/")):
            assert store.exists(url) is True
            assert store.stat(url).kind is EntryKind.DIRECTORY
            assert store.size(url) == 0

    def test_listing(self, store: Store, base: str) -> None:
        store.write(base + "b", SMALL)
        store.write(base + "sub/deep/c", b"")
        entries = {entry.url: entry for entry in store.list_directory(base)}
        assert set(entries) == {base + "b", base + "sub/"}
        assert entries[base + "b"].size == len(SMALL)
        assert entries[base + "sub/"].is_directory
        store.make_directory(base + "empty/")
        assert store.list_directory(base + "empty/") == []
        with pytest.raises(FileNotFoundError):
            store.list_directory(base + "none/")
        with pytest.raises(NotADirectoryError):
            store.list_directory(base + "b/")

    def test_size_is_never_that_of_an_older_file(self, store: Store, base: str) -> None:
        url = base + "file"
        for data in (b"1", b"333", LARGE, b""):
            store.write(url, data)
            assert store.size(url) == store.info(url).size == store.stat(url).size == len(data)
        store.write(base + "other", b"22")
        store.move(base + "other", url, overwrite=True)
        assert store.size(url) == 2
        store.remove(url)
        with pytest.raises(FileNotFoundError):
            store.size(url)

    # Reading

    def test_ranges(self, store: Store, base: str) -> None:
        url = base + "file"
        store.write(url, LARGE)
        end = len(LARGE)
        wanted = [
            ByteRange(0, 1),
            ByteRange(5000, 9000),
            ByteRange(4000, 6000),
            ByteRange(end - 3, end + 50),
            ByteRange(end, end + 1),
        ]
        assert store.read_ranges(url, wanted) == [LARGE[one.start : one.stop] for one in wanted]
        assert store.read_ranges(url, wanted[3:4]) == [LARGE[-3:]]
        assert store.read_ranges(url, wanted[4:]) == [b""]
        assert store.read_ranges(url, []) == []
        many = [ByteRange(at, at + 7) for at in range(0, end - 7, 1000)]
        assert store.read_ranges(url, many) == [LARGE[one.start : one.stop] for one in many]

    def test_reader(self, store: Store, base: str) -> None:
        url = base + "file"
        store.write(url, LARGE)
        reader = store.open_reader(url)
        try:
            for one in (ByteRange(7, 70), ByteRange(100000, 200000), ByteRange(0, 1)):
                assert reader.read_ranges([one]) == [LARGE[one.start : one.stop]]
            assert reader.info.size == len(LARGE)
            assert b"".join(reader.stream()) == LARGE
            assert b"".join(reader.stream(len(LARGE) - 5)) == LARGE[-5:]
            assert reader.read_ranges([ByteRange(3, 5), ByteRange(1, 2)]) == [LARGE[3:5], LARGE[1:2]]
        finally:
            reader.close()
        reader.close()

    def test_reader_of_an_empty_file(self, store: Store, base: str) -> None:
        store.write(base + "empty", b"")
        reader = store.open_reader(base + "empty")
        assert reader.read_ranges([ByteRange(0, 10), ByteRange(5, 6)]) == [b"", b""]
        assert b"".join(reader.stream()) == b""
        assert reader.info.size == 0
        reader.close()

    def test_a_directory_is_no_file(self, store: Store, base: str) -> None:
        store.write(base + "sub/file", SMALL)
        for url in (base + "sub", base + "sub/"):
            with pytest.raises(IsADirectoryError):
                store.read(url)
            with pytest.raises(IsADirectoryError):
                store.download(url, io.BytesIO())
        for url in (base + "sub", base + "sub/") if self.is_tree else (base + "sub/",):
            with pytest.raises(IsADirectoryError):
                store.write(url, b"x")
        if not self.is_tree:
            store.write(base + "sub", b"x")
            assert store.read(base + "sub") == b"x"
            assert {entry.url for entry in store.list_directory(base)} == {base + "sub", base + "sub/"}
        assert store.read(base + "sub/file") == SMALL

    # Writing

    def test_write_from_a_file(self, store: Store, base: str, tmp_path: Any) -> None:
        path = tmp_path / "data"
        path.write_bytes(b"skipped" + LARGE)
        with path.open("rb") as file:
            file.seek(7)
            assert store.write(base + "file", file).size == len(LARGE)
        assert store.read(base + "file") == LARGE

    def test_download_to_an_unbuffered_file(self, store: Store, base: str, tmp_path: Any) -> None:
        class Reluctant(io.BytesIO):
            def write(self, data: Any) -> int:
                return super().write(memoryview(data)[:777])

        store.write(base + "file", LARGE)
        target = Reluctant()
        store.download(base + "file", target)
        assert target.getvalue() == LARGE
        with (tmp_path / "copy").open("wb", buffering=0) as file:
            store.download(base + "file", file)
        assert (tmp_path / "copy").read_bytes() == LARGE

    def test_no_temporary_name_stays(self, store: Store, base: str) -> None:
        store.write(base + "a", LARGE)
        store.write(base + "a", SMALL)
        with pytest.raises(FileExistsError):
            store.write(base + "a", LARGE, overwrite=False)
        assert [entry.name for entry in store.list_directory(base)] == ["a"]
        assert store.read(base + "a") == SMALL

    def test_long_name(self, store: Store, base: str) -> None:
        url = base + "n" * 255
        store.write(url, SMALL)
        assert store.read(url) == SMALL

    def test_exclusive(self, store: Store, base: str) -> None:
        url = base + "file"
        assert store.write(url, SMALL, overwrite=False).size == len(SMALL)
        for data in (SMALL, LARGE, b""):
            with pytest.raises(FileExistsError):
                store.write(url, data, overwrite=False)
        assert store.read(url) == SMALL

    def test_writer(self, store: Store, base: str) -> None:
        writer = store.open_writer(base + "file")
        for at in range(0, len(LARGE), 10000):
            piece = LARGE[at : at + 10000]
            assert writer.write(memoryview(piece)) == len(piece)
        assert store.exists(base + "file") is False
        assert writer.commit().checksums["adler32"] == adler32(LARGE)
        assert store.read(base + "file") == LARGE
        writer = store.open_writer(base + "file")
        writer.write(b"other")
        writer.abort()
        writer.abort()
        assert store.read(base + "file") == LARGE
        writer = store.open_writer(base + "file", overwrite=False)
        with pytest.raises(FileExistsError):
            writer.commit()

    @pytest.mark.parametrize("known", [False, True])
    def test_writer_of_a_large_file(self, store: Store, base: str, known: bool) -> None:
        content = LARGE * self.pieces_of_a_stream
        writer = store.open_writer(base + "file", size=len(content) if known else None)
        for at in range(0, len(content), 100_000):
            writer.write(content[at : at + 100_000])
        assert writer.has_begun
        assert store.exists(base + "file") is False
        assert writer.commit().checksums["adler32"] == adler32(content)
        assert store.read(base + "file") == content
        writer = store.open_writer(base + "file")
        writer.write(content)
        writer.abort()
        assert store.read(base + "file") == content
        writer = store.open_writer(base + "file", overwrite=False)
        writer.write(content)
        with pytest.raises(FileExistsError):
            writer.commit()
        assert {entry.name for entry in store.list_directory(base)} == {"file"}

    def test_directories(self, store: Store, base: str) -> None:
        store.make_directory(base + "a/b/c/")
        store.make_directory(base + "a/b/c/")
        store.make_directory(base + "a/b/d")
        assert {entry.name for entry in store.list_directory(base + "a/b/")} == {"c", "d"}
        store.write(base + "a/file", SMALL)
        with pytest.raises((FileExistsError, NotADirectoryError)):
            store.make_directory(base + "a/file/")
        if self.is_tree:
            with pytest.raises((FileExistsError, NotADirectoryError)):
                store.make_directory(base + "a/file/below/")
        else:
            store.make_directory(base + "a/file/below/")
            assert store.list_directory(base + "a/file/below/") == []
        assert store.read(base + "a/file") == SMALL

    # Removing and renaming

    def test_a_tree_is_never_removed(self, store: Store, base: str) -> None:
        store.write(base + "tree/sub/file", SMALL)
        for url in (base + "tree", base + "tree/", base + "tree/sub"):
            with pytest.raises(errors.DirectoryNotEmptyError):
                store.remove(url)
        for url in (base + "tree", base + "tree/"):
            result = store.remove_many([url])[url]
            if self.is_tree or url.endswith("/"):
                assert isinstance(result, errors.DirectoryNotEmptyError)
        assert store.read(base + "tree/sub/file") == SMALL
        store.write(base + "other", b"x")
        if self.is_tree:
            with pytest.raises((IsADirectoryError, errors.DirectoryNotEmptyError)):
                store.move(base + "other", base + "tree", overwrite=True)
        else:
            with pytest.raises(IsADirectoryError):
                store.move(base + "tree", base + "elsewhere")
        assert store.read(base + "tree/sub/file") == SMALL
        if not self.is_tree:
            store.make_directory(base + "tree/sub/")
        store.remove(base + "tree/sub/file")
        store.remove(base + "tree/sub/")
        if self.is_tree:
            store.remove(base + "tree")
        else:
            with pytest.raises(errors.ResourceNotFoundError):
                store.remove(base + "tree")
        assert store.exists(base + "tree/") is False

    def test_remove_many(self, store: Store, base: str) -> None:
        urls = [f"{base}{number % 3}/{number}" for number in range(12)]
        for url in urls[:-1]:
            store.write(url, b"x")
        results = store.remove_many([*urls, urls[0]])
        assert list(results) == urls
        assert [results[url] for url in urls[:-1]] == [None] * 11
        if self.tells_what_was_missing:
            assert isinstance(results[urls[-1]], errors.ResourceNotFoundError)
        else:
            assert results[urls[-1]] is None
        assert not any(store.exists_many(urls).values())
        assert store.remove_many([]) == {}

    def test_exists_many(self, store: Store, base: str) -> None:
        there = [f"{base}a/{number}" for number in range(5)] + [f"{base}b/1"]
        missing = [f"{base}a/no", f"{base}b/no", f"{base}none/1", f"{base}none/2", f"{base}none/3"]
        for url in there:
            store.write(url, b"x")
        asked = [*there, *missing, f"{base}a/"]
        found = store.exists_many(asked)
        assert list(found) == asked
        assert [url for url in asked if found[url]] == [*there, f"{base}a/"]
        assert store.exists_many([]) == {}

    def test_info_many(self, store: Store, base: str) -> None:
        names = [f"{base}many/{number}" for number in range(5)]
        for number, name in enumerate(names):
            store.write(name, b"x" * number)
        wanted = [*names, base + "many/none", base + "none/none"]
        infos = store.info_many(wanted)
        assert [info and info.size for info in infos.values()] == [0, 1, 2, 3, 4, None, None]
        assert list(infos) == wanted

    def test_iter_directory(self, store: Store, base: str) -> None:
        store.write(base + "listed/file", b"1")
        assert [info.name for info in store.iter_directory(base + "listed/")] == ["file"]

    def test_move(self, store: Store, base: str) -> None:
        store.write(base + "a", SMALL)
        store.write(base + "b", LARGE)
        with pytest.raises(FileExistsError):
            store.move(base + "a", base + "b")
        assert store.read(base + "a") == SMALL
        assert store.read(base + "b") == LARGE
        store.move(base + "a", base + "b", overwrite=True)
        assert store.read(base + "b") == SMALL
        assert store.exists(base + "a") is False
        store.move(base + "b", base + "new/deep/b")
        assert store.read(base + "new/deep/b") == SMALL
        with pytest.raises(FileNotFoundError):
            store.move(base + "none", base + "c")

    def test_move_onto_itself(self, store: Store, base: str) -> None:
        store.write(base + "a+b", SMALL)
        for target in ("a+b", "a%2Bb", *(["x/../a+b"] if self.is_tree else [])):
            store.move(base + "a+b", base + target, overwrite=True)
        assert store.read(base + "a+b") == SMALL

    @pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    def test_copy(self, store: Store, base: str, data: bytes) -> None:
        store.write(base + "a", data)
        known = {"adler32": adler32(data), "md5": hashlib.md5(data, usedforsecurity=False).hexdigest()}
        store.copy(base + "a", base + "b")
        assert store.read(base + "b") == data
        store.write(base + "a", b"changed")
        with pytest.raises(FileExistsError):
            store.copy(base + "a", base + "b")
        assert store.read(base + "b") == data
        store.write(base + "a", data)
        store.write(base + "b", b"older")
        copied = store.copy(base + "a", base + "b", overwrite=True)
        assert copied.checksums[self.checksum_of_copies] == known[self.checksum_of_copies]
        assert (copied.url, copied.size) == (base + "b", len(data))
        assert store.size(base + "b") == store.stat(base + "b").size == len(data)
        assert store.read(base + "b") == data
        with pytest.raises(FileNotFoundError):
            store.copy(base + "none", base + "c")
        assert store.exists(base + "c") is False

    # Threads and processes

    def test_threads(self, store: Store, base: str) -> None:
        wrong: list[object] = []

        def work(number: int) -> None:
            data = LARGE[number:] if number % 2 else SMALL * number
            try:
                for _ in range(3):
                    store.write(f"{base}{number}", data)
                    if store.read(f"{base}{number}") != data or store.size(f"{base}{number}") != len(data):
                        wrong.append(number)
            except Exception as error:  # any error of a thread is the test's
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_fork(self, store: Store, base: str) -> None:
        files = {f"{base}{number}": bytes([number]) * (number * 1000 + 1) for number in range(6)}
        for url, data in files.items():
            store.write(url, data)
        reader = store.open_reader(f"{base}1")
        reader.read_ranges([ByteRange(0, 1)])
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=_read_all, args=(store, files, number)) for number in range(4)]
        for child in children:
            child.start()
        for url, data in files.items():
            assert store.read(url) == data
        for child in children:
            child.join(60)
            if child.is_alive():
                child.kill()
                child.join()
        assert [child.exitcode for child in children] == [0] * 4
        assert reader.read_ranges([ByteRange(5, 9)]) == [b"\x01" * 4]
        reader.close()


def _read_all(store: Store, files: dict[str, bytes], number: int) -> None:
    """Read in a forked child; its exit status is the verdict."""
    for _ in range(3):
        for url, data in list(files.items())[number:] + list(files.items())[:number]:
            if store.read(url) != data or store.stat(url).size != len(data):
                os._exit(1)
    os._exit(0)
