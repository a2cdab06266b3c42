"""``dcache-butler``: one program, whose sub-commands are imported when they are wanted.

A sub-command may need packages that the bare distribution does not bring. So the sub-commands stand in a
table and are not imported: ``dcache-butler --help`` works everywhere, and a sub-command whose packages are
missing says which extra brings them.
"""

from __future__ import annotations

__all__ = ("SUBCOMMANDS", "Subcommand", "main")

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Subcommand:
    """One row of the table.

    Parameters
    ----------
    module : `str`
        Module, below this package's parent, that holds the sub-command.
    summary : `str`
        One line of help.
    extra : `str` or `None`
        Extra of the distribution that brings what the module imports; `None` if the bare one suffices.
    attribute : `str`
        The sub-command's name in the module.
    """

    module: str
    summary: str
    extra: str | None = None
    attribute: str = "command"


SUBCOMMANDS = {
    "bench": Subcommand("cli.bench", "Measure this client beside others."),
    "cat": Subcommand("cli.reading", "Write files to the standard output.", attribute="cat"),
    "checksum": Subcommand("cli.reading", "Print the checksums of files.", attribute="checksum"),
    "clean-orphans": Subcommand("cli.orphans", "Remove what killed writers left."),
    "cp": Subcommand("cli.copying", "Copy files, every one verified by its checksum.", attribute="cp"),
    "demo": Subcommand("cli.demo", "Run a small sky survey on a dCache or S3 and check it.", extra="demo"),
    "doctor": Subcommand("cli.doctor", "Check, step by step, whether an endpoint can be used from here."),
    "du": Subcommand("cli.finding", "Print bytes and number of files of directories.", attribute="du"),
    "embedded": Subcommand("cli.embedded", "Run a dCache in one process, to try things on."),
    "find": Subcommand(
        "cli.finding", "Print what in directory trees fits some conditions.", attribute="find"
    ),
    "locality": Subcommand("cli.tape", "Say whether files are on disk or on tape.", attribute="locality"),
    "ls": Subcommand("cli.listing", "List directories.", attribute="ls"),
    "macaroon": Subcommand("cli.macaroon", "Make, read, narrow and share macaroons."),
    "mkdir": Subcommand("cli.removing", "Make directories and their parents.", attribute="mkdir"),
    "mv": Subcommand("cli.removing", "Rename files, or move them to another server.", attribute="mv"),
    "pin": Subcommand("cli.tape", "Keep files on disk that are there.", attribute="pin"),
    "release": Subcommand("cli.staging", "Let files go from disk that were staged.", attribute="release"),
    "rm": Subcommand("cli.removing", "Remove files, many at a time, and directory trees.", attribute="rm"),
    "stage": Subcommand("cli.staging", "Bring files from tape to disk.", attribute="stage"),
    "stat": Subcommand("cli.listing", "Say all that is known of files and directories.", attribute="stat"),
    "token": Subcommand("cli.token", "Say what a token is, without showing it."),
}

_PACKAGE = __name__.rpartition(".cli.")[0]


class _LazyGroup(click.Group):
    """A group that reads its sub-commands' modules when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (subcommand := SUBCOMMANDS.get(cmd_name)) is None:
            return None
        return _load(cmd_name, subcommand)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUBCOMMANDS[name].summary) for name in self.list_commands(ctx)])


def _load(name: str, subcommand: Subcommand) -> click.Command:
    try:
        module = importlib.import_module(f"{_PACKAGE}.{subcommand.module}")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if subcommand.extra is None or missing.startswith(_PACKAGE):
            raise
        return _unavailable(name, missing, subcommand.extra)
    command: click.Command = getattr(module, subcommand.attribute)
    return command


def _unavailable(name: str, missing: str, extra: str) -> click.Command:
    def complain(**_: Any) -> None:
        # Several LSST packages have no version for 3.11, so there pip would install without them.
        where = "" if sys.version_info >= (3, 12) else "\nwith Python 3.12 or newer"
        raise click.ClickException(
            f"{name} needs the package {missing}, which is not installed. Install it with\n"
            f"    pip install 'lsst-daf-butler-dcache[{extra}]'{where}"
        )

    # Whatever the arguments are, the answer is the same.
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=complain, context_settings=settings)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lsst-daf-butler-dcache")
def main() -> None:
    """Rubin Data Butler on dCache."""
