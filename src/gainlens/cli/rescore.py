"""Run `gainlens rescore`: result files -> what they can say, on the terminal and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gainlens.cli.flags import key_of


def rescore_file(file: Path, out: Path | None, quiet: bool) -> dict[str, Any]:
    """Write what an old result can say to DIR/result.json, and print it unless quiet."""
    from gainlens.notebook.rescore_tables import tables
    from gainlens.notebook.rescoring import rescore, to_json

    score = rescore(file)
    document = {"rescore": to_json(score)}
    folder = out or Path("runs") / f"rescore-{key_of(file.stem, [])}"
    _write(folder, document, () if quiet else tables(score))
    return document


def rescore_files(
    files: Sequence[Path], out: Path | None, quiet: bool
) -> tuple[dict[str, Any], int]:
    """Re-score several files and set the numbers of one model side by side.

    Returns the document, which is empty if no file could be re-scored, and the exit status: 2 if a
    file could not be, which one line on standard error names; the others are written nevertheless.
    """
    from gainlens.notebook.across_files import origins, side_by_side
    from gainlens.notebook.record import plain
    from gainlens.notebook.rescore_tables import origin_table, side_by_side_table, state_table
    from gainlens.notebook.rescored import Rescore
    from gainlens.notebook.rescoring import rescore, to_json

    scores: list[Rescore] = []
    refused = 0
    for file in files:
        try:
            scores.append(rescore(file))
        except ValueError as problem:
            refused += 1
            click.echo(f"error: {problem}", err=True)
    rows, copied = side_by_side(scores), origins(scores)
    document: dict[str, Any] = {}
    if scores:
        document = {
            "rescores": [to_json(score) for score in scores],
            "side_by_side": plain(rows),
            "copied": plain(copied),
        }
        made = (side_by_side_table(rows), origin_table(copied), state_table(scores))
        made = () if quiet else tuple(table for table in made if table.rows)
        _write(out or Path("runs") / "rescore", document, made)
    return document, 2 if refused else 0


def _write(folder: Path, document: dict[str, Any], made: Sequence[Any]) -> None:
    from gainlens.report.terminal import print_rescore
    from gainlens.results.files import write_json
    from gainlens.results.run_folder import RESULT, run_folder

    path = folder / RESULT
    with run_folder(folder):
        write_json(path, document)
    if made:
        print_rescore(made, path)
