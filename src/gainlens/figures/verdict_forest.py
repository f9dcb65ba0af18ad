"""The last block under every way of measuring it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES
from gainlens.figures.style import (
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    axes_or_new,
    label,
    log_axis,
    looks,
    name_of,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.verdict import GainCell

_LENGTHS: Final = {
    "all": (0.0, 3.8, "full"),
    "short": (0.13, 2.4, "full"),
    "long": (0.24, 2.4, "none"),
}
"""Offset within a row, marker size and filling, by the half of the prompts."""

_NORM_PANELS: Final = {
    False: "before the final norm",
    True: "after the final norm (blind to the block)",
}


@styled
def verdict_forest(
    reports: Sequence[ModelReport], ax: Axes | None = None, *, rule: Rule | None = None
) -> Axes:
    """Last-block gain with its interval in every cell: token class x reduction x prompt length.

    Left before the final norm, right after it (each with its own scale); in every row the short
    model above the long one, each on all prompts, their short and their long half.  Where there are
    more than two reports the short and the long one are drawn.  The row of the primary estimand of
    `rule` (Rule() where not given) is shaded.  `ax` is a frame: it is emptied and the two panels
    are laid into it.  Cells without data are left empty.
    """
    frame = axes_or_new(ax, TWO_COLUMNS, 6.6)
    frame.set_axis_off()
    styles = dict(zip((id(report) for report in reports), looks(reports), strict=True))
    pair = [report for report in reports if len(reports) <= 2 or report.role in ("short", "long")]
    pair.sort(key=lambda report: report.role != "short")
    rows = _rows()
    for column, (after, title) in enumerate(_NORM_PANELS.items()):
        panel = frame.inset_axes((0.51 * column, 0.0, 0.49, 1.0))
        _rows_axis(panel, rows, rule or Rule(), named=column == 0)
        for place, report in enumerate(pair):
            cells = [cell for cell in report.cells if cell.after_final_norm is after]
            _draw_cells(panel, cells, rows, styles[id(report)], 0.42 * place - 0.36)
        threshold(panel, 1.0, along="y")
        panel.set_title(title, pad=4)
        panel.set_xlabel(f"last block: {label('gain')}")
        log_axis(panel.xaxis)
        _name_sides(panel)
    _legend(frame, [(styles[id(report)], name_of(report)) for report in pair])
    return frame


def _rows() -> dict[tuple[str, str], float]:
    """Height of every class x reduction; each class begins with a row for its name."""
    rows: dict[tuple[str, str], float] = {}
    for number, token_class in enumerate(TOKEN_CLASSES):
        for step, reduction in enumerate(REDUCTIONS):
            rows[token_class, reduction] = number * (len(REDUCTIONS) + 1) + step + 1.0
    return rows


def _rows_axis(panel: Axes, rows: dict[tuple[str, str], float], rule: Rule, *, named: bool) -> None:
    panel.set_ylim(max(rows.values()) + 0.6, -0.5)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    panel.set_yticks(list(rows.values()), [GLOSSARY[name].label for _, name in rows])
    panel.tick_params(labelleft=named)
    primary = rows[rule.token_class, rule.reduction]
    panel.axhspan(primary - 0.5, primary + 0.5, color="#F3EBD3", linewidth=0, zorder=0)
    for number, token_class in enumerate(TOKEN_CLASSES):
        height = number * (len(REDUCTIONS) + 1)
        if number:
            panel.axhline(height - 0.45, color="#CCCCCC", linewidth=0.5)
        if named:
            text = GLOSSARY[token_class].label
            panel.annotate(
                text,
                (0, height),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontweight="bold",
                fontsize=SMALL,
            )


def _name_sides(panel: Axes) -> None:
    """What either side of the line at 1 means, in the empty first row, where there is room."""
    low, high = np.log(panel.get_xlim())
    share = -low / (high - low)
    for text, side, room in (("← contracts", "right", share), ("expands →", "left", 1 - share)):
        if 0.22 < room <= 1:
            gap = (-4 if side == "right" else 4, 0)
            panel.annotate(text, (1, 0), xytext=gap, textcoords="offset points", ha=side,
                           va="center", fontsize=SMALL, color=FAINT)  # fmt: skip


def _draw_cells(
    panel: Axes,
    cells: Sequence[GainCell],
    rows: dict[tuple[str, str], float],
    look: Look,
    at: float,
) -> None:
    """One model's cells, a call for each half of the prompts."""
    for lengths, (offset, size, filling) in _LENGTHS.items():
        chosen = [cell for cell in cells if cell.lengths == lengths]
        height = np.array([rows[cell.token_class, cell.reduction] for cell in chosen]) + at + offset
        found = [cell.log_gain for cell in chosen]
        gain, low, high = np.exp([[i.estimate, i.low, i.high] for i in found]).reshape(-1, 3).T
        known = np.isfinite(low) & np.isfinite(high)
        panel.hlines(height[known], low[known], high[known], color=look.colour, linewidth=1.0)
        panel.plot(
            gain,
            height,
            linestyle="",
            marker=look.marker,
            markersize=size,
            color=look.colour,
            markerfacecolor=look.colour if filling == "full" else "white",
            markeredgewidth=0.8,
        )


def _legend(frame: Axes, models: Sequence[tuple[Look, str]]) -> None:
    plain: Style = {"linestyle": "", "color": INK, "marker": "o", "markeredgewidth": 0.8}
    handles = [Line2D([], [], color=look.colour, marker=look.marker) for look, _ in models]
    names = [name for _, name in models]
    for lengths, (_, size, filling) in _LENGTHS.items():
        handles.append(
            Line2D(
                [],
                [],
                markersize=size,
                markerfacecolor=INK if filling == "full" else "white",
                **plain,
            )
        )
        names.append("all prompts" if lengths == "all" else f"{lengths} half of the prompts")
    handles.append(Line2D([], [], color="#F3EBD3", linewidth=6))
    names.append("primary estimand")
    frame.legend(
        handles, names, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.04), borderaxespad=0
    )
