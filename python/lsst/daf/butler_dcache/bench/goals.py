"""What each operation may cost in requests: the promises of this package, as claims.

Requests to doors are the scarce resource. A door sends a reader or a writer on to a pool; small files it
takes itself; names are the door's business alone.
"""

from __future__ import annotations

from .row import Claim
from .work import Step, Work

__all__ = ("goals", "requests")

_PROXIED_BYTES = 100_000
"""Up to this size a file goes through the door, see the setting ``proxy_upload_max_bytes``."""

_AT_DOOR_AND_POOL: dict[str, tuple[float, float]] = {
    "get": (1, 1),
    "look": (1, 0),
    # A look whether it is a file: a DELETE would remove an empty directory, too.
    "remove": (2, 0),
    "rename": (3, 0),
    "mint": (1, 0),
    "presign": (0, 0),
    # One question to the door; the pool sends the pieces that the library asks for, over one connection.
    "header": (1, 2),
    "hdu": (1, 4),
    # Each row of an image without compression lies elsewhere; after a few of them several come at once.
    "cutout": (1, 12),
    "column": (1, 3),
    "member": (1, 3),
}


def requests(work: Work) -> tuple[float, float]:
    """Return how many requests a piece of work may cost.

    Parameters
    ----------
    work : `~.work.Work`
        The work.

    Returns
    -------
    door, pool : `tuple` [`float`, `float`]
        Of all its operations.

    Raises
    ------
    KeyError
        If nothing was promised for such work.
    """
    match work.operation:
        case "put":
            # Under a name that nobody else knows, then renamed: nobody ever sees a part of the file.
            door, pool = 2.0, float(work.size_bytes > _PROXIED_BYTES)
        case "exists_many":
            door, pool = work.directory_count, 0
        case "walk":
            door, pool = work.directory_count + 1, 0
        case "delete":
            # One listing of each directory tells which of many names are files.
            door, pool = work.batch + work.directory_count, 0
        case "read_random":
            return 1, work.count
        case "read_vector" | "read_scattered":
            door, pool = 1, 1
        case "mix":
            door, pool = (sum(each) for each in zip(*map(_of_step, work.steps), strict=True))
        case _:
            door, pool = _AT_DOOR_AND_POOL[work.operation]
    return door * work.count, pool * work.count


def _of_step(step: Step) -> tuple[float, float]:
    if step.operation == "exists_many":
        # In a mix these are the files to come: what a listing has not is asked for.
        return step.count + 1, 0
    return requests(Work(step.operation, step.size_bytes, step.count))


def goals(work: Work, client: str = "ours") -> tuple[Claim, ...]:
    """Return these promises as claims.

    Parameters
    ----------
    work : `~.work.Work`
        The work.
    client : `str`, optional
        Whose.

    Returns
    -------
    claims : `tuple` [`~.row.Claim`, ...]
        On requests at the door and at pools.
    """
    door, pool = requests(work)
    return (Claim("door", door, client=client), Claim("pool", pool, client=client))
