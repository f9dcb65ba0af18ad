"""Build the sentences that several errors share."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


def check_one_of(what: str, value: object, known: Sequence[str]) -> None:
    """Raise ValueError, with the known names, if a name is not one of them."""
    if value not in known:
        raise ValueError(f"{what} is one of {', '.join(known)}; got {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "the nearest is ..." for an unknown name, or the list of names if none is near."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(names)}"


def shown(text: str, limit: int = 60) -> str:
    """Return foreign text made safe for a one-line message: printable, and cut to a limit."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if sign.isprintable() else "?" for sign in cut)


def cannot_write(path: Path, error: OSError) -> ValueError:
    """Return the error for a file or folder that cannot be written."""
    reason = str(error.strerror or error).partition("\n")[0]
    return ValueError(
        f"cannot write {error.filename or path}: {reason}; make room there or give --out another "
        "folder"
    )
