"""Where results are: a local folder, or a folder at any address that fsspec knows."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs

from orchestrator.errors import ArchbenchError, EnvironmentFailure, InputError, ResultsFull


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


def is_full(error: BaseException) -> bool:
    """Whether it says, or comes from something that says, that no room is left for this user."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(seen, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        seen = seen.__cause__
    return False


def full(results: str) -> ResultsFull:
    """What to tell of a results folder without room."""
    room = ""
    path = local_path(results)
    if path is not None and os.path.isdir(path):
        usage = shutil.disk_usage(path)
        free, total = (amount / 2**20 for amount in (usage.free, usage.total))
        room = f": {free:,.2f} of {total:,.2f} MiB are free"
    return ResultsFull(
        f"no room is left for results{room}",
        path=results,
        hint="what is there is kept and may be read; make room, and the same command goes on",
    )


@contextmanager
def room_needed(results: str) -> Iterator[None]:
    """Turns what a full disk makes any writer beneath raise into :class:`ResultsFull`."""
    try:
        yield
    except ArchbenchError:
        raise
    except Exception as error:  # each library wraps what the disk said in its own
        if is_full(error):
            raise full(results) from error
        raise
