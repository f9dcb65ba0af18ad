"""The table model: columns, most of them defined in the glossary, and rows of text.

A question gets one `Table`; the terminal and the page both show it.  The CSV files hold numbers at
full precision, so they are made from the records (`results.frames`), under the same keys.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from gainlens.core.glossary import GLOSSARY

NAME: Final = "model"
"""Key of the column that holds a model's name; the terminal shortens its cells."""


@dataclass(frozen=True)
class Column:
    """One column: the key of its definition, its head, and the text of its cell in a row."""

    key: str
    """key of core.glossary.GLOSSARY, "" for a head that explains itself"""
    head: str
    text: Callable[[Any], str]
    numeric: bool


@dataclass(frozen=True)
class Table:
    """One question's answer in rows.  Cells are plain text: a renderer escapes them."""

    id: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def word(key: str, text: Callable[[Any], str], head: str | None = None) -> Column:
    """Return a left-aligned column under its term's label, or under `head`."""
    return Column(key, head or GLOSSARY[key].label, text, numeric=False)


def number(key: str, text: Callable[[Any], str], head: str | None = None) -> Column:
    """Return a right-aligned column under its term's label, or under `head`."""
    return Column(key, head or GLOSSARY[key].label, text, numeric=True)


def column(head: str, text: Callable[[Any], str]) -> Column:
    """Return a left-aligned column whose head explains itself."""
    return Column("", head, text, numeric=False)


def fill(
    id: str, title: str, note: str, columns: Iterable[Column], records: Iterable[Any]
) -> Table:
    """Return the table that has one row per record."""
    columns = tuple(columns)
    rows = tuple(tuple(each.text(record) for each in columns) for record in records)
    return Table(id, title, note, columns, rows)
