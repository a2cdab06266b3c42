"""Running the pipeline the way everybody does: ``pipetask run``, as a command."""

from __future__ import annotations

__all__ = ("PIPELINE", "PipelineFailedError", "run_pipeline")

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

from .geometry import SKYMAP
from .instrument import Ste3
from .repository import INPUTS, OUTPUT

PIPELINE = Path(__file__).with_name("pipeline.yaml")

_PROGRESS = re.compile(r"Executed (\d+) quanta successfully, (\d+) failed .* out of total (\d+) quanta")
_LINES_SHOWN = 15


class PipelineFailedError(RuntimeError):
    """``pipetask`` did not do its work; the message ends with its last lines."""


def run_pipeline(repository: Path, log: Path, progress: Callable[[str], None]) -> int:
    """Run all quanta in one ``pipetask`` process.

    Parameters
    ----------
    repository : `pathlib.Path`
        Folder of ``butler.yaml``.
    log : `pathlib.Path`
        File for all that ``pipetask`` prints.
    progress : `~collections.abc.Callable`
        Called with a line of text now and then.

    Returns
    -------
    quanta : `int`
        How many quanta were executed.

    Raises
    ------
    PipelineFailedError
        Raised if the command is not installed, if it fails, or if it has nothing to do.
    """
    scripts = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    pipetask = shutil.which("pipetask", path=scripts)
    if pipetask is None:
        raise PipelineFailedError("no pipetask command; it comes with lsst-ctrl-mpexec")
    command = [pipetask, "run", "-b", str(repository), "-i", INPUTS, "-o", OUTPUT, "-p", str(PIPELINE)]
    command += ["-d", f"instrument='{Ste3.getName()}' AND skymap='{SKYMAP}'", "--register-dataset-types"]
    lines: list[str] = []
    executed = failed = total = 0
    with (
        log.open("w") as log_stream,
        subprocess.Popen(  # noqa: S603 (the command is ours)
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log_stream.write(line)
                lines = [*lines[-_LINES_SHOWN:], line]
                if match := _PROGRESS.search(line):
                    executed, failed, total = (int(number) for number in match.groups())
                    if executed % 4 == 0 or executed == total:
                        progress(f"{executed} of {total} quanta")
        except BaseException:
            process.terminate()
            raise
    if process.returncode or failed or not executed or executed != total:
        raise PipelineFailedError(
            f"pipetask run: exit status {process.returncode}, {executed} of {total} quanta done, "
            f"{failed} failed\n{''.join(lines)}"
        )
    return executed
