"""TODO: core.messages."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def check_one_of(what: str, value: object, known: Sequence[str]) -> None:
    """ValueError, with the names that there are, where a name is none of them."""
    if value not in known:
        raise ValueError(f"{what} is one of {', '.join(known)}; got {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "the nearest is ..." for an unknown name, or the list of names if none is near."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(names)}"


def shown(text: str, limit: int = 60) -> str:
    """Foreign text that is safe in a one-line message: printable, and cut."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if sign.isprintable() else "?" for sign in cut)
