"""Where processes of one user keep what they share while they run, and what is to outlive them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ("runtime_folders", "state_folder")


def runtime_folders() -> tuple[Path, ...]:
    """Return folders for small files that all processes of this user on this host see, best first.

    Returns
    -------
    folders : `tuple` [`~pathlib.Path`, ...]
        None of them need exist; each is this user's by its name.

    Notes
    -----
    ``XDG_RUNTIME_DIR`` belongs to a login. Batch jobs have none, and often a temporary directory each, so
    that memory comes before that: it is the same for all jobs, and gone after the next boot.
    """
    name = f"daf_butler_dcache-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parents = [runtime] if os.path.isabs(runtime) else []
    parents += ["/dev/shm", tempfile.gettempdir()]  # noqa: S108 (owner and mode are checked by who opens it)
    return tuple(Path(parent) / name for parent in parents)


def state_folder() -> Path:
    """Return the folder for what is to outlive a process, ``dcache-butler`` in ``XDG_STATE_HOME``.

    Returns
    -------
    folder : `~pathlib.Path`
        It need not exist.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "dcache-butler"
