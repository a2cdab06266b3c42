"""``dcache-butler embedded``."""

from __future__ import annotations

__all__ = ("command",)

import shlex
import signal
import threading
from pathlib import Path

import click

from ..embedded import EmbeddedDcache


@click.command(name="embedded")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the door, else a free one.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps the files; without it they are gone at the end.",
)
@click.option("--pools", type=click.IntRange(1), default=2, show_default=True, help="Number of pools.")
@click.option("--version", default="11.2.4", show_default=True, help="The dCache version to behave like.")
@click.option("--tape", metavar="DIRECTORY", help="Directory, below that of the URL, whose files go to tape.")
@click.option(
    "--tape-seconds",
    type=(click.FloatRange(0), click.FloatRange(0), click.FloatRange(0)),
    default=(2.0, 10.0, 5.0),
    show_default=True,
    metavar="FLUSH KEEP RESTORE",
    help="From the upload to the copy on tape, from there to the removal from disk, and for a way back.",
)
@click.option("--plain", is_flag=True, help="Plain http and passwords instead of TLS and a macaroon.")
def command(
    port: int,
    root: Path | None,
    pools: int,
    version: str,
    tape: str | None,
    tape_seconds: tuple[float, float, float],
    plain: bool,
) -> None:
    """Run a dCache in one process until Ctrl-C.

    Prints, as lines for a shell, the environment variables that clients need. In another terminal:

    \b
        dcache-butler embedded > environment.sh &
        source environment.sh
    """  # noqa: D301  (the backspace is click's mark of a text that is not to be filled)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedDcache(
        port=port, root=root, pools=pools, version=version, tape=tape, tls=not plain
    ) as dcache:
        if tape is not None and (system := dcache.site.tape) is not None:
            system.flush_seconds, system.keep_seconds, system.restore_seconds = tape_seconds
        for name, value in {"DCACHE_URL": dcache.url, **dcache.environment}.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        place = f"{dcache.url}, frontend {dcache.frontend_url}"
        click.echo(f"# dCache {version} at {place}; Ctrl-C stops it", err=True)
        if tape is not None:
            click.echo(f"# files below {dcache.url}{tape.strip('/')}/ go to tape", err=True)
        # Signals are handled between waits, which on some platforms an endless wait would put off.
        while not stop.wait(1.0):
            pass
    click.echo("# stopped", err=True)
