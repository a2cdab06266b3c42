"""What a worker does next: drawn from the seed, the number of the process and that of the step alone.

Which names exist decides among what can be drawn, so that a run with one process is the same each time as far
as the outcomes are; several processes disturb one another.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ("READING", "SHARED", "Step", "content", "plan")

_KB = 1024
_MB = 1024 * 1024

_NAMES = (
    *(f"f{number}" for number in range(24)),
    "with space.fits",
    "100%+&#?.dat",
    "\N{LATIN SMALL LETTER E WITH ACUTE}t\N{LATIN SMALL LETTER E WITH ACUTE}.fits",
    "n" * 240,
)
_DIRECTORIES = ("", "d1/", "d1/d2/", "d3/")

_KINDS = {
    "put": 24,
    "create": 10,
    "streamed": 6,
    "copy": 3,
    "get": 14,
    "download": 8,
    "ranges": 9,
    "open": 8,
    "rename": 8,
    "remove": 6,
    "bulk remove": 3,
    "mkdir": 3,
    "list": 4,
    "stat": 3,
}
READING = frozenset({"get", "download", "ranges", "open", "list", "stat"})
SHARED = frozenset({"race to create", "race to overwrite"})
_SHARED_EVERY = 20


@dataclass(frozen=True)
class Step:
    """One operation.

    Parameters
    ----------
    process, index : `int`
        Whose it is, and which.
    kind : `str`
        What is done.
    names : `tuple` [`str`, ...]
        With which names, below the directory of the process.
    size : `int`
        Bytes that are written.
    overwrite : `bool`
        Whether an existing name is replaced.
    from_file : `bool`
        Whether the bytes are in a file.
    spans : `tuple` [`tuple` [`float`, `float`], ...]
        What is read: beginning and length as parts of the file.
    """

    process: int
    index: int
    kind: str
    names: tuple[str, ...]
    size: int = 0
    overwrite: bool = True
    from_file: bool = False
    spans: tuple[tuple[float, float], ...] = ()

    @property
    def is_reading(self) -> bool:
        """Whether nothing is changed."""
        return self.kind in READING

    def __str__(self) -> str:
        names = ", ".join(name if len(name) < 40 else name[:37] + "..." for name in self.names)
        more = f" {self.size} bytes" if self.size else ""
        more += "" if self.overwrite else " create only"
        return f"process {self.process} step {self.index}: {self.kind} {names}{more}"


def content(seed: int, step: Step) -> bytes:
    """Return the bytes that a step writes.

    Parameters
    ----------
    seed : `int`
        Of the campaign.
    step : `Step`
        The step.
    """
    return random.Random(f"{seed}/{step.process}/{step.index}").randbytes(step.size)


def plan(seed: int, process: int, index: int, files: Collection[str], unusable: Collection[str]) -> Step:
    """Return a step of a process.

    Parameters
    ----------
    seed : `int`
        Of the campaign.
    process, index : `int`
        Whose step, and which.
    files : `~collections.abc.Collection` [`str`]
        Names that hold a file.
    unusable : `~collections.abc.Collection` [`str`]
        Names that must be left alone.
    """
    draw = random.Random(f"{seed}:{process}:{index}")
    size = _size(draw)
    if index % _SHARED_EVERY == 7:
        return Step(process, index, "race to create", (f"c{index}",), size, overwrite=False)
    if index % _SHARED_EVERY == 14:
        return Step(process, index, "race to overwrite", (f"o{index // 100}",), size)
    every = [f"{draw.choice(_DIRECTORIES)}{name}" for name in _NAMES]
    free = [name for name in every if name not in unusable]
    there = sorted(name for name in files if name not in unusable)
    kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
    # Now and then of what does not exist.
    old = draw.choice(there) if there and draw.random() < 0.92 else draw.choice(free)
    new = draw.choice(free) if draw.random() < 0.5 or not there else draw.choice(there)
    spans = tuple((draw.random(), draw.random() ** 4) for _ in range(draw.randint(1, 6)))
    match kind:
        case "put":
            return Step(process, index, kind, (new,), size, from_file=draw.random() < 0.4)
        case "create":
            return Step(process, index, kind, (new,), size, overwrite=False)
        case "streamed":
            size = draw.randint(_MB, 3 * _MB) if draw.random() < 0.6 else size
            return Step(process, index, kind, (new,), size, overwrite=draw.random() < 0.7)
        case "rename" | "copy":
            if new == old:
                new = next(name for name in free if name != old)
            return Step(process, index, kind, (old, new), overwrite=draw.random() < 0.5)
        case "bulk remove":
            chosen = draw.sample(there, min(len(there), draw.randint(1, 4)))
            return Step(process, index, kind, tuple(dict.fromkeys([*chosen, old])))
        case "mkdir":
            return Step(process, index, kind, (f"m{draw.randint(0, 9)}/sub{draw.randint(0, 3)}/",))
        case "list":
            return Step(process, index, kind, (draw.choice(_DIRECTORIES),))
    return Step(process, index, kind, (old,), spans=spans)


def _size(draw: random.Random) -> int:
    way = draw.random()
    if way < 0.08:
        return 0
    if way < 0.6:
        return draw.randint(1, 60 * _KB)
    if way < 0.95:
        return draw.randint(66 * _KB, 400 * _KB)
    return draw.randint(_MB, 2 * _MB)
