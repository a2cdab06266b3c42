"""Every stored file: its bytes, the registry's record and the server's own checksum must agree."""

from __future__ import annotations

__all__ = ("check_artifacts", "check_removed")

from collections.abc import Mapping, Sequence
from pathlib import Path

from .report import Check
from .storage import Artifact, Storage, digest


def check_artifacts(
    artifacts: Sequence[Artifact], storage: Storage, originals: Mapping[str, Path]
) -> list[Check]:
    """Compare size and checksum of every stored file: its bytes, the registry's record, the server's word.

    Parameters
    ----------
    artifacts : `~collections.abc.Sequence` [ `Artifact` ]
        The records.
    storage : `Storage`
        The files.
    originals : `~collections.abc.Mapping` [ `str`, `pathlib.Path` ]
        Files that were ingested, by the path of their artifact.

    Returns
    -------
    checks : `list` [ `Check` ]
        Sizes, recorded checksums, the server's checksums, bytes of ingested files.
    """
    size, recorded, served, ingested = [], [], [], []
    algorithms: set[str] = set()
    for artifact in artifacts:
        data = storage.read(artifact.path)
        if len(data) != artifact.size:
            size.append(artifact.path)
        if artifact.adler32 != digest("adler32", data):
            recorded.append(artifact.path)
        if storage.keeps_checksums:
            checksum = storage.checksum(artifact.path)
            if checksum is None or checksum[1] != digest(checksum[0], data):
                served.append(artifact.path)
            else:
                algorithms.add(checksum[0])
        if artifact.path in originals and originals[artifact.path].read_bytes() != data:
            ingested.append(artifact.path)
    count = len(artifacts)
    checks = [
        _all_good("size of the bytes = of the record", count, size),
        _all_good("bytes of ingested files = of the originals", len(originals), ingested),
    ]
    if storage.keeps_checksums:
        checks.append(_all_good("adler32 of the bytes = of the record", count, recorded))
        names = " or ".join(sorted(algorithms)) or "checksum"
        checks.append(_all_good(f"{names} of the bytes = the server's", count, served))
    return checks


def check_removed(
    removed: Sequence[Artifact], kept: Sequence[Artifact], storage: Storage, records: Sequence[Artifact]
) -> list[Check]:
    """See that the files of a removed run are gone and that all others are there.

    Parameters
    ----------
    removed, kept : `~collections.abc.Sequence` [ `Artifact` ]
        Files of the removed run, and of all others.
    storage : `Storage`
        The files.
    records : `~collections.abc.Sequence` [ `Artifact` ]
        What the registry remembers now.

    Returns
    -------
    checks : `list` [ `Check` ]
        Files, records.
    """
    left = [artifact.path for artifact in removed if storage.exists(artifact.path)]
    lost = [artifact.path for artifact in kept if not storage.exists(artifact.path)]
    return [
        Check(
            "files of the removed run",
            f"{len(removed) - len(left)} of {len(removed)} gone" + _names(left),
            "all gone",
            bool(removed) and not left,
        ),
        _all_good("files of other runs still there", len(kept), lost),
        Check(
            "records after removal", f"{len(records)} left", f"{len(kept)} left", set(records) == set(kept)
        ),
    ]


def _all_good(name: str, count: int, bad: Sequence[str]) -> Check:
    return Check(name, f"{count - len(bad)} of {count}" + _names(bad), "all", count > 0 and not bad)


def _names(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f" (not {paths[0].rpartition('/')[2]}{more})"
