"""Name files, and shorten names so that they fit a width and stay apart."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CLAIM_FIGURE: Final = "claim_"
"""Begins the file name of a claim's own figure; the claim's name follows."""


def shortened(name: str, width: int = 30) -> str:
    """Return a name in at most `width` characters: first without its owner, then cut inside."""
    name = " ".join(name.split())
    if len(name) > width:
        name = name.rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) <= width else _cut(name, width, (width - 1) * 3 // 5)


def shortened_apart(names: Sequence[str], width: int) -> list[str]:
    """Return the names in at most `width` characters, cut in the middle and still distinct.

    All names are cut at the same distance from their start, at the one nearest to three fifths that
    keeps them distinct.  If none does, a number replaces the end of every name that repeats.
    """
    preferred = (width - 1) * 3 // 5
    whole = [shortened(name, max(map(len, names), default=0)) for name in names]
    for head in sorted(range(1, width - 1), key=lambda head: abs(head - preferred)):
        cut = [_cut(name, width, head) for name in whole]
        if len(set(cut)) == len(set(names)):
            return cut
    return [
        f"{_cut(name, width - 3, preferred)}~{sorted(set(names)).index(name) + 1}" for name in whole
    ]


def _cut(name: str, width: int, head: int) -> str:
    if len(name) <= width:
        return name
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def key_of(source: str, taken: Sequence[str]) -> str:
    """Return the last part of a model's name as a safe file name that is not taken yet."""
    key = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name).strip(".-") or "model"
    number = 2
    while (numbered := key if number == 2 and key not in taken else f"{key}-{number}") in taken:
        number += 1
    return numbered
