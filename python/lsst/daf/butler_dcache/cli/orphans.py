"""``dcache-butler clean-orphans``."""

from __future__ import annotations

import json
import sys

import click

from ..config.loading import settings_for
from ..orphans import Orphan, find_orphans, remove_orphans
from ..store.registry import store_for
from .output import one_line_errors
from .quantities import duration

__all__ = ("command",)

_LOCK_MARGIN_SECONDS = 60.0


@click.command(name="clean-orphans")
@click.argument("url")
@click.option("--remove", is_flag=True, help="Remove what may go; without it all is only listed.")
@click.option(
    "--older-than",
    type=duration,
    metavar="DURATION",
    default="7d",
    show_default=True,
    help="Age beyond which nobody can still be writing, whatever host it was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def command(url: str, remove: bool, older_than: float, as_json: bool) -> None:
    """List, and with --remove remove, what killed writers left below a directory.

    An upload has a temporary name, .dcb-HOST-..., until it is complete. It may go if its process ran on this
    host and has ended, or if it is old. The others may be in use and are never touched. On S3 a multipart
    upload has no name, and nothing tells whose it is: it is aborted if it is old.
    """
    store = store_for(url)
    # There are no locks on S3.
    is_s3 = url.lower().startswith("s3:")
    lock_seconds = 0.0 if is_s3 else settings_for(url).total_timeout_seconds + _LOCK_MARGIN_SECONDS
    found = list(find_orphans(store, url, older_than_seconds=older_than, lock_seconds=lock_seconds))
    errors = remove_orphans(store, found) if remove else {}
    rows = [_row(orphan, remove, errors.get(index)) for index, orphan in enumerate(found)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            kind = " (multipart upload)" if row["upload"] else ""
            click.echo(f"{row['state']:<8}  {row['owner']:<24}  {row['url']}{kind}  {row['reason']}".rstrip())
        may_go = sum(1 for orphan in found if orphan.reason)
        verb = "removed" if remove else "may go (--remove)"
        click.echo(f"{len(found)} unfinished, {may_go - len(errors)} {verb}", err=True)
    if errors:
        sys.exit(1)


def _row(orphan: Orphan, remove: bool, error: Exception | None) -> dict[str, str | float | None]:
    state = "in use?" if not orphan.reason else "orphan" if not remove else "failed" if error else "removed"
    owner = orphan.owner
    return {
        "state": state,
        "url": orphan.info.url,
        "upload": None if orphan.upload is None else orphan.upload.identifier,
        "owner": "" if owner is None else f"{owner.host} process {owner.process}",
        "age_seconds": orphan.age_seconds,
        "size": orphan.info.size,
        "reason": " ".join(str(error).split()) if error else orphan.reason,
    }
