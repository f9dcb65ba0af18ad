"""One writer a run folder: a lock that the kernel releases with the process that holds it.

flock(2) on DIR/.lock, and not a file whose mere existence means "taken": after SIGKILL or a power
cut nobody has to clean up.  Not the filelock package either: it falls back to such a file where
flock is missing, and cannot say who holds the lock.  On NFS Linux passes flock on to the server;
a file system without locks is refused, since two writers would mix their results in it.
"""

import contextlib
import datetime
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Final

LOCK: Final = ".lock"
_ATTEMPTS: Final = 100

_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _let_go_in_child() -> None:
    """A forked worker shares its parent's locks, and would hold them beyond the parent's death."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run folder; it is made where it does not exist.

    Afterwards the lock file is gone, and so are the folders that were made and stayed empty.
    Raises ValueError, with one sentence, where another process holds the folder (who, and since
    when), and where it cannot be written or locked.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        handle = _acquire(folder)
        try:
            yield
        finally:
            if handle in _held:  # not so in a forked child: the lock is its parent's
                (folder / LOCK).unlink(missing_ok=True)  # while it is held: see _is_at
                _held.discard(handle)
                os.close(handle)
    finally:
        with contextlib.suppress(OSError):  # not empty, or another's by now
            for path in made:
                path.rmdir()


def _acquire(folder: Path) -> int:
    path = folder / LOCK
    while True:
        handle = _open(folder)
        try:
            _flock(folder, handle)
            if _is_at(path, handle):
                _sign(handle)
                _held.add(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open(folder: Path) -> int:
    for left in reversed(range(_ATTEMPTS)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            if left and isinstance(error, FileNotFoundError):
                continue  # another process removes the folder that it had made
            raise ValueError(
                f"cannot write into {folder}: {error.strerror}; give --out another folder"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _flock(folder: Path, handle: int) -> None:
    try:
        import fcntl
    except ImportError:
        raise ValueError(
            "a run folder is locked with flock, which this system lacks: on Windows run gainlens "
            "in the Windows Subsystem for Linux"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is being written by {_holder(handle)}: wait for it, or give --out another "
            "folder"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be locked ({error.strerror}): two runs could mix in it; give --out a "
            "folder on another file system"
        ) from error


def _is_at(path: Path, handle: int) -> bool:
    """Whether the locked file is still the one at `path`: its last holder may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    now = datetime.datetime.now(datetime.UTC)
    text = f"process {os.getpid()} on {socket.gethostname()} since {now:%Y-%m-%d %H:%M:%S} UTC"
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _holder(handle: int) -> str:
    text = os.pread(handle, 200, 0).decode(errors="replace")
    return text if text.isprintable() and text else "another process"
