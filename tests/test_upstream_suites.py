"""The suites by which `lsst.resources` judges every kind of `~lsst.resources.ResourcePath`, as they come.

Nothing of them is changed here: a class below only says where its server is.
"""

from __future__ import annotations

import unittest
import urllib.parse

import conftest
import lsst.daf.butler_dcache  # noqa: F401  (claims the schemes)
import pytest
from lsst.resources import ResourcePath
from lsst.resources.tests import GenericReadWriteTestCase, GenericTestCase


class TestDavUri(GenericTestCase, unittest.TestCase):
    """What can be said of a ``dav://`` URI without asking a server."""

    scheme = "dav"
    netloc = "door.example.org:2880"


class TestDavsUri(TestDavUri):
    """The same over TLS."""

    scheme = "davs"


class TestS3Uri(TestDavUri):
    """What can be said of an ``s3://`` URI."""

    scheme = "s3"
    netloc = "bucket"


class TestS3UriOfAProfile(TestS3Uri):
    """The same with the name of a profile."""

    netloc = "site@bucket"


class ReadWriteSuite(GenericReadWriteTestCase):
    """The suite on the server that a fixture of the class runs."""

    @classmethod
    def use(cls, url: str) -> None:
        """Let the suite work in a directory of its own."""
        parsed = urllib.parse.urlsplit(url)
        cls.scheme, cls.netloc = parsed.scheme, parsed.netloc
        cls.base_path = f"{parsed.path.strip('/')}/{cls.__name__}"

    def tearDown(self) -> None:
        self.tmpdir.remove_dir(recursive=True)

    def test_is_ours(self) -> None:
        """Whatever else passes here says something about this package only if its class was at work."""
        assert type(ResourcePath(self.root)).__module__.startswith("lsst.daf.butler_dcache")


class TestOnDcache(ReadWriteSuite, unittest.TestCase):
    """The embedded dCache over TLS, or the server that ``DCACHE_URL`` names."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, dcache: conftest.Server) -> None:
        cls.use(dcache.url)


class TestOnXrootd(ReadWriteSuite, unittest.TestCase):
    """A cluster of real XRootD servers."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, xrootd: conftest.Server) -> None:
        cls.use(xrootd.url)


class TestOnS3(ReadWriteSuite, unittest.TestCase):
    """A SeaweedFS, or the server that ``S3_URL`` names."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, s3: str) -> None:
        cls.use(s3)
