"""The files that a quantum graph begins with."""

from __future__ import annotations

from collections.abc import Iterator

from lsst.daf.butler import Butler
from lsst.pipe.base import QuantumGraph

from .dataset_files import stored_files

__all__ = ("graph_files",)


def graph_files(graph: str, repository: str) -> Iterator[str]:
    """Yield the files of all inputs that no quantum of the graph makes.

    Parameters
    ----------
    graph : `str`
        File of the graph, ``.qg`` or ``.qgraph``.
    repository : `str`
        The Butler repository that it was made for: folder, URL or alias.

    Yields
    ------
    url : `str`
        URL of a file, each once; what no datastore holds is left out.
    """
    refs, _ = QuantumGraph.loadUri(graph).get_refs(
        include_init_inputs=True, include_inputs=True, include_intermediates=False
    )
    with Butler.from_config(repository, writeable=False) as butler:
        yield from stored_files(butler, refs)
