"""A Butler's dataset that is on tape only: whoever asks for it learns which it is, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import client_environment
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType
from lsst.daf.butler_dcache.embedded import EmbeddedDcache
from lsst.daf.butler_dcache.errors import NearlineError
from request_counter import counted


@pytest.fixture(scope="module")
def site() -> Iterator[EmbeddedDcache]:
    with EmbeddedDcache(tape="tape", time_scale=0.02) as server, client_environment(server):
        assert server.site.tape is not None
        server.site.tape.is_stuck = True
        yield server


WAYS: dict[str, Callable[[Butler, DatasetRef, Path], object]] = {
    "get": lambda butler, ref, folder: butler.get(ref),
    "deferred": lambda butler, ref, folder: butler.getDeferred(ref).get(),
    "retrieve": lambda butler, ref, folder: butler.retrieveArtifacts([ref], str(folder), transfer="copy"),
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, those of a group as well."""
    while error is not None:
        yield error
        for inner in getattr(error, "exceptions", ()):
            yield from chain(inner)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("way", WAYS)
def test_a_dataset_on_tape(site: EmbeddedDcache, tmp_path: Path, way: str) -> None:
    config = Config()
    config["datastore", "cls"] = "lsst.daf.butler_dcache.DcacheDatastore"
    config["datastore", "root"] = f"{site.url}tape/{way}/"
    repository = str(tmp_path / "repo")
    Butler.makeRepo(repository, config=config, forceConfigRoot=False)
    with Butler.from_config(repository, writeable=True, run="run") as butler:
        kind = DatasetType("thing", (), "StructuredDataDict", universe=butler.dimensions)
        butler.registry.registerDatasetType(kind)
        ref = butler.put({"answer": 42}, "thing")
        url = str(butler.getURI(ref))
    entry, tape = site.site.namespace.find(unquote(urlsplit(url).path)), site.site.tape
    assert entry is not None
    assert tape is not None
    tape.flush(entry)
    tape.purge(entry)
    # Another Butler, since that one has the file in its cache.
    with (
        Butler.from_config(repository) as butler,
        counted(site) as counter,
        pytest.raises((NearlineError, ExceptionGroup, ValueError)) as caught,
    ):
        WAYS[way](butler, ref, tmp_path)
    causes = [error for error in chain(caught.value) if isinstance(error, NearlineError)]
    assert causes
    assert f"dcache-butler stage {url}" in str(causes[0])
    assert counter.at_door <= 2
