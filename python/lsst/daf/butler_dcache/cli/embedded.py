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
@click.option("--plain", is_flag=True, help="Plain http and passwords instead of TLS and a macaroon.")
def command(port: int, root: Path | None, pools: int, version: str, plain: bool) -> None:
    """Run a dCache in one process until Ctrl-C.

    Prints, as lines for a shell, the environment variables that clients need. In another terminal:

    \b
        dcache-butler embedded > environment.sh &
        source environment.sh
    """  # noqa: D301  (the backspace is click's mark of a text that is not to be filled)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedDcache(port=port, root=root, pools=pools, version=version, tls=not plain) as dcache:
        for name, value in {"DCACHE_URL": dcache.url, **dcache.environment}.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        place = f"{dcache.url}, frontend {dcache.frontend_url}"
        click.echo(f"# dCache {version} at {place}; Ctrl-C stops it", err=True)
        # Signals are handled between waits, which on some platforms an endless wait would put off.
        while not stop.wait(1.0):
            pass
    click.echo("# stopped", err=True)
