"""The suites by which fsspec judges every file system, as they come."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import pytest
from fsspec.tests import abstract
from lsst.daf.butler_dcache import DcacheFileSystem


class Fixtures(abstract.AbstractFixtures):
    """Where the file system is, and the directory of a test's own."""

    @pytest.fixture
    def fs(self) -> DcacheFileSystem:
        return DcacheFileSystem()

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return posixpath.join

    @pytest.fixture
    def fs_path(self, base_url: str) -> str:
        DcacheFileSystem().makedirs(base_url, exist_ok=True)
        return base_url.rstrip("/")


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    """Copies on the server."""


class TestGet(abstract.AbstractGetTests, Fixtures):
    """Copies to this machine."""


class TestPut(abstract.AbstractPutTests, Fixtures):
    """Copies from this machine."""


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    """Bytes as files."""


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    """Modes of `open`."""


def test_no_suite_is_left_out() -> None:
    suites = {value for name, value in vars(abstract).items() if name.endswith("Tests")}
    used = {base for suite in (TestCopy, TestGet, TestPut, TestPipe, TestOpen) for base in suite.__mro__}
    assert suites <= used
