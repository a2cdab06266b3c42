"""The files of datasets that a Butler repository holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lsst.daf.butler import Butler, ButlerUserError, DatasetRef

from .errors import ConfigurationError

__all__ = ("query_files", "stored_files")

_REFS = 10_000


def query_files(
    repository: str,
    dataset_types: Sequence[str],
    *,
    collections: Sequence[str],
    where: str = "",
    find_first: bool = False,
) -> Iterator[str]:
    """Yield the files of the datasets that a query finds, as ``butler query-datasets`` would.

    Parameters
    ----------
    repository : `str`
        The Butler repository: folder, URL or alias.
    dataset_types : `~collections.abc.Sequence` [ `str` ]
        Names of dataset types; ``*`` stands for any text.
    collections : `~collections.abc.Sequence` [ `str` ]
        Where to look; likewise.
    where : `str`, optional
        Condition in the language of the Butler.
    find_first : `bool`, optional
        Whether of datasets with one data ID only that of the first collection counts.

    Yields
    ------
    url : `str`
        URL of a file.

    Raises
    ------
    ConfigurationError
        Raised if there are no such collections, or the condition cannot be understood.
    """
    with Butler.from_config(repository, writeable=False) as butler:
        try:
            refs = butler.query_all_datasets(
                list(collections), name=list(dataset_types), where=where, find_first=find_first, limit=None
            )
        except ButlerUserError as error:
            raise ConfigurationError(f"the Butler refuses the query: {error}") from error
        yield from stored_files(butler, refs)


def stored_files(butler: Butler, refs: Iterable[DatasetRef]) -> Iterator[str]:
    """Yield the files of datasets, as far as the datastore has them.

    Parameters
    ----------
    butler : `~lsst.daf.butler.Butler`
        The repository.
    refs : `~collections.abc.Iterable` [ `~lsst.daf.butler.DatasetRef` ]
        The datasets.

    Yields
    ------
    url : `str`
        URL of a file, each once and in the order of their names, which is that of the next time too. The
        datastore's records say it; no server is asked.
    """
    # A component lies in the file of the whole, and may be wanted beside it.
    wanted = {ref.id: ref.makeCompositeRef() if ref.isComponent() else ref for ref in refs}
    whole = list(wanted.values())
    urls: set[str] = set()
    for start in range(0, len(whole), _REFS):
        found = butler.get_many_uris(whole[start : start + _REFS], allow_missing=True)
        urls.update(uri.geturl().partition("#")[0] for uris in found.values() for uri in uris.iter_all())
    yield from sorted(urls)
