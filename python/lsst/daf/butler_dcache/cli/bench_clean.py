"""``dcache-butler bench clean``."""

from __future__ import annotations

import click

from ..bench.borrowed import clean
from ..bench.real_target import is_url, see_that_it_is_a_place
from ..errors import DcacheError
from ..redaction import redact_text, redact_url

__all__ = ("clean_command",)


@click.command(name="clean")
@click.argument("url")
def clean_command(url: str) -> None:
    """Remove what killed runs have left in the directory URL of a real server.

    A run works in a directory of its own, dcache-bench-..., with a mark in it, and removes it at its end.
    Here those are removed that have the mark and whose run has ended: its process is gone, if it ran on this
    machine, or was not heard of for an hour. Nothing else is touched.
    """
    if not is_url(url):
        raise click.UsageError(f"{redact_url(url)} is not the URL of a directory: davs, dav or s3")
    try:
        see_that_it_is_a_place(url)
        removed = clean(url, tell=click.echo)
    except (DcacheError, ValueError) as error:
        raise click.ClickException(redact_text(str(error))) from error
    click.echo(f"{len(removed)} removed")
