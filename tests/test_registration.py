"""Claiming the schemes of lsst.resources and giving them back, each in a fresh interpreter."""

from __future__ import annotations

import pytest
from fresh_interpreter import run
from lsst.daf.butler_dcache.config.switches import registration_wanted


def test_importing_the_package_registers() -> None:
    # A configuration that upstream would refuse when it is imported, which it is not until somebody wants it.
    run(
        """
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
assert package.registered()
for scheme in ("dav", "davs"):
    assert is_ours(ResourcePath(f"{scheme}://door:2880/a/b")), scheme
assert not is_ours(ResourcePath("https://door:2880/a/b"))
assert "lsst.resources.davutils" not in sys.modules
""",
        LSST_RESOURCES_WEBDAV_CONFIG="/there/is/no/such/file.yaml",
    )


def test_upstream_can_still_be_used() -> None:
    run("""
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
import lsst.resources.dav
from lsst.resources.dav import DavFileSystem, dav_globals
assert DavFileSystem.__module__ == "lsst.resources.dav"
assert sys.modules["lsst.resources.dav"] is lsst.resources.dav
assert lsst.resources.dav.dav_globals is dav_globals
assert is_ours(ResourcePath("davs://door:2880/a/b"))
assert isinstance(ResourcePath("davs://door:2880/a/b"), lsst.resources.dav.DavResourcePath)
package.unregister()
assert type(ResourcePath("davs://door:2880/a/b")).__module__ == "lsst.resources.dav"
package.register()
assert is_ours(ResourcePath("davs://door:2880/a/b"))
""")


def test_registration_after_upstream_was_loaded() -> None:
    run("""
from lsst.resources.dav import DavResourcePath
from lsst.resources import ResourcePath
before = ResourcePath("davs://door:2880/a/b")
import lsst.daf.butler_dcache as package
assert package.registered()
after = ResourcePath("davs://door:2880/a/b")
assert type(before) is DavResourcePath and is_ours(after)
assert before == after and hash(before) == hash(after)
package.unregister()
assert type(ResourcePath("davs://door:2880/a/b")) is DavResourcePath
""")


def test_unregister_leaves_nothing_behind() -> None:
    run("""
import lsst.daf.butler_dcache as package
import lsst.resources
from lsst.resources import dav as kept
ours = lsst.resources.ResourcePath("davs://door:2880/a/b")
package.unregister()
package.unregister()
assert not package.registered()
assert "lsst.resources.dav" not in sys.modules and not hasattr(lsst.resources, "dav")
assert type(lsst.resources.ResourcePath("davs://door:2880/a/b")).__module__ == "lsst.resources.dav"
assert lsst.resources.dav.DavResourcePath.__module__ == "lsst.resources.dav"
assert kept.DavResourcePath is lsst.resources.dav.DavResourcePath
assert kept.dav_globals is lsst.resources.dav.dav_globals
# What exists stays what it is, and so does what is made of it.
import copy, pickle
for uri in (ours, ours.dirname(), ours.parent(), ours.updatedFile("c"), ours.dirname().join("c"),
            copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), lsst.resources.ResourcePath(ours)):
    assert is_ours(uri), uri
""")


@pytest.mark.parametrize("value", ["no", "NO", " no ", "0", "false", "off", "none"])
def test_words_that_switch_it_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert registration_wanted()
    monkeypatch.setenv("DAF_BUTLER_DCACHE_REGISTER", value)
    assert not registration_wanted()


def test_switched_off_by_the_environment() -> None:
    run(
        """
import lsst.daf.butler_dcache as package
assert not package.registered()
assert "lsst.resources" not in sys.modules
package.register()
assert package.registered()
""",
        DAF_BUTLER_DCACHE_REGISTER="off",
    )


def test_datastore_registers_whatever_the_environment_says() -> None:
    run(
        """
import lsst.daf.butler_dcache as package
assert package.DcacheDatastore.__name__ == "DcacheDatastore"
assert package.registered()
""",
        DAF_BUTLER_DCACHE_REGISTER="no",
    )


def test_without_the_stack() -> None:
    run("""
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("lsst.resources", "lsst.utils", "lsst.daf.butler.")) or name == "lsst.daf.butler":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import lsst.daf.butler_dcache as package
assert not package.registered()
import fsspec
assert type(fsspec.filesystem("davs")) is package.DcacheFileSystem
try:
    package.register()
except ImportError:
    pass
else:
    raise AssertionError
try:
    package.nothing
except AttributeError as error:
    assert "nothing" in str(error)
""")


def test_threads_never_get_upstream() -> None:
    run("""
import threading
import lsst.daf.butler_dcache
from lsst.resources import ResourcePath
stop = threading.Event()
strangers = []
def make():
    while not stop.is_set():
        uri = ResourcePath("davs://door:2880/a/b")
        if not is_ours(uri):
            strangers.append(uri)
threads = [threading.Thread(target=make) for _ in range(2)]
for thread in threads:
    thread.start()
import lsst.resources.dav
lsst.resources.dav.dav_globals
stop.set()
for thread in threads:
    thread.join()
assert not strangers
""")
