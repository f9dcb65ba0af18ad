"""Let one process at a time write a run folder.

The filelock package holds a kernel lock on DIR/.lock.  The lock ends with the process that holds
it, whatever ends that process.  filelock's fallback is off: a file whose mere existence means
"locked" would survive a killed run.
"""

import contextlib
import datetime
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gainlens.core.messages import cannot_write

LOCK: Final = ".lock"
_ATTEMPTS: Final = 100


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run folder, and make it if it does not exist.

    Afterwards the lock file is gone, and so are the folders that were made and stayed empty.
    Raises ValueError if another process holds the folder (which one, and since when), and if the
    folder cannot be written or locked.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    lock = FileLock(path, timeout=0, mode=0o644, fallback_to_soft=False, on_acquired=_sign)
    try:
        _acquire(lock, folder)
        try:
            yield
        finally:
            if lock.is_locked:  # not in a forked child, whose parent holds the lock
                path.unlink(missing_ok=True)  # filelock notices a lock file that was unlinked
                lock.release()
    finally:
        with contextlib.suppress(OSError):  # not empty, or another process holds it by now
            for parent in made:
                parent.rmdir()


def _acquire(lock: FileLock, folder: Path) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            return
        except FileNotFoundError as error:
            if not left:  # else another process just removed the folder that it had made
                raise cannot_write(folder, error) from error
        except Timeout:
            raise ValueError(
                f"{folder} is being written by {_holder(folder / LOCK)}: wait for it, or give "
                "--out another folder"
            ) from None
        except OSError as error:
            raise cannot_write(folder, error) from error


def _sign(descriptor: int) -> None:
    """Write into the lock file who holds it."""
    now = datetime.datetime.now(datetime.UTC)
    text = f"process {os.getpid()} on {socket.gethostname()} since {now:%Y-%m-%d %H:%M:%S} UTC"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = path.read_bytes()[:200].decode(errors="replace")
        if text and text.isprintable():
            return text
    return "another process"
