"""Replace a run folder's run in a single rename, so that a crash leaves the old run or the new one.

`publish` writes a run's files into DIR/.new and then renames that folder to DIR/.ready.  From this
moment on DIR holds the new run.  Moving the files to their places may be interrupted at any point:
`current` finds a file that still waits, and the next writer finishes the moves.
"""

import errno
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gainlens.core.messages import cannot_write
from gainlens.results.lock import locked

RESULT: Final = "result.json"
NEW: Final = ".new"
READY: Final = ".ready"
_RUN, _FIGURES, _FIGURES_AT = "run", "figures", "figures_at"


@contextmanager
def run_folder(folder: Path) -> Generator[None]:
    """Hold a run folder for writing, after finishing or removing what an earlier writer began.

    Raises ValueError if another process holds the folder, or if it cannot be written.
    """
    with locked(folder):
        try:
            settle(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield


def check_writable(folder: Path) -> None:
    """Raise ValueError if a run folder cannot be made; leave nothing behind."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file: give --out another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written to: give --out another folder")


def publish(folder: Path, figure_folder: Path, write: Callable[[Path, Path], object]) -> list[Path]:
    """Replace a folder's run by what `write(run, figures)` writes into two empty folders.

    If the process is killed, the folder holds the old run or the new one (`current` finds it).
    Returns the files in their places.  Raises ValueError, and leaves the old run untouched, if the
    disk is full or if either folder cannot be written.
    """
    new = folder / NEW
    try:
        settle(folder)
        (new / _RUN).mkdir(parents=True)
        (new / _FIGURES).mkdir()
        write(new / _RUN, new / _FIGURES)
        at, base = figure_folder.absolute(), folder.absolute()
        within = (
            at.relative_to(base) if at.is_relative_to(base) else at
        )  # relative, so that the folder can be moved
        (new / _FIGURES_AT).write_text(str(within), encoding="utf-8")
        _check_room(figure_folder)
        _flush(new)
        new.rename(folder / READY)
        return settle(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def settle(folder: Path) -> list[Path]:
    """Move a finished run's files to their places, remove an unfinished run, and return the files.

    Call it only while holding the folder.  A second call does nothing.
    """
    shutil.rmtree(folder / NEW, ignore_errors=True)
    ready = folder / READY
    # The result goes last: a folder that has one is complete, also for readers without `current`.
    run = sorted(_files(ready / _RUN), key=lambda path: path.name == RESULT)
    placed = [_put(path, folder / path.relative_to(ready / _RUN)) for path in run]
    if figures := _files(ready / _FIGURES):
        at = folder / (ready / _FIGURES_AT).read_text("utf-8")
        placed += [_put(path, at / path.relative_to(ready / _FIGURES)) for path in figures]
    if ready.exists():
        shutil.rmtree(ready)
    return placed


def current(folder: Path, name: str) -> Path:
    """Return where a file of the folder's run is: in its place, or still waiting to be moved."""
    waiting = folder / READY / _RUN / name
    return waiting if waiting.is_file() else folder / name


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _put(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}")  # the figures lie on another file system
        shutil.copyfile(path, beside)
        beside.replace(target)
        path.unlink()
    return target


def _check_room(folder: Path) -> None:
    """Raise PermissionError now if a folder is not writable: nothing may fail after the rename."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _flush(folder: Path) -> None:
    """Flush files to the disk, so that a power cut cannot leave the rename without the files."""
    for path in (*_files(folder), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
