"""Code that runs where nothing has been imported yet."""

from __future__ import annotations

import os
import subprocess
import sys

PREAMBLE = """
import sys
OURS = tuple(f"lsst.daf.butler_dcache.{name}" for name in ("resource_path", "s3_resource_path"))
def is_ours(uri):
    return type(uri).__module__ in OURS
"""


def run(code: str, **environment: str) -> None:
    """Run code in an interpreter that has not imported anything yet."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LSST_", "DAF_BUTLER_"))}
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
