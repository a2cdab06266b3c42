"""The forms in which a macaroon leaves this program: those of SURF's ``get-macaroon``, and a QR code."""

from __future__ import annotations

import io
import os
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import segno

from ..auth.macaroon import Activity, Macaroon
from ..auth.secret_writing import write_secret
from ..config.loading import settings_for
from ..store.sharing import with_token
from ..webdav.addresses import to_http

__all__ = ("FORMS", "Handout", "qr_code")

FORMS = ("link", "macaroon", "file", "curl", "rclone")


@dataclass(frozen=True)
class Handout:
    """A macaroon for a URL.

    Parameters
    ----------
    url : `str`
        File or directory, in any of the schemes that are served here.
    token : `str`
        The macaroon.
    """

    url: str
    token: str

    @property
    def link(self) -> str:
        """URL that anybody can open in a browser."""
        return with_token(self.url, self.token)

    def written(self, form: str, name: str) -> tuple[str, str]:
        """Bring it into a form, which may be a file of mode 0600.

        Parameters
        ----------
        form : `str`
            One of `FORMS`.
        name : `str`
            Name of the file, or of the remote for ``rclone``.

        Returns
        -------
        output : `str`
            What to print: the secret itself where the form asks for it, otherwise what was written.
        file : `str`
            File that was written, empty if none was.
        """
        if form == "link":
            return self.link, ""
        if form == "macaroon":
            return self.token, ""
        if form == "curl":
            return "\n".join(self._curl()), ""
        if form == "file":
            write_secret(name, self.token + "\n")
            return f"The macaroon is in {name}.", name
        file = name + ".conf"
        remote = os.path.basename(name)
        write_secret(file, self._rclone(remote))
        path = unquote(urlsplit(self.url).path)
        usage = shlex.join(["rclone", f"--config={file}", "ls", f"{remote}:{path}"])
        return f"The configuration of rclone is in {file}; for instance:\n{usage}", file

    def _curl(self) -> list[str]:
        authorities = settings_for(self.url).trusted_authorities
        command = ["curl", "--fail", "--location"]
        if authorities is not None:
            command += ["--capath" if os.path.isdir(authorities) else "--cacert", authorities]
        activities = Macaroon.parse(self.token).activities
        name = os.path.basename(unquote(urlsplit(self.url).path).rstrip("/")) or "listing"
        lines = []
        if activities & {Activity.DOWNLOAD, Activity.LIST}:
            target = ["--output", name] if not self.url.endswith("/") else []
            lines.append(shlex.join([*command, *target, self.link]))
        if Activity.UPLOAD in activities:
            goal = self.url if not self.url.endswith("/") else self.url + "NAME"
            lines.append(shlex.join([*command, "--upload-file", "FILE", with_token(goal, self.token)]))
        return lines

    def _rclone(self, remote: str) -> str:
        parts = urlsplit(to_http(self.url))
        lines = [
            f"[{remote}]",
            "type = webdav",
            f"url = {parts.scheme}://{parts.netloc}/",
            "vendor = other",
            "user =",
            "pass =",
            f"bearer_token = {self.token}",
        ]
        return "\n".join(lines) + "\n"


def qr_code(text: str) -> str:
    """Return a QR code that a terminal shows.

    Parameters
    ----------
    text : `str`
        What it says, up to some 2900 characters.

    Returns
    -------
    code : `str`
        Lines of block characters.
    """
    buffer = io.StringIO()
    segno.make_qr(text, error="l").terminal(out=buffer, compact=True)
    return buffer.getvalue()
