"""The real Butler server hands presigned URLs of a dCache to a client that has no credential for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lsst.daf.butler import Butler, Config, DatasetType
from lsst.daf.butler_dcache import DcacheResourcePath
from lsst.images import Box, Image
from request_counter import counted
from test_store_webdav import endpoint

SHAPE = (1500, 1500)
CLIENT = """
import json, os, sys
import numpy as np
from lsst.daf.butler import Butler
from lsst.daf.butler_dcache import DcacheResourcePath
from lsst.images import Box
butler = Butler.from_config(sys.argv[1], collections="run")
whole = butler.get("thing", instrument="Cam")
cutout = butler.get("image", instrument="Cam", parameters={"bbox": Box.factory[700:800, 600:650]})
urls = [str(butler.getURI(kind, instrument="Cam")) for kind in ("thing", "image")]
json.dump({"whole": whole, "cutout": cutout.array.tolist(), "urls": urls}, sys.stdout)
"""
# Nothing that leads to a credential, or to other authorities.
NOT_INHERITED = ("LSST_RESOURCES_WEBDAV_CONFIG", "BEARER_TOKEN_FILE", "BEARER_TOKEN", "REQUESTS_CA_BUNDLE",
                 "CURL_CA_BUNDLE")  # fmt: skip


@pytest.fixture
def repository(embedded: Any, tmp_path: Path) -> tuple[str, Any]:
    """Repository on the embedded dCache with a dictionary and an image; its folder, and the image."""
    return make_repository(embedded.url + "served/", tmp_path)


def make_repository(root: str, tmp_path: Path) -> tuple[str, Any]:
    """Make a repository with a dictionary and an image; return its folder, and the image."""
    config = Config()
    config["datastore", "cls"] = "lsst.daf.butler_dcache.DcacheDatastore"
    config["datastore", "root"] = root
    folder = str(tmp_path / "repo")
    Butler.makeRepo(folder, config=config, forceConfigRoot=False)
    pixels = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    with Butler.from_config(folder, writeable=True, run="run") as butler:
        butler.registry.insertDimensionData("instrument", {"name": "Cam"})
        values = {"thing": ("StructuredDataDict", {"answer": 42}),
                  "image": ("ImageV2", Image(pixels, bbox=Box.from_shape(SHAPE)))}  # fmt: skip
        for name, (kind, value) in values.items():
            dataset_type = DatasetType(name, ("instrument",), kind, universe=butler.dimensions)
            butler.registry.registerDatasetType(dataset_type)
            butler.put(value, dataset_type, instrument="Cam")
    return folder, pixels


@pytest.fixture
def server(repository: tuple[str, Any], tmp_path: Path) -> Iterator[str]:
    """The Butler server in a process of its own, on a port that is free."""
    document = {"demo": {"config_uri": f"{repository[0]}/butler.yaml", "authorized_groups": ["*"]}}
    environment = os.environ | {
        "DAF_BUTLER_SERVER_REPOSITORIES": json.dumps(document),
        "DAF_BUTLER_SERVER_GAFAELFAWR_URL": "DISABLED",
        "DAF_BUTLER_SERVER_AUTHENTICATION": "rubin_science_platform",
    }
    with socket.socket() as listener, (tmp_path / "server.log").open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/butler/repo/demo"
        command = [sys.executable, "-m", "uvicorn", "--factory", "--fd", str(listener.fileno())]
        process = subprocess.Popen(
            [*command, "lsst.daf.butler.remote_butler.server:create_app"],
            env=environment,
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
    try:
        # The socket listens already: the answer comes as soon as there is somebody to give it.
        with urllib.request.urlopen(f"{url}/butler.yaml", timeout=90) as answer:
            assert answer.status == 200
        yield url
    finally:
        process.terminate()
        process.wait(20)
        print((tmp_path / "server.log").read_text()[-3000:])


def test_a_dataset_and_a_cutout(
    embedded: Any, repository: tuple[str, Any], server: str, tmp_path: Path
) -> None:
    (entry,) = yaml.safe_load(Path(os.environ["LSST_RESOURCES_WEBDAV_CONFIG"]).read_text())
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED} | {
        "BUTLER_RUBIN_ACCESS_TOKEN": "any",
        "LSST_HTTP_CACERT_BUNDLE": entry["trusted_authorities"],
        # A dCache does not call itself a WebDAV server to strangers, so ranges are read by fsspec's own HTTP.
        "SSL_CERT_FILE": entry["trusted_authorities"],
        "DAF_BUTLER_DCACHE_REGISTER": "no",
    }
    with counted(embedded) as counter:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, server],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == {"answer": 42}
    part = repository[1][700:800, 600:650]
    assert np.array_equal(np.array(found["cutout"], dtype=np.float32), part)
    for url in found["urls"]:
        assert url.startswith(f"https://{embedded.url.partition('://')[2]}served/")
        assert "?authz=" in url
    assert "door POST" not in counter.methods()
    # The cutout by ranges, of which fsspec's own HTTP file system reads 5 MiB at a time.
    assert 206 in {record["status"] for record in counter.records if record["server"] == "pool"}
    assert sum(record["sent"] for record in counter.records) < 0.8 * part.itemsize * SHAPE[0] * SHAPE[1]
    with endpoint(embedded, tmp_path, token=None):
        thing, image = (DcacheResourcePath(url) for url in found["urls"])
        assert yaml.safe_load(thing.read()) == {"answer": 42}
        assert image.read(6) == b"SIMPLE"
