"""What the page's tables are made of: tables of text cells, defined columns, written numbers."""

from dataclasses import dataclass
from math import exp, isfinite

from gainlens.columns import DEFINITIONS
from gainlens.records import Interval


@dataclass(frozen=True)
class Column:
    """A column's head, and the key of columns.DEFINITIONS that defines it."""

    head: str
    definition: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """One table; the first cell of a row names it.  Cells are plain text, not yet escaped."""

    id: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    """shown on demand: long"""


def column(definition: str, head: str | None = None, *, numeric: bool = True) -> Column:
    """A column under its term's own label, unless another head says it better."""
    return Column(head or DEFINITIONS[definition].label, definition, numeric)


def ratio(interval: Interval) -> str:
    """An interval on log gain as a gain: 1.080 [1.071, 1.089], or why it is not known."""
    if not isfinite(interval.estimate):
        return f"unknown: {interval.status}"
    if not isfinite(interval.low):
        return f"{exp(interval.estimate):.3f} ({interval.status})"
    return f"{exp(interval.estimate):.3f} [{exp(interval.low):.3f}, {exp(interval.high):.3f}]"


def nats(interval: Interval) -> str:
    """An interval in nats, signed."""
    if not isfinite(interval.low):
        return f"{signed(interval.estimate)} ({interval.status})"
    return f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def signed(value: float | None, digits: int = 4) -> str:
    """A number with its sign; `unknown` for NaN."""
    return f"{value:+.{digits}f}" if value is not None and isfinite(value) else "unknown"


def plain(value: float | None, form: str = ",.6g") -> str:
    """A number; `unknown` for NaN and None."""
    return format(value, form) if value is not None and isfinite(value) else "unknown"


def yes_no(value: bool | None) -> str:
    """A truth value in words."""
    return "unknown" if value is None else "yes" if value else "no"
