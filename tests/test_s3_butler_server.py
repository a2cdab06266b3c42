"""The real Butler server hands presigned URLs of S3 to a client that has no key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_butler_server
from test_butler_server import CLIENT, server  # noqa: F401


@pytest.fixture
def repository(seaweed: Any, tmp_path: Path) -> tuple[str, Any]:
    """Repository on S3 with a dictionary and an image; its folder, and the image."""
    return test_butler_server.make_repository(f"s3://{seaweed.bucket}/served/", tmp_path)


def test_a_dataset_and_a_cutout(
    seaweed: Any,
    repository: tuple[str, Any],
    server: str,  # noqa: F811
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in seaweed.environment}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, server],
        env=inherited | {"BUTLER_RUBIN_ACCESS_TOKEN": "any", "DAF_BUTLER_DCACHE_REGISTER": "no"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == {"answer": 42}
    assert np.array_equal(np.array(found["cutout"], dtype=np.float32), repository[1][700:800, 600:650])
    for url in found["urls"]:
        assert url.startswith(f"{seaweed.url}/{seaweed.bucket}/served/")
        assert "X-Amz-Signature=" in url
        assert seaweed.secret_key not in url
