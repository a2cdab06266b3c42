"""What clients of WebDAV are given to sign in with, and whom they may trust."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from ..work import Access, UnsupportedWorkError

__all__ = ("Login", "folder_of_authorities", "login", "trust")


@dataclass(frozen=True)
class Login:
    """A token, or a user with a password, or nothing.

    Parameters
    ----------
    token : `str`
        Bearer token; empty if there is none.
    user, password : `str`
        For Basic authentication; empty if there is a token, or if nobody has to sign in.
    """

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that say so, for clients that are given some."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.user:
            both = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {both}"}
        return {}


def login(access: Access) -> Login:
    """Return what clients sign in with at a target: its token, if it has one.

    Parameters
    ----------
    access : `~..work.Access`
        How the target is reached.
    """
    if access.token_file is not None:
        return Login(token=Path(access.token_file).read_text().strip())
    if access.user is not None and access.password_file is not None:
        return Login(user=access.user, password=Path(access.password_file).read_text().strip())
    return Login()


def trust(access: Access) -> ssl.SSLContext:
    """Return what certificates of a target are verified with.

    Parameters
    ----------
    access : `~..work.Access`
        How the target is reached.
    """
    return ssl.create_default_context(cafile=access.ca_file)


def folder_of_authorities(access: Access, scratch: str) -> str | None:
    """Return a folder with the target's authority under the name by which OpenSSL looks for it.

    Parameters
    ----------
    access : `~..work.Access`
        How the target is reached.
    scratch : `str`
        Local folder in which it is made.

    Returns
    -------
    folder : `str` or `None`
        `None` if the machine's own authorities are meant.

    Raises
    ------
    UnsupportedWorkError
        If the program openssl is missing, which knows that name.
    """
    if access.ca_file is None:
        return None
    openssl = shutil.which("openssl")
    if openssl is None:
        raise UnsupportedWorkError("needs the program openssl, which is not installed")
    command = [openssl, "x509", "-noout", "-hash", "-in", access.ca_file]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    folder = Path(scratch) / "authorities"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(access.ca_file, folder / f"{name}.0")
    return str(folder)
