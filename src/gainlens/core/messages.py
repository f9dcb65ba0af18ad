"""TODO: core.messages."""

from collections.abc import Sequence


def check_one_of(what: str, value: object, known: Sequence[str]) -> None:
    """ValueError, with the names that there are, where a name is none of them."""
    if value not in known:
        raise ValueError(f"{what} is one of {', '.join(known)}; got {value!r}")


def shown(text: str, limit: int = 60) -> str:
    """Foreign text that is safe in a one-line message: printable, and cut."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(sign if sign.isprintable() else "?" for sign in cut)
