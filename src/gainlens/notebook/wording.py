"""Say records in words: the table that the terminal and the page show, and the cells' forms."""

from dataclasses import dataclass
from typing import Final

from gainlens.notebook.record import Finding

FACTS: Final = ("", "value", "what it means")
"""Heads of a table of facts."""


@dataclass(frozen=True)
class Table:
    """One question's answer in rows.  Cells may hold text from the file: escape them for markup."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sentence(finding: Finding) -> str:
    """Return a contradiction as a sentence."""
    stated, recomputed = _plain(finding.stated), finding.recomputed
    if recomputed is None:
        return f"stated as {stated}, but the file has nothing to compute it from"
    return f"stated as {stated}, recomputed it is {_plain(recomputed)}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"


def three(value: float | None) -> str:
    """Return a ratio to three decimals, in powers of ten if it has none within three."""
    if value is None:
        return "unknown"
    return f"{value:.3f}" if 5e-4 <= value < 1e6 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{three(low)}, {three(high)}]"
