"""Tokens that a program prints, such as ``oidc-token NAME`` or ``htgettoken``."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress

from ..errors import CredentialError, hides_locals
from .credential import Credential

__all__ = ("TokenCommand",)

_MAX_BYTES = 128 * 1024
_PIECE_BYTES = 16 * 1024
_BURIAL_SECONDS = 1.0


class TokenCommand:
    """A program whose standard output is one line with a token.

    Parameters
    ----------
    command : `tuple` [`str`, ...]
        The program and its arguments; no shell reads them.
    timeout_seconds : `float`
        How long it may run; then it is killed, with all the processes of its group.
    origin : `str`
        Which setting named it.

    Notes
    -----
    What it says on standard error is not kept, since it may hold the secret, and neither are its arguments
    shown. It has no terminal and no standard input: a question would have nobody to answer it.
    """

    def __init__(self, command: tuple[str, ...], timeout_seconds: float, origin: str) -> None:
        self._command = command
        self._timeout = timeout_seconds
        self._origin = f"{origin}: {os.path.basename(command[0])}"

    @hides_locals
    def __call__(self) -> Credential:
        """Run the program.

        Returns
        -------
        credential : `~.credential.Credential`
            The token that it printed.

        Raises
        ------
        CredentialError
            If it cannot be run, fails, takes too long, or prints something else.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own program
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it holds a null byte"
            raise self._error(f"cannot be run: {reason}") from None
        try:
            text = self._output(process)
        except BaseException:
            _kill(process)
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()
        lines = text.strip().splitlines()
        if len(lines) != 1:
            raise self._error(f"printed {len(lines)} lines in place of one" if lines else "printed nothing")
        return Credential.bearer(
            lines[0].strip(), self._origin, "run the command by hand to see what it prints"
        )

    def _output(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        end = time.monotonic() + self._timeout
        output = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise self._error(f"did not end within {self._timeout:g} s and was killed")
                piece = os.read(process.stdout.fileno(), _PIECE_BYTES)
                if not piece:
                    break
                output += piece
                if len(output) > _MAX_BYTES:
                    raise self._error(f"printed more than {_MAX_BYTES} bytes and was killed")
        try:
            status = process.wait(max(0.05, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._error(f"did not end within {self._timeout:g} s and was killed") from None
        if status != 0:
            how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            raise self._error(how)
        try:
            return output.decode("ascii")
        except UnicodeDecodeError:
            raise self._error("printed something that is no token") from None

    def _error(self, text: str) -> CredentialError:
        return CredentialError(
            f"the token command {text} ({self._origin})",
            hint="nothing was sent; run it by hand to see what it says",
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and whatever it started; it leads a process group of its own."""
    # It may have ended by itself, or be one that runs as another user.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_BURIAL_SECONDS)
