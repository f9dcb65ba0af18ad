"""Print a comparison: the answer, one table, the doubts, the paths, and the answer again.

The width is that of the terminal, or COLUMNS, or 100 columns in a pipe.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from gainlens.core.names import shortened_apart
from gainlens.core.table import NAME, Table
from gainlens.records.comparison import Comparison
from gainlens.report.answer import answer, difference, doubts
from gainlens.report.run import Run
from gainlens.report.tables import last_block, supporting

_COLOURS: Final = {
    "CONFIRMED": "green",
    "REJECTED": "red",
    "UNEXPECTED": "red",
    "INVERTED": "red",
}
_PIPE_WIDTH: Final = 100
_DOUBT_LINES: Final = 2
"""Lines that a doubt takes at most; --verbose shows it whole."""
_GAP: Final = 2
"""Columns between two cells."""
_NAME: Final = 12
"""Least width of a model's name; a table that is still too wide wraps its words."""


def console_of() -> Console:
    """Return standard output, as wide as the terminal or COLUMNS, or 100 columns in a pipe."""
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, width=_PIPE_WIDTH)


def print_answer(comparison: Comparison, console: Console | None = None) -> None:
    """Print the answer's line alone."""
    colour = _COLOURS.get(comparison.verdict.outcome, "yellow")
    text = f"[bold {colour}]{escape(answer(comparison.verdict))}[/]"
    (console or console_of()).print(text, soft_wrap=console is None)


def print_comparison(
    comparison: Comparison, written: Sequence[Path], *, verbose: bool = False
) -> None:
    """Print the answer with what it rests on; `verbose` adds every reason and every table."""
    console = console_of()
    print_answer(comparison, console)
    console.print()
    _print_table(console, last_block(comparison))
    console.print(_wrapped(difference(comparison.verdict), console))
    console.print()
    if verbose:
        _print_everything(console, comparison)
    else:
        console.print("[bold]Doubts[/]")
        for line in doubts(comparison):
            console.print(_wrapped(line, console, "- ", _DOUBT_LINES))
    _print_paths(console, comparison, written)
    print_answer(comparison, console)


def print_measurement(run: Run, written: Sequence[Path], *, verbose: bool = False) -> None:
    """Print what was measured without a claim; `verbose` adds every table."""
    console = console_of()
    _print_table(console, last_block(run))
    console.print()
    for table in supporting(run) if verbose else ():
        _print_table(console, table)
        console.print()
    _print_paths(console, run, written)


def _wrapped(sentence: str, console: Console, first: str = "", most: int | None = None) -> str:
    """Return the sentence in at most `most` lines, the later ones below the first one's words."""
    return escape(
        fill(
            sentence,
            console.width,
            initial_indent=first,
            subsequent_indent=" " * (len(first) or _GAP),
            max_lines=most,
            placeholder=" …",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _print_everything(console: Console, comparison: Comparison) -> None:
    verdict = comparison.verdict
    _print_sentences(console, "Doubts", doubts(comparison))
    _print_sentences(console, "Why", verdict.reasons)
    _print_sentences(console, "Other ways of measuring", map(str, verdict.dissent))
    _print_sentences(console, "Undecided", (cell.name for cell in verdict.undecided))
    _print_sentences(console, "Attribution", [verdict.attribution_note])
    for table in supporting(comparison):
        _print_table(console, table)
        console.print()


def _print_sentences(console: Console, title: str, sentences: Iterable[str]) -> None:
    lines = [line for line in sentences if line]
    if lines:
        console.print(f"[bold]{title}[/]")
        for line in lines:
            console.print(_wrapped(line, console, "- "))
        console.print()


def _print_paths(console: Console, run: Run, written: Sequence[Path]) -> None:
    """Print the page and the folders, without wrapping: a path can then be copied whole."""
    page = [path for path in written if path.suffix == ".html"]
    folders = dict.fromkeys(str(path.parent) for path in written)
    console.print()
    console.print(f"Measured in {run.seconds:.1f} s; --verbose shows every number behind it.")
    for title, paths in (("Page", map(str, page)), ("Files", [", ".join(folders)])):
        for path in paths:
            console.print(f"{title:<6}{escape(path)}", soft_wrap=True)


def rich_table(table: Table, width: int) -> RichTable:
    """Return the table for rich: numbers never wrap, and names are cut so that they stay apart."""
    made = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), collapse_padding=True)
    columns = [list(cells) for cells in zip(*table.rows, strict=True)] or [
        [] for _ in table.columns
    ]
    widths = [
        max(len(line) for line in (column.head, *cells))
        for column, cells in zip(table.columns, columns, strict=True)
    ]
    for place, column in enumerate(table.columns):
        if column.key == NAME:
            room = width - sum(widths) + widths[place] - _GAP * (len(widths) - 1)
            columns[place] = shortened_apart(columns[place], max(room, _NAME))
        made.add_column(
            escape(column.head),
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric or column.key == NAME,
            overflow="ellipsis" if column.numeric else "fold",
        )
    for row in zip(*columns, strict=True):
        made.add_row(*map(escape, row))
    return made


def _print_table(console: Console, table: Table) -> None:
    note = f": {escape(table.note)}" if table.note else ""
    console.print(f"[bold]{escape(table.title)}[/]{note}")
    console.print(rich_table(table, console.width))


def print_rescore(tables: Sequence[Table], path: Path) -> None:
    """Print the tables of re-scored files, and where they are written in full."""
    console = console_of()
    for table in tables:
        _print_table(console, table)
        console.print()
    console.print(f"Written to {escape(str(path))}", soft_wrap=True)
