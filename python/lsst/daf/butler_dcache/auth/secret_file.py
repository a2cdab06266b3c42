"""Files that hold secrets: who may read them, how large they may be, and whether they have changed."""

from __future__ import annotations

import os
import stat

from ..errors import CredentialError, hides_locals

__all__ = ("Mark", "SecretFile")

Mark = tuple[int, ...]
"""What tells one state of a file from another."""

_MAX_BYTES = 1024 * 1024


class SecretFile:
    """A file that only its owner may read.

    Parameters
    ----------
    path : `str`
        The file.
    what : `str`
        What it is called in messages, such as ``credential file``.
    origin : `str`
        Which setting or variable named it.
    unasked : `bool`, optional
        Whether nobody named the file and it was found where such files are by custom, below ``/tmp`` for
        instance: there it must be ours, or anybody could have us work under another name.

    Notes
    -----
    Comparing inode, size and times of the file with those of the last reading, and never with our own clock,
    also finds a file that was written before it was moved into place.
    """

    def __init__(self, path: str, what: str, origin: str, *, unasked: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.what = what
        self.origin = origin
        self._unasked = unasked

    def mark(self) -> Mark:
        """Return the mark of the present state; one system call.

        Returns
        -------
        mark : `tuple` [`int`, ...]
            Another one when the file has changed.

        Raises
        ------
        CredentialError
            If there is no such file.
        """
        try:
            return _mark(os.stat(self.path))
        except (OSError, ValueError) as exc:
            raise self._unreadable(exc) from exc

    @hides_locals
    def read(self, *, private: bool = True) -> tuple[Mark, bytes]:
        """Read the file.

        Parameters
        ----------
        private : `bool`, optional
            `False` for what is no secret, such as a certificate, and may be readable by others.

        Returns
        -------
        mark : `tuple` [`int`, ...]
            State that was read.
        content : `bytes`
            All of it.

        Raises
        ------
        CredentialError
            If it cannot be read, is no regular file or too long, or others may read it.
        """
        try:
            file = open(self.path, "rb", opener=_open)  # noqa: SIM115 - our errors are OSErrors as well
        except (OSError, ValueError) as exc:
            raise self._unreadable(exc) from exc
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise self.error("is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            if private and mode & 0o077:
                raise self.error(f"may be read by others (mode {mode:04o})", f"chmod 600 {self.path}")
            if self._unasked and status.st_uid not in (os.geteuid(), 0):
                raise self.error("belongs to somebody else", "remove it, or name another file")
            try:
                content = file.read(_MAX_BYTES + 1)
            except OSError as exc:
                raise self._unreadable(exc) from exc
        if len(content) > _MAX_BYTES:
            raise self.error(f"is longer than {_MAX_BYTES} bytes")
        return _mark(status), content

    @hides_locals
    def read_text(self) -> tuple[Mark, str]:
        """Read the file as text.

        Returns
        -------
        mark : `tuple` [`int`, ...]
            State that was read.
        text : `str`
            The text without white space around it, never empty.

        Raises
        ------
        CredentialError
            As `read`, and if the content is empty or no text.
        """
        mark, content = self.read()
        try:
            text = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise self.error("is not text") from None
        if not text:
            raise self.error("is empty")
        return mark, text

    def error(self, text: str, remedy: str = "") -> CredentialError:
        """Return an error that names the file and who named it.

        Parameters
        ----------
        text : `str`
            What is wrong with it.
        remedy : `str`, optional
            What helps.

        Returns
        -------
        error : `~..errors.CredentialError`
            To be raised.
        """
        hint = f"nothing was sent; {remedy}" if remedy else "nothing was sent; write a good one there"
        return CredentialError(f"the {self.what} {self.path} {text} ({self.origin})", hint=hint)

    def _unreadable(self, exc: OSError | ValueError) -> CredentialError:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        return self.error(f"cannot be read: {reason}", "make it, or correct its name")


def _open(path: str, flags: int) -> int:
    # A pipe without a writer would hold us for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def _mark(status: os.stat_result) -> Mark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
