"""A run folder changes from one whole run to the next in a single rename.

A run's files are written into DIR/.new; one rename of that to DIR/.ready is the moment from which
the folder holds the new run.  What follows, moving its files to their places, may be cut short at
any point: `current` finds a file that still waits, and the next writer finishes the moves.
"""

import errno
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gainlens.results.lock import locked

RESULT: Final = "result.json"
NEW: Final = ".new"
READY: Final = ".ready"
_RUN, _FIGURES, _FIGURES_AT = "run", "figures", "figures_at"


@contextmanager
def run_folder(folder: Path) -> Generator[None]:
    """Hold a run folder for writing, with what an earlier writer began finished or cleared away.

    Raises ValueError where another process holds it, or where it cannot be written.
    """
    with locked(folder):
        try:
            settle(folder)
        except OSError as error:
            raise _sentence(folder, error) from error
        yield


def publish(folder: Path, figure_folder: Path, write: Callable[[Path, Path], object]) -> list[Path]:
    """Replace a folder's run by what `write(run, figures)` writes into two empty folders.

    Killed at any moment, the folder holds the run before or the new one (`current`).  Returns the
    files in their places.  ValueError, with one sentence and the old run untouched, where the disk
    is full or either folder cannot be written.
    """
    new = folder / NEW
    try:
        settle(folder)
        (new / _RUN).mkdir(parents=True)
        (new / _FIGURES).mkdir()
        write(new / _RUN, new / _FIGURES)
        at, base = figure_folder.absolute(), folder.absolute()
        within = at.relative_to(base) if at.is_relative_to(base) else at  # a folder can be moved
        (new / _FIGURES_AT).write_text(str(within), encoding="utf-8")
        _check_room(figure_folder)
        _flush(new)
        new.rename(folder / READY)
        return settle(folder)
    except OSError as error:
        raise _sentence(folder, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def settle(folder: Path) -> list[Path]:
    """Move a finished run's files to their places and forget an unfinished one; the files moved.

    Only for who holds the folder.  Done twice it does nothing more.
    """
    shutil.rmtree(folder / NEW, ignore_errors=True)
    ready = folder / READY
    # The result last: who finds one in a new folder without asking `current` finds all of it.
    run = sorted(_files(ready / _RUN), key=lambda path: path.name == RESULT)
    placed = [_put(path, folder / path.relative_to(ready / _RUN)) for path in run]
    if figures := _files(ready / _FIGURES):
        at = folder / (ready / _FIGURES_AT).read_text("utf-8")
        placed += [_put(path, at / path.relative_to(ready / _FIGURES)) for path in figures]
    if ready.exists():
        shutil.rmtree(ready)
    return placed


def current(folder: Path, name: str) -> Path:
    """Where a file of the folder's run is: in its place, or still waiting to be moved there."""
    waiting = folder / READY / _RUN / name
    return waiting if waiting.is_file() else folder / name


def _sentence(folder: Path, error: OSError) -> ValueError:
    what = str(error.strerror or error).partition("\n")[0]
    return ValueError(
        f"cannot write {error.filename or folder}: {what}; make room there or give --out another "
        "folder"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _put(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}")  # figures on another file system
        shutil.copyfile(path, beside)
        beside.replace(target)
        path.unlink()
    return target


def _check_room(folder: Path) -> None:
    """After the rename nothing may fail that could have failed before it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _flush(folder: Path) -> None:
    """To the disk: a power cut must not leave the rename without the files."""
    for path in (*_files(folder), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
