"""Write a run folder: figures, tables, page and result.json, all in one step.  No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gainlens import figures
from gainlens.claims.training_table import shipped_curves
from gainlens.figures.files import save_with_page
from gainlens.notebook.published import REFERENCE_ROWS
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.report.captions import FIGURES
from gainlens.report.explorer import Explored, explored
from gainlens.report.page import PAGE, page_html
from gainlens.results.files import write_json
from gainlens.results.frames import TABLES, write_tables
from gainlens.results.parquet import HEADS, TOKENS, TokenTable, write_heads
from gainlens.results.result_json import result_json
from gainlens.results.run_folder import RESULT, publish
from gainlens.runs.workers import Workers, in_order

_FORMATS = ("png", "svg")
_OF_TOKENS = ("massive_lifecycle", "gain_by_position")
"""Figures that are drawn of tokens; the others are begun before the tokens are read."""


@dataclass(frozen=True)
class Drawn:
    """Hold what is drawn of one model's tokens; it is small, however many tokens there are."""

    norms: figures.ClassNorms
    quartiles: np.ndarray
    """from figures.position_quartiles"""


def drawings(
    comparison: Comparison, drawn: Mapping[str, Drawn]
) -> dict[str, Callable[[], Axes | Figure]]:
    """Return functions that draw the figures of a comparison, by file name."""
    reports, verdict = comparison.reports, comparison.verdict
    rule = comparison.spec.rule
    norms = {key: one.norms for key, one in drawn.items()}
    quartiles = {key: one.quartiles for key, one in drawn.items()}
    found: dict[str, Callable[[], Axes | Figure]] = {
        "headline": lambda: figures.headline(reports, verdict, rule=rule),
        "splits": lambda: figures.splits(reports),
        "notebook": lambda: figures.notebook_figure(reports, REFERENCE_ROWS),
        "gain_curve": lambda: figures.gain_curve(reports),
        "verdict_forest": lambda: figures.verdict_forest(reports, rule=rule),
        "massive_lifecycle": lambda: figures.massive_lifecycle(reports, norms),
        "gain_by_position": lambda: figures.gain_by_position(reports, quartiles),
        "unembed_spectrum": lambda: figures.unembed_spectrum(reports),
        "rope_wavelengths": lambda: figures.rope_wavelengths(reports),
    }
    done = {report.checkpoint.name: report.interventions for report in reports}
    sweeps = {key: one.sweep for key, one in done.items()}
    for how in sorted({effect.how for sweep in sweeps.values() for effect in sweep}):
        found[f"ablation_{how}"] = partial(figures.ablation_heatmap, reports, sweeps, how)
    doses = {key: one.theta_dose for key, one in done.items()}
    if any(doses.values()):
        found["theta_dose"] = lambda: figures.theta_dose(reports, doses)
    if verdict.attribution:
        found["attribution"] = lambda: figures.attribution(verdict)
    if curves := shipped_curves(comparison.spec):
        found["training"] = lambda: figures.training_figure(dict(curves))
    return found


def write_run(
    folder: Path, figure_folder: Path, comparison: Comparison, workers: Workers | None = None
) -> list[Path]:
    """Write everything of one run; the folder holds the run before or this one, never a mixture.

    Figures and tables that only an earlier run had are removed.  `workers` draw their share of the
    figures.  Returns what was written.  Raises ValueError, in one sentence, if a file cannot be
    written.
    """
    written = publish(folder, figure_folder, partial(_write, comparison, workers or Workers()))
    kept = {path.absolute() for path in written}
    ours = [figure_folder / f"{name}.{kind}" for name in FIGURES for kind in _FORMATS]
    for path in [*ours, *(folder / f"{name}.csv" for name in TABLES)]:
        if path.absolute() not in kept:
            path.unlink(missing_ok=True)
    return written


def _write(comparison: Comparison, workers: Workers, folder: Path, figure_folder: Path) -> None:
    small = replace(comparison, captures={}, decompositions={})
    names = list(drawings(small, {}))
    begun = [
        workers.begin(partial(_save_figure, small, {}, figure_folder, name))
        for name in names
        if name not in _OF_TOKENS
    ]
    drawn: dict[str, Drawn] = {}
    shown: dict[str, Explored] = {}
    sinks: list[tuple[ModelReport, np.ndarray | None]] = []
    with TokenTable(folder / TOKENS) as tokens:
        for report in comparison.reports:  # one after the other: two models may not fit
            key = report.checkpoint.name
            capture, decomposition = comparison.captures[key], comparison.decompositions[key]
            tokens.add(report, decomposition)
            drawn[key] = Drawn(
                figures.class_norms(decomposition), figures.position_quartiles(decomposition)
            )
            shown[key] = explored(comparison, report, decomposition)
            sinks.append((report, capture.sink))
            del capture, decomposition
    vector: dict[str, str] = {}
    for name in (name for name in names if name in _OF_TOKENS):
        vector |= _save_figure(small, drawn, figure_folder, name)
    for wait in reversed(begun):  # the workers begin with the first, this process with the last
        vector |= wait()
    html = page_html(comparison, in_order(vector, names), shown)
    write_heads(folder / HEADS, sinks)
    write_tables(folder, comparison)
    (folder / PAGE).write_text(html, encoding="utf-8")
    write_json(folder / RESULT, result_json(comparison))


def _save_figure(
    comparison: Comparison, drawn: Mapping[str, Drawn], folder: Path, name: str
) -> dict[str, str]:
    return save_with_page({name: drawings(comparison, drawn)[name]}, folder)
