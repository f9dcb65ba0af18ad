"""A comparison -> its run folder: figures, tables, page, and result.json last.  No torch.

result.json comes last, so that a folder with a result has everything that belongs to it.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gainlens import figures
from gainlens.attribution import shipped_curves
from gainlens.frames import write_tables
from gainlens.page import PAGE, page_html
from gainlens.records import Comparison
from gainlens.spec import REFERENCE_ROWS
from gainlens.store import (
    HEADS,
    RESULT,
    TOKENS,
    replace_file,
    result_json,
    write_heads,
    write_json,
    write_tokens,
)

HEADLINE = "headline"


def check_writable(folder: Path) -> None:
    """ValueError with one sentence where a run folder cannot be made; leaves nothing behind."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file: give --out another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written to: give --out another folder")


def drawings(comparison: Comparison) -> dict[str, Callable[[], Axes | Figure]]:
    """Every figure of a comparison by file name, drawn when called."""
    reports, verdict = comparison.reports, comparison.verdict
    rule = comparison.spec.rule
    norms = {key: figures.class_norms(item) for key, item in comparison.decompositions.items()}
    drawn: dict[str, Callable[[], Axes | Figure]] = {
        HEADLINE: lambda: figures.headline(reports, verdict, rule=rule),
        "notebook": lambda: figures.notebook_figure(reports, REFERENCE_ROWS),
        "gain_curve": lambda: figures.gain_curve(reports),
        "verdict_forest": lambda: figures.verdict_forest(reports, rule=rule),
        "massive_lifecycle": lambda: figures.massive_lifecycle(reports, norms),
        "gain_by_position": lambda: figures.gain_by_position(reports, comparison.decompositions),
        "unembed_spectrum": lambda: figures.unembed_spectrum(reports),
        "rope_wavelengths": lambda: figures.rope_wavelengths(reports),
    }
    if verdict.attribution:
        drawn["attribution"] = lambda: figures.attribution(verdict)
    if curves := shipped_curves(comparison.spec):
        drawn["training"] = lambda: figures.training_figure(dict(curves))
    return drawn


def write_run(folder: Path, figure_folder: Path, comparison: Comparison) -> list[Path]:
    """Write everything of one run; returns what was written, result.json last."""
    drawn: list[Path] = []
    with ThreadPoolExecutor(1) as beside:  # compression needs no interpreter, drawing does
        tokens = beside.submit(
            replace_file, folder / TOKENS, lambda path: write_tokens(path, comparison)
        )
        for name, draw in drawings(comparison).items():
            drawn += figures.save(draw(), figure_folder, name, formats=("png", "svg"))
        vector = {path.stem: path.read_text("utf-8") for path in drawn if path.suffix == ".svg"}
        html = page_html(comparison, vector)
        tokens.result()
    replace_file(folder / HEADS, lambda path: write_heads(path, comparison))
    tables = write_tables(folder, comparison)
    replace_file(folder / PAGE, lambda path: path.write_text(html, encoding="utf-8"))
    write_json(folder / RESULT, result_json(comparison))
    return [*drawn, *tables, *(folder / name for name in (TOKENS, HEADS, PAGE, RESULT))]
