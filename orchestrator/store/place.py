"""Where results are: a local folder, or a folder at any address that fsspec knows."""

from __future__ import annotations

import os
from typing import Any

import pyarrow.fs

from orchestrator.errors import EnvironmentFailure, InputError


def opened(results: str) -> tuple[Any, str]:
    """The Arrow file system of ``results`` and the root within it.

    Raises InputError for what cannot be the address of a folder.
    """
    path = local_path(results)
    if path is not None:
        if not path:
            raise InputError(f"{results!r} is no folder", path="--results", hint="write . for here")
        return pyarrow.fs.LocalFileSystem(), os.path.abspath(path)
    try:
        import fsspec  # type: ignore[import-untyped]

        files, root = fsspec.core.url_to_fs(results)
    except (ImportError, ValueError) as error:
        hint = "a folder, or the address of a file system that fsspec knows"
        raise InputError(str(error), path=results, hint=hint) from error
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), root.rstrip("/")


def local_path(results: str) -> str | None:
    """The path of a folder on this machine, None for an address elsewhere."""
    scheme, address, path = results.partition("://")
    if not address:
        return results
    return path if scheme in {"file", "local"} else None


def check_writable(results: str) -> None:
    """Tell before a run, and without leaving a trace, that its results could not be kept.

    Raises InputError where a file is in the way, EnvironmentFailure where writing is not
    allowed. Of places that are not local only writing itself can tell.
    """
    path = local_path(results)
    if path is None:
        return
    folder = os.path.abspath(path)
    while not os.path.exists(folder):  # the folder is made with its parents
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is a file", path=results, hint="results go to a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentFailure(
            f"{folder} may not be written", path=results, hint="give another folder by --results"
        )
