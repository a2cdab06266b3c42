"""What killed writers leave is found by the name of its process, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.cli.main import main
from lsst.daf.butler_dcache.orphans import find_orphans
from lsst.daf.butler_dcache.store.protocol import Store
from lsst.daf.butler_dcache.store.registry import store_for
from lsst.daf.butler_dcache.transport import ownership
from lsst.daf.butler_dcache.transport.ownership import Owner, own, owner_of
from lsst.daf.butler_dcache.webdav.addresses import join, lock_name, temporary_name

WEEK = 7 * 86400.0


@pytest.fixture(scope="module")
def ended() -> Owner:
    """A process of this host that has ended."""
    code = "from lsst.daf.butler_dcache.transport.ownership import mark; print(mark() + 'x')"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    owner = owner_of(name.strip())
    assert owner is not None
    return owner


def name_of(owner: Owner, name: str) -> str:
    return f".dcb-{owner.host}-{owner.place}-{owner.process}-{owner.start:x}-{'0' * 16}.{name}"


def test_a_temporary_name_says_whose_it_is() -> None:
    name = temporary_name("davs://door/dir/file").rpartition("/")[2]
    owner = owner_of(name)
    assert owner == own()
    assert owner.process == os.getpid()
    assert not owner.is_gone()


def test_names_of_a_forked_child_are_its_own() -> None:
    own()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ownership.mark().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        owner = owner_of(pipe.read())
    # Not waited for yet: it has ended all the same.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert owner is not None
    assert owner.process == child
    assert owner.is_gone()
    os.waitpid(child, 0)
    assert owner.is_gone()


def test_a_number_that_is_used_again_is_another_process() -> None:
    me = own()
    assert dataclasses.replace(me, start=me.start + 1).is_gone()
    assert not dataclasses.replace(me, start=0).is_gone()


def test_of_another_host_nobody_knows(ended: Owner) -> None:
    assert ended.is_gone()
    assert not dataclasses.replace(ended, place="0" * 8).is_gone()


@pytest.fixture
def url(base_url: str) -> str:
    return base_url


@pytest.fixture
def store(url: str) -> Store:
    return store_for(url)


def put(store: Store, url: str) -> str:
    """Place a file under just this name."""
    store.write(url + "-made", b"half")
    store.move(url + "-made", url)
    return url


def clean(url: str, *options: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["clean-orphans", url, "--json", *options])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_only_what_is_nobodys_is_removed(store: Store, url: str, ended: Owner) -> None:
    stays = [
        put(store, join(url, "file")),
        put(store, join(url, name_of(own(), "mine"))),
        put(store, join(url, name_of(dataclasses.replace(ended, place="0" * 8), "another"))),
        put(store, join(url, ".dcb-" + "0" * 32 + ".unknown")),
    ]
    goes = [put(store, join(url, name_of(ended, "a")))]
    goes.append(put(store, join(join(url, "below"), name_of(ended, "b"))))
    listed = clean(url)
    assert {row["url"] for row in listed if row["state"] == "orphan"} == set(goes)
    assert {row["url"] for row in listed if row["state"] == "in use?"} == set(stays[1:3])
    assert all(store.exists(one) for one in [*stays, *goes])
    removed = clean(url, "--remove")
    assert {row["url"] for row in removed if row["state"] == "removed"} == set(goes)
    assert not any(store.exists(one) for one in goes)
    assert all(store.exists(one) for one in stays)
    clean(url, "--remove", "--older-than", "0s")
    assert [store.exists(one) for one in stays] == [True, False, False, True]


def test_locks_go_by_age_and_not_beside_an_upload(store: Store, url: str) -> None:
    target = join(url, "file")
    lock = lock_name(target) + "/"
    store.make_directory(lock)

    def found(seconds: float) -> dict[str, str]:
        now = datetime.now(UTC) + timedelta(seconds=seconds)
        orphans = find_orphans(store, url, older_than_seconds=WEEK, lock_seconds=60.0, now=now)
        return {one.info.url.rstrip("/"): one.reason for one in orphans}

    assert found(0.0) == {lock[:-1]: ""}
    assert found(90.0)[lock[:-1]] == "no upload of this name is in progress"
    upload = put(store, join(url, name_of(own(), "file")))
    assert found(90.0) == {lock[:-1]: "", upload: ""}
    assert found(WEEK + 90.0) == {lock[:-1]: "it is old", upload: "it is old"}
    clean(url, "--remove", "--older-than", "0s")
    assert not store.exists(lock)


def test_durations() -> None:
    done = CliRunner().invoke(main, ["clean-orphans", "davs://localhost:1/", "--older-than", "soon"])
    assert done.exit_code == 2
    assert "not a duration" in done.output
