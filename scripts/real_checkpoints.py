"""Draw the notebook's number and the last block's gain of the twins and of the real checkpoints."""

import csv
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from gainlens.figures.style import TWO_COLUMNS, across, legend_above, new_figure, styled, threshold
from gainlens.records.comparison import ModelReport

ROWS = Path(__file__).parents[1] / "src/gainlens/data/real_models.csv"
_NOTEBOOK, _BLOCK = "#D55E00", "#0072B2"


class Row(NamedTuple):
    """Hold what one model gives by the notebook's rule, and before the final norm."""

    name: str
    notebook: float
    gain: float
    low: float
    high: float


def twin_rows(reports: tuple[ModelReport, ...]) -> list[Row]:
    """Return a row per model of a comparison."""
    return [
        Row(
            f"twin {report.checkpoint.name}",
            report.residual.last_gain,
            last.gain,
            last.low,
            last.high,
        )
        for report in reports
        for last in report.blocks[-1:]
    ]


def real_rows() -> list[Row]:
    """Return a row per real checkpoint; each was rounded to 4 bits, and its name says so."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        found = {row["model"]: row for row in csv.DictReader(file)}
    numbers = ("notebook_last_gain", "last_block_gain", "low", "high")
    return [
        Row(f"{name}, 4-bit", *(float(row[number]) for number in numbers))
        for name, row in found.items()
    ]


@styled
def real_checkpoints_figure(rows: list[Row]) -> Figure:
    """Draw both numbers of every model on one logarithmic axis; 1 is no change."""
    figure = new_figure(TWO_COLUMNS, 0.5 + 0.28 * len(rows))
    ax = figure.subplots()
    places = range(len(rows), 0, -1)
    ax.scatter(
        [row.notebook for row in rows], places, marker="D", s=22, facecolors="none",
        edgecolors=_NOTEBOOK, label="the notebook's number, after the final norm",
    )  # fmt: skip
    ax.errorbar(
        [row.gain for row in rows], places, fmt="o", ms=4, color=_BLOCK,
        xerr=[[row.gain - row.low for row in rows], [row.high - row.gain for row in rows]],
        label="gain of the last block on ordinary tokens, 95 % interval",
    )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_yticks(places, [row.name for row in rows])
    ax.set_xlabel(f"gain (ratio):{' ' if across(2) == 2 else chr(10)}above 1 the stream grows")
    threshold(ax, 1.0, along="y")
    legend_above(ax, outside=True)
    return figure
