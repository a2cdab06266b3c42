"""``dcache-butler bench crossover``."""

from __future__ import annotations

__all__ = ("crossover_command",)

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import yaml

from ..bench.crossover import Place, measure_crossover
from ..bench.real_target import is_url
from ..embedded import EmbeddedDcache


@click.command(name="crossover")
@click.option(
    "--target",
    default="embedded",
    show_default=True,
    help="The embedded dCache, which takes the times that were recorded of a real one, or the davs:// "
    "URL of a directory of yours.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="The median counts.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Directory for the figures.")
def crossover_command(target: str, rounds: int, seed: int, out: Path | None) -> None:
    """Measure from how many names on listings and bulk requests pay.

    Prints the times and, as they go into the configuration, the keys below dcache: bulk:. At a
    real server some 10,000 empty files are made and removed, in a directory of their own.
    """
    with _server(target) as (url, place):
        found = measure_crossover(
            url, rounds=rounds, seed=seed, place=place, tell=lambda text: click.echo(text, err=True)
        )
    click.echo(found.text(), nl=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "crossover.json").write_text(
            json.dumps({"target": target, **found.to_json()}, indent=2) + "\n"
        )


@contextlib.contextmanager
def _server(target: str) -> Iterator[tuple[str, Place | None]]:
    if target != "embedded":
        if not is_url(target) or target.startswith("s3"):
            raise click.UsageError("--target is embedded or a davs:// or dav:// URL")
        yield target.rstrip("/") + "/", None
        return
    with EmbeddedDcache(latency=1) as server:
        path = Path(server.environment["LSST_RESOURCES_WEBDAV_CONFIG"])
        (entry,) = yaml.safe_load(path.read_text())
        entry["dcache"] = {"frontend_url": server.frontend_url}
        path.write_text(yaml.safe_dump([entry]))
        os.environ.update(server.environment)

        def place(urls: Sequence[str]) -> None:
            for url in urls:
                server.place(unquote(urlsplit(url).path), b"x")

        yield server.url, place
