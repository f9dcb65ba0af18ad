"""Draw the last block under every way of measuring it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES, Reduction, TokenClass
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    axes_or_new,
    beside,
    label,
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
_AFTER: Final = "last block and final norm: |ln_final(y)|/|x| (ratio)"
_SHADE: Final = "#F3EBD3"


@dataclass(frozen=True)
class _Row:
    """One row: a token class under one reduction, or under several that agree."""

    token_class: TokenClass
    reductions: tuple[Reduction, ...]
    height: float

    @property
    def label(self) -> str:
        """Return the reduction's name, or say that all agree."""
        one = len(self.reductions) == 1
        return GLOSSARY[self.reductions[0]].label if one else "every reduction"


@styled
def verdict_forest(reports: Reports, ax: Axes | None = None, *, rule: Rule | None = None) -> Axes:
    """Draw the last block's gain with its interval in every way of measuring it.

    Left before the final norm, right after it, two quantities with a scale each.  In every row the
    short model stands above the long one, each on all prompts, their short and their long half; if
    there are more than two reports, only these two are drawn.  A row without data is left out, and
    the reductions of a class that all agree share one row.  The row of the primary estimand is
    shaded.

    Args:
        reports: one model's report, or several.
        ax: a frame: it is emptied, and the two panels are laid into it; a new figure's if None.
        rule: the rule of the run; Rule() if None.
    """
    reports, rule = listed(reports), rule or Rule()
    styles = dict(zip((id(report) for report in reports), looks(reports), strict=True))
    pair = [report for report in reports if len(reports) <= 2 or report.role in ("short", "long")]
    pair = pair or reports[:2]
    pair.sort(key=lambda report: report.role != "short")
    rows = _rows(pair, rule)
    columns = across(2)
    deep = 0.9 + 0.24 * _bottom(rows)
    frame = axes_or_new(ax, TWO_COLUMNS, 0.6 + deep * 2 / columns)
    frame.set_axis_off()
    for place, after in enumerate((False, True)):
        beside_first = (0.51 * place, 0.0, 0.49, 1.0)
        below = 0.5 - 0.32 / deep  # the axis' name and the second panel's title stand between
        below_first = (0.0, (1 - place) * (1 - below), 1.0, below)
        panel = frame.inset_axes(beside_first if columns == 2 else below_first)
        _rows_axis(panel, rows, rule, named=columns == 1 or place == 0)
        for above, report in enumerate(pair):
            cells = [cell for cell in report.cells if cell.after_final_norm is after]
            _draw_cells(panel, cells, rows, styles[id(report)], 0.42 * above - 0.36)
        threshold(panel, 1.0, along="y")
        panel.set_title(_NORM_PANELS[after], pad=4)
        name = _AFTER if after else f"last block: {label('gain')}"
        panel.set_xlabel(name if columns == 2 else name.replace(": ", ":\n"))
        log_axis(panel.xaxis)
        _name_sides(panel)
    _legend(frame, [(styles[id(report)], name_of(report, 15 * columns)) for report in pair], pair)
    return frame


def _rows(pair: Sequence[ModelReport], rule: Rule) -> list[_Row]:
    """Return the rows from top to bottom; each class begins below a line for its name."""
    rows: list[_Row] = []
    height = 0.0
    for token_class in TOKEN_CLASSES:
        values = {reduction: _values(pair, token_class, reduction) for reduction in REDUCTIONS}
        known: list[Reduction] = [name for name in REDUCTIONS if np.isfinite(values[name]).any()]
        if not known:
            continue
        same = all(np.allclose(values[known[0]], values[r], equal_nan=True) for r in known[1:])
        groups: list[tuple[Reduction, ...]] = (
            [tuple(known)] if same and len(known) > 1 else [(name,) for name in known]
        )
        for step, group in enumerate(groups):
            rows.append(_Row(token_class, group, height + step + 1.0))
        height += len(groups) + 1
    return rows


def _values(pair: Sequence[ModelReport], token_class: str, reduction: str) -> np.ndarray:
    """Return the estimates of one class and reduction in both models, before and after the norm."""
    return np.array(
        [
            cell.log_gain.estimate
            for report in pair
            for cell in report.cells
            if (cell.token_class, cell.reduction) == (token_class, reduction)
        ]
    )


def _bottom(rows: Sequence[_Row]) -> float:
    return rows[-1].height if rows else 1.0


def _rows_axis(panel: Axes, rows: Sequence[_Row], rule: Rule, *, named: bool) -> None:
    """Label the rows, separate the classes, and shade the primary row."""
    panel.set_ylim(_bottom(rows) + 0.6, -0.5)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    panel.set_yticks([row.height for row in rows], [row.label for row in rows])
    panel.tick_params(labelleft=named)
    for row in rows:
        if row.token_class == rule.token_class and rule.reduction in row.reductions:
            panel.axhspan(row.height - 0.5, row.height + 0.5, color=_SHADE, linewidth=0, zorder=0)
    first = {row.token_class: row.height - 1 for row in reversed(rows)}
    for token_class, height in first.items():
        if height:
            panel.axhline(height - 0.45, color="#CCCCCC", linewidth=0.5)
        if named:
            text = GLOSSARY[token_class].label
            beside(panel, text, height, fontweight="bold", fontsize=SMALL)


def _name_sides(panel: Axes) -> None:
    """Name either side of the line at 1 in the empty first row, if there is room."""
    low, high = np.log(panel.get_xlim())
    share = -low / (high - low)
    for text, side, room in (("← contracts", "right", share), ("expands →", "left", 1 - share)):
        if 0.22 < room <= 1:
            gap = (-4 if side == "right" else 4, 0)
            panel.annotate(text, (1, 0), xytext=gap, textcoords="offset points", ha=side,
                           va="center", fontsize=SMALL, color=FAINT)  # fmt: skip


def _draw_cells(
    panel: Axes, cells: Sequence[GainCell], rows: Sequence[_Row], look: Look, at: float
) -> None:
    """Draw one model's cells, a call for each half of the prompts."""
    heights = {(row.token_class, row.reductions[0]): row.height for row in rows}
    for lengths, (offset, size, filling) in _LENGTHS.items():
        chosen = [
            cell
            for cell in cells
            if cell.lengths == lengths and (cell.token_class, cell.reduction) in heights
        ]
        height = [heights[cell.token_class, cell.reduction] + at + offset for cell in chosen]
        height = np.array(height)
        intervals = [cell.log_gain for cell in chosen]
        ends = np.exp([[i.estimate, i.low, i.high] for i in intervals]).reshape(-1, 3)
        gain, low, high = ends.T
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


def _legend(frame: Axes, models: Sequence[tuple[Look, str]], pair: Sequence[ModelReport]) -> None:
    """Put a legend over the panels, of the models and of the halves that have data."""
    plain: Style = {"linestyle": "", "color": INK, "marker": "o", "markeredgewidth": 0.8}
    handles = [Line2D([], [], color=look.colour, marker=look.marker) for look, _ in models]
    names = [name for _, name in models]
    drawn = {c.lengths for r in pair for c in r.cells if np.isfinite(c.log_gain.estimate)}
    for lengths, (_, size, filling) in _LENGTHS.items():
        if lengths in drawn:
            face = INK if filling == "full" else "white"
            handles.append(Line2D([], [], markersize=size, markerfacecolor=face, **plain))
            names.append("all prompts" if lengths == "all" else f"{lengths} half of the prompts")
    handles.append(Line2D([], [], color=_SHADE, linewidth=6))
    names.append("primary estimand")
    frame.legend(
        handles, names, ncols=across(3), loc="lower left", bbox_to_anchor=(0.0, 1.0),
        borderaxespad=2.6,  # over the panels' titles
    )  # fmt: skip
