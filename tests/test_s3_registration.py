"""Claiming ``s3://`` of lsst.resources, for all profiles or for some, each in a fresh interpreter."""

from __future__ import annotations

import pytest
from fresh_interpreter import run
from lsst.daf.butler_dcache.config.switches import s3_profiles_wanted


def test_importing_the_package_claims_every_profile() -> None:
    run("""
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
assert package.registered("s3")
for url in ("s3://bucket/key", "s3://site@bucket/a/b/", "s3://tenant:bucket/key", "s3://bucket"):
    assert is_ours(ResourcePath(url)), url
assert is_ours(ResourcePath("s3://bucket/a/", forceDirectory=True).join("b"))
assert not is_ours(ResourcePath("https://bucket/key"))
# Neither upstream's module nor the library is needed to name things.
assert not {"boto3", "botocore", "lsst.resources.s3utils"} & set(sys.modules)
""")


def test_some_profiles_and_not_the_others() -> None:
    run(
        """
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
assert package.registered("s3")
assert is_ours(ResourcePath("s3://one@bucket/key")) and is_ours(ResourcePath("s3://two@bucket/key"))
assert "boto3" not in sys.modules
import lsst.resources.s3
incumbent = type(ResourcePath("s3://three@bucket/key"))
assert incumbent.__module__ == "lsst.resources.s3"
assert type(ResourcePath("s3://bucket/key")) is incumbent
# Each makes its own, and the bulk methods sort them.
assert type(ResourcePath("s3://three@bucket/a/").join("b")) is incumbent
assert is_ours(ResourcePath("s3://one@bucket/a/").join("b"))
assert is_ours(ResourcePath("b", root=ResourcePath("s3://one@bucket/a/")))
import copy, pickle
for url in ("s3://one@bucket/key", "s3://three@bucket/key"):
    uri = ResourcePath(url)
    others = copy.deepcopy(uri), pickle.loads(pickle.dumps(uri)), ResourcePath(uri), uri.dirname().join("x")
    for other in others:
        assert type(other) is type(uri), other
package.unregister()
assert type(ResourcePath("s3://one@bucket/key")) is incumbent
assert lsst.resources.s3.S3ResourcePath is incumbent
""",
        DAF_BUTLER_DCACHE_S3="one, two",
    )


def test_urls_without_a_profile_are_called_default() -> None:
    run(
        """
import lsst.daf.butler_dcache
from lsst.resources import ResourcePath
assert is_ours(ResourcePath("s3://bucket/key"))
assert not is_ours(ResourcePath("s3://one@bucket/key"))
""",
        DAF_BUTLER_DCACHE_S3="default",
    )


@pytest.mark.parametrize("value", ["none", "No", "off", "0"])
def test_words_for_none_of_them(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DAF_BUTLER_DCACHE_S3", value)
    assert s3_profiles_wanted() == frozenset()


def test_none_of_them() -> None:
    run(
        """
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
assert package.registered() and not package.registered("s3")
assert "lsst.resources.s3" not in sys.modules
assert type(ResourcePath("s3://bucket/key")).__module__ == "lsst.resources.s3"
""",
        DAF_BUTLER_DCACHE_S3="none",
    )


@pytest.mark.parametrize("library", ["boto3", "awscrt"])
def test_not_claimed_where_a_library_is_missing(library: str) -> None:
    run(f"""
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{library}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
assert package.registered() and not package.registered("s3")
assert is_ours(ResourcePath("davs://door:2880/a"))
""")


def test_the_switch_is_read_anew_by_each_registration() -> None:
    run("""
import os
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
def kinds():
    return [is_ours(ResourcePath(f"s3://{profile}bucket/key")) for profile in ("", "one@", "two@")]
assert kinds() == [True, True, True]
for switch, expected in (
    ("one", [False, True, False]),
    ("two,default", [True, False, True]),
    ("none", [False, False, False]),
    ("all", [True, True, True]),
):
    os.environ["DAF_BUTLER_DCACHE_S3"] = switch
    package.register()
    assert kinds() == expected, (switch, kinds())
""")


def test_unregister_leaves_nothing_behind() -> None:
    run("""
import copy, pickle
import lsst.daf.butler_dcache as package
import lsst.resources
from lsst.resources import s3 as kept
ours = lsst.resources.ResourcePath("s3://one@bucket/a/b")
package.unregister()
package.unregister()
assert not package.registered("s3")
assert "lsst.resources.s3" not in sys.modules and not hasattr(lsst.resources, "s3")
assert type(lsst.resources.ResourcePath("s3://one@bucket/a/b")).__module__ == "lsst.resources.s3"
assert kept.S3ResourcePath is lsst.resources.s3.S3ResourcePath
for uri in (ours, ours.dirname(), ours.parent(), ours.updatedFile("c"), ours.dirname().join("c"),
            copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), lsst.resources.ResourcePath(ours)):
    assert is_ours(uri), uri
""")


def test_registration_after_upstream_was_loaded() -> None:
    run("""
from lsst.resources.s3 import S3ResourcePath
from lsst.resources import ResourcePath
before = ResourcePath("s3://one@bucket/a/b")
import lsst.daf.butler_dcache as package
after = ResourcePath("s3://one@bucket/a/b")
assert type(before) is S3ResourcePath and is_ours(after)
assert before == after and hash(before) == hash(after)
import pickle
assert is_ours(pickle.loads(pickle.dumps(before)))
package.unregister()
assert type(ResourcePath("s3://one@bucket/a/b")) is S3ResourcePath
assert type(pickle.loads(pickle.dumps(before))) is S3ResourcePath
""")


def test_upstream_can_still_be_used() -> None:
    run("""
import lsst.daf.butler_dcache as package
from lsst.resources import ResourcePath
from lsst.resources.s3 import ProgressPercentage
assert ProgressPercentage.__module__ == "lsst.resources.s3"
assert sys.modules["lsst.resources.s3"].__file__.endswith("s3.py")
assert is_ours(ResourcePath("s3://bucket/key"))
""")


def test_a_pickle_brings_the_package_with_it() -> None:
    run("""
import pickle, subprocess
import lsst.daf.butler_dcache
from lsst.resources import ResourcePath
pickled = pickle.dumps(ResourcePath("s3://one@bucket/a//b%23c.fits#zip-path=x"))
code = (
    "import pickle, sys; uri = pickle.load(sys.stdin.buffer);"
    "assert type(uri).__name__ == 'DcacheS3ResourcePath', uri;"
    "assert str(uri) == 's3://one@bucket/a//b%23c.fits#zip-path=x', uri"
)
subprocess.run([sys.executable, "-c", code], input=pickled, check=True, timeout=60)
""")
