"""What door, pools and frontend of one dCache have in common."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .access import Access
from .clockwork import Clockwork
from .entry import Entry
from .faults import Faults
from .latency import Latency
from .namespace import Namespace
from .transcript import Transcript
from .version import Version

if TYPE_CHECKING:
    from .pool import Pool
    from .tape import TapeSystem

__all__ = ["Site"]


@dataclass
class Site:
    """The state of one dCache.

    Parameters
    ----------
    version : `Version`
        The release that is imitated.
    namespace : `Namespace`
        Names and attributes.
    access : `Access`
        Logins and rights.
    redirects : `bool`
        Whether the door sends clients to pools.
    has_limiter : `bool`
        Whether door and frontend limit rates (if the version does).
    time_scale : `float`
        Factor on dCache's long waits: mover timer, limiter windows, waits for pools and tape.
    pause_seconds : `float`
        Time between the door's look and its act, where racing clients can slip in: a real door's database
        round trips.
    copy_seconds : `float`
        How long a copy from pool to pool takes.
    """

    version: Version
    namespace: Namespace
    access: Access
    redirects: bool = True
    has_limiter: bool = True
    time_scale: float = 1.0
    pause_seconds: float = 0.002
    copy_seconds: float = 3.0
    transcript: Transcript = field(default_factory=Transcript)
    faults: Faults = field(default_factory=Faults)
    latency: Latency = field(default_factory=Latency)
    clockwork: Clockwork = field(default_factory=Clockwork)
    pools: list[Pool] = field(default_factory=list)
    tape: TapeSystem | None = None
    door_urls: list[str] = field(default_factory=list)
    frontend_url: str = ""

    @property
    def software(self) -> str:
        """Value of the ``Server`` header."""
        return f"dCache/{self.version.text}"

    def locality(self, entry: Entry) -> str:
        """Return where the bytes of a file are, in dCache's words.

        Parameters
        ----------
        entry : `Entry`
            The file.
        """
        return entry.locality_with([pool.name for pool in self.pools if pool.is_up])

    def write_pool(self) -> Pool | None:
        """Return a pool for a new file, or `None` if none is up."""
        candidates = [pool for pool in self.pools if pool.is_up]
        return random.choice(candidates) if candidates else None

    def read_pool(self, entry: Entry) -> Pool | None:
        """Return a pool that has a replica of a file, or `None`."""
        candidates = [pool for pool in self.pools if pool.is_up and pool.name in entry.locations]
        return random.choice(candidates) if candidates else None
