"""What the page's tables are made of: tables of text cells and defined columns."""

from dataclasses import dataclass

from gainlens.core.glossary import DEFINITIONS


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
