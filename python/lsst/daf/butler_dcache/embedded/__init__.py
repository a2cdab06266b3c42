"""A dCache in one process: WebDAV door, pools and REST frontend on loopback.

It shares no code with the client of this package, so that neither can agree with the other's mistakes.
"""

from .faults import Fault, FaultKind, Faults
from .server import EmbeddedDcache
from .transcript import Record

__all__ = ["EmbeddedDcache", "Fault", "FaultKind", "Faults", "Record"]
