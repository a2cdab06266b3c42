"""Claiming ``dav://`` and ``davs://`` of `lsst.resources`, and giving them back.

`lsst.resources` has no registry of schemes: its factory imports ``DavResourcePath`` from the module
``lsst.resources.dav`` each time that it makes an object. Whoever sets that name owns the scheme. Importing
the module takes a quarter of a second in a bare process and reads the site's configuration, so while nobody
needs anything else of it, a stand-in has its place (see the decision "claiming the scheme").
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from .config.switches import registration_wanted

__all__ = ("register", "register_by_default", "registered", "unregister")

_MODULE = "lsst.resources.dav"
_CLASS = "DavResourcePath"

_lock = threading.RLock()
_incumbent: type | None = None
"""Class that was replaced in upstream's module, once that is loaded."""


class _StandIn(ModuleType):
    """Has the one name that the factory asks for, and becomes the real module when asked for another."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Questions of the import system must not trigger an import.
            raise AttributeError(name)
        return getattr(_load_upstream(), name)


def register() -> None:
    """Make this package the owner of ``dav://`` and ``davs://`` in this process.

    Raises
    ------
    ImportError
        If `lsst.resources` is not installed.

    Notes
    -----
    Objects that exist keep their class. May be called any number of times, from any thread.
    """
    # Neither can be imported where the stack is not installed, and this module is imported everywhere.
    ours = importlib.import_module("lsst.daf.butler_dcache.resource_path").DcacheResourcePath
    package = importlib.import_module("lsst.resources")
    with _lock:
        if _MODULE not in sys.modules:
            module = _StandIn(_MODULE, "Stand-in of lsst.daf.butler_dcache; loads the real module on demand.")
            setattr(module, _CLASS, ours)
            package.dav = module  # type: ignore[attr-defined]
            sys.modules[_MODULE] = module
        else:
            # Another thread may be importing it.
            _replace(importlib.import_module(_MODULE), ours)


def unregister() -> None:
    """Give ``dav://`` and ``davs://`` back to `lsst.resources`; objects that exist keep their class."""
    global _incumbent
    with _lock:
        module = sys.modules.get(_MODULE)
        if isinstance(module, _StandIn):
            del sys.modules[_MODULE]
            package = sys.modules["lsst.resources"]
            if getattr(package, "dav", None) is module:
                del package.dav
            # Who kept the stand-in finds upstream's class behind it.
            delattr(module, _CLASS)
        elif module is not None and _incumbent is not None:
            setattr(module, _CLASS, _incumbent)
            _incumbent = None


def registered() -> bool:
    """Return whether this package owns ``dav://`` and ``davs://`` in this process.

    Returns
    -------
    registered : `bool`
        `True` if the next `lsst.resources.ResourcePath` of these schemes is ours.
    """
    found = getattr(sys.modules.get(_MODULE), _CLASS, None)
    return found is not None and found.__module__ == "lsst.daf.butler_dcache.resource_path"


def register_by_default() -> None:
    """Register if `lsst.resources` is installed, unless ``DAF_BUTLER_DCACHE_REGISTER`` says ``no``.

    Notes
    -----
    This is what importing the package does.
    """
    if registration_wanted() and _is_installed():
        register()


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("lsst.resources") is not None
    except ModuleNotFoundError:
        return False


def _replace(module: ModuleType, ours: type) -> None:
    global _incumbent
    current: type = getattr(module, _CLASS)
    if current is not ours:
        _incumbent = current
        setattr(module, _CLASS, ours)


def _load_upstream() -> ModuleType:
    """Load upstream's module beside the stand-in, and put it in its place with our class in it."""
    with _lock:
        module = sys.modules.get(_MODULE)
        if not isinstance(module, _StandIn):
            return importlib.import_module(_MODULE)
        ours = getattr(module, _CLASS)
        package = sys.modules["lsst.resources"]
        spec = PathFinder.find_spec(_MODULE, package.__path__)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {_MODULE!r}", name=_MODULE)
        real = importlib.util.module_from_spec(spec)
        # Other threads go on making our objects meanwhile: the stand-in is still in its place.
        spec.loader.exec_module(real)
        _replace(real, ours)
        sys.modules[_MODULE] = real
        package.dav = real  # type: ignore[attr-defined]
        return real
