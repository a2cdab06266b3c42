"""How a pool takes bytes, and what it leaves behind when that fails (protocol page, sections 3.5 and 3.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .checksum import Digester, MalformedDigestError, checksum_list, parse_content_md5
from .connection import BodyCutError
from .entry import Entry
from .namespace import EntryMissingError, Namespace

__all__ = ["Upload", "UploadRefusedError"]


class UploadRefusedError(Exception):
    """An upload that fails at its end.

    Parameters
    ----------
    status : `int`
        What the pool answers.
    reason : `str`
        Its reason phrase.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Upload:
    """One upload into an entry that exists already.

    Parameters
    ----------
    namespace : `Namespace`
        Where its end is recorded.
    entry : `Entry`
        The entry, still without size.
    pool : `str`
        The pool that gets the replica.
    announced : `int`
        Length that the door was told; binding if greater than zero.
    wanted : iterable of `str`
        Checksum types to compute beside adler32.
    expected : `dict` [`str`, `str`], optional
        Announced checksums, hex by type.
    keep : `int` or `None`
        Bytes after which everything is thrown away, calling that a success (a fault).
    """

    def __init__(
        self,
        namespace: Namespace,
        entry: Entry,
        pool: str,
        *,
        announced: int = 0,
        wanted: Iterable[str] = (),
        expected: dict[str, str] | None = None,
        keep: int | None = None,
    ) -> None:
        self._namespace, self._entry, self._pool = namespace, entry, pool
        self._announced, self._expected, self._keep = announced, dict(expected or {}), keep
        self._types = {*wanted, *self._expected}
        self._digester = Digester(self._types)
        self.size = 0
        self.checksums: dict[str, str] = {}

    def expect_md5(self, header: str) -> None:
        """Take the expected md5 from a ``Content-MD5``.

        Raises
        ------
        UploadRefusedError
            Raised if it is malformed.
        """
        try:
            self._expected["md5"] = parse_content_md5(header)
        except MalformedDigestError as exc:
            raise UploadRefusedError(
                400, f"Bad Content-MD5 header: java.lang.IllegalArgumentException: {exc}"
            ) from exc
        self._digester = Digester(self._types | {"md5"})

    def receive(self, pieces: Iterable[bytes]) -> None:
        """Write the bytes; after a cut what arrived stays, looks perfect and is marked broken.

        Raises
        ------
        BodyCutError
            Raised if the client went away.
        """
        try:
            self._namespace.content_of(self._entry).write(self._counted(pieces))
        except BodyCutError:
            self._give_up()
            raise

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for data in pieces:
            if self._keep is not None:
                data = data[: max(0, self._keep - self.size)]
            self._digester.update(data)
            self.size += len(data)
            yield data

    def _give_up(self) -> None:
        sums = self._digester.values()
        if self.size:
            self._leave({"adler32": sums["adler32"]})

    def _leave(self, sums: dict[str, str]) -> None:
        try:
            self._namespace.commit(self._entry, self.size, sums, self._pool, broken=True)
        except EntryMissingError:  # the entry is gone and nothing needs to be left
            return

    def commit(self) -> None:
        """Compare size and checksums and record the result in one update.

        Raises
        ------
        UploadRefusedError
            Raised with the pool's status and reason phrase. The entry stays, broken, unless it is gone.
        """
        sums = self._digester.values()
        if self._announced > 0 and self.size != self._announced and self._keep is None:
            self._leave({"adler32": sums["adler32"]})
            raise UploadRefusedError(
                400, f"File size mismatch (expected={self._announced}, actual={self.size})"
            )
        wrong = any(sums[kind] != value for kind, value in self._expected.items())
        if wrong and self._keep is None:
            self._leave(self._expected)  # the announced ones, and no others (protocol page, surprise 2)
            expected = checksum_list(self._expected)
            raise UploadRefusedError(
                400, f"Checksum mismatch (expected={expected}, actual={checksum_list(sums)})"
            )
        try:
            self._namespace.commit(self._entry, self.size, sums, self._pool)
        except EntryMissingError as exc:
            raise UploadRefusedError(500, str(exc)) from exc
        self.checksums = sums
