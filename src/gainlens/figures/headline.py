"""Draw the headline figure: the answer at a glance."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gainlens.claims.headline import OUTCOME_WORDS
from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened_apart
from gainlens.core.spec import Rule
from gainlens.figures.blocks import Reports, draw_split, listed, split_axis, value_of_last
from gainlens.figures.scales import log_axis, number
from gainlens.figures.style import (
    COMPONENTS,
    INK,
    ONE_COLUMN,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    label,
    looks,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.verdict import Verdict

_TITLE_WIDTH: Final = 94
_NARROW_TITLE: Final = 38
"""Characters of bold 9 pt that fit two columns, and one."""

_TRUE: Final[Style] = {"markersize": 5.0}
_NOTEBOOK: Final[Style] = {"markersize": 4.5, "markerfacecolor": "white"}


@styled
def headline(
    reports: Reports,
    verdict: Verdict | None = None,
    *,
    rule: Rule | None = None,
) -> Figure:
    """Draw the answer at a glance: two models' blocks, and every model's last block.

    The first panels show the log gain of every block and its parts: of the short and the long
    model, or of the first two, or of the only one.  The last panel shows every model's last block
    with its interval, and what the final norm makes of it in the notebook's number.

    Args:
        reports: one model's report, or several.
        verdict: its outcome stands over the panels; no title if None.
        rule: the rule that the run was judged by; Rule() if None.

    In one column the last panel stands below the others.

    Raises ValueError if there is no report, or if the reports' primary estimand is not the rule's.
    """
    reports, rule = listed(reports), rule or Rule()
    pair = _pair(reports)
    narrow = across(2) == 1
    title = "" if verdict is None else f"{verdict.outcome}: {OUTCOME_WORDS[verdict.outcome]}"
    lines = textwrap.wrap(title, _NARROW_TITLE if narrow else _TITLE_WIDTH)
    figure, panels, last = _panels(len(pair), len(reports), 0.15 * len(lines), narrow)
    names = [name_of(report, 21) for report in pair]
    if narrow and len(pair) > 1:
        names = shortened_apart([report.checkpoint.name for report in pair], 16)
    _split_panels(panels, pair, names)
    _last_blocks(last, reports, rule)
    letter = "abc"[len(pair)]
    last.set_title(f"{letter}  last block")
    _legend(figure, panels[0], rule, letter, 1 if narrow else 2)
    if lines:
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontweight="bold")
    return figure


def _pair(reports: Sequence[ModelReport]) -> list[ModelReport]:
    """Return the short and the long model, or the first two if one of these is missing."""
    if not reports:
        raise ValueError("the headline figure needs at least one report, got none")
    first = {report.role: report for report in reversed(reports)}
    if "short" in first and "long" in first:
        return [first["short"], first["long"]]
    return list(reports[:2])


def _panels(pair: int, models: int, title: float, narrow: bool) -> tuple[Figure, list[Axes], Axes]:
    """Lay out the panels of the blocks and that of the last block, beside them or below."""
    height = 2.8 + title + 0.22 * max(0, models - 4)
    if narrow:
        below = 1.0 + 0.3 * models
        figure = new_figure(ONE_COLUMN, height + below + 0.6)
        grid = figure.add_gridspec(2, pair, height_ratios=[1.6, below])
        place: Any = grid[1, :]
    else:
        figure = new_figure(TWO_COLUMNS, height)
        grid = figure.add_gridspec(1, pair + 1, width_ratios=[*[1] * pair, 1.1])
        place = grid[0, pair]
    panels = [figure.add_subplot(grid[0, column]) for column in range(pair)]
    return figure, panels, figure.add_subplot(place)


def _split_panels(
    panels: Sequence[Axes], pair: Sequence[ModelReport], names: Sequence[str]
) -> None:
    """Draw the blocks of each model on one scale."""
    for letter, panel, report, name in zip("ab", panels, pair, names, strict=False):
        draw_split(panel, report)
        value_of_last(panel, report)
        panel.set_title(f"{letter}  {name}")
    split_axis(panels, pair)
    term = GLOSSARY["log_gain"]
    panels[0].set_ylabel(f"{term.label} and its parts ({term.unit})")
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)


def last_block_interval(report: ModelReport, rule: Rule) -> Interval:
    """Return the primary estimand's own interval, nats; the band over blocks is wider."""
    for cell in report.cells:
        wanted = (rule.token_class, rule.reduction, "all", False)
        if (cell.token_class, cell.reduction, cell.lengths, cell.after_final_norm) == wanted:
            found, drawn = cell.log_gain.estimate, report.blocks[-1].log_gain
            if not np.isclose(found, drawn, rtol=0, atol=1e-9, equal_nan=True):
                break
            return cell.log_gain
    raise ValueError(
        f"{report.checkpoint.name} was not measured under the rule given ({rule.reduction} of "
        f"{rule.token_class} tokens); pass the rule of its run as `rule`"
    )


def _last_blocks(ax: Axes, reports: Sequence[ModelReport], rule: Rule) -> None:
    """Draw a row per model: its gain with the interval, and what the final norm makes of it."""
    for row, (report, look) in enumerate(zip(reports, looks(reports), strict=True)):
        _true_gain(ax, last_block_interval(report, rule), look, float(row))
        _notebook_gain(ax, report, look, row + 0.3)
        ax.annotate(
            name_of(report),
            (0, row - 0.3),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=look.colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    ax.set_ylim(len(reports) - 0.45, -0.6)
    ax.set_yticks([])
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    threshold(ax, 1.0, along="y")
    ax.set_xscale("log")
    ax.margins(x=0.2)
    log_axis(ax.xaxis)
    ax.set_xlabel(label("gain"))


def _true_gain(ax: Axes, found: Interval, look: Look, height: float) -> None:
    gain, low, high = np.exp([found.estimate, found.low, found.high])
    if np.isfinite([low, high]).all():
        ax.hlines(height, low, high, color=look.colour, linewidth=2.2)
    ax.plot(gain, height, marker=look.marker, color=look.colour, **_TRUE)
    _value(ax, np.nanmax([gain, high]), gain, height)


def _notebook_gain(ax: Axes, report: ModelReport, look: Look, height: float) -> None:
    """Draw an arrow from the gain before the final norm to the notebook's last_gain after it."""
    before, after = report.residual.true_last_gain, report.residual.last_gain
    colour = COMPONENTS["final_norm"][0]
    arrow = {"arrowstyle": "-|>,head_length=0.25,head_width=0.12", "shrinkA": 0, "shrinkB": 2.5}
    ax.annotate(
        "",
        (after, height),
        xytext=(before, height),
        arrowprops=arrow | {"color": colour, "linewidth": 0.8},
    )
    ax.plot(before, height, marker="|", color=colour, markersize=5)
    ax.plot(after, height, marker=look.marker, color=look.colour, **_NOTEBOOK)
    _value(ax, after, after, height, left=after < before)


def _value(ax: Axes, beside: float, value: float, height: float, *, left: bool = False) -> None:
    """Write a number beside its mark."""
    offset: Style = {"xytext": (-5 if left else 5, 0), "textcoords": "offset points"}
    offset["ha"] = "right" if left else "left"
    text = number(float(f"{value:.2g}")) if value < 0.1 else f"{value:.2f}"
    ax.annotate(text, (beside, height), va="center", fontsize=SMALL, **offset)


def _legend(figure: Figure, panel: Axes, rule: Rule, letter: str, most: int) -> None:
    """Put a legend under the panels, in at most `most` rows beside one another."""
    handles, names = panel.get_legend_handles_labels()
    true = f"{letter}: {GLOSSARY[rule.token_class].label}, {rule.confidence:.0%} interval"
    below: dict[str, Style] = {
        true: _TRUE | {"marker": "o", "linestyle": "-", "linewidth": 2.2},
        f"{letter}: {GLOSSARY['last_gain'].label}": _NOTEBOOK | {"marker": "o", "linestyle": ""},
        f"{letter}: the same before the final norm": {"marker": "|", "ms": 5, "linestyle": ""},
    }
    marks = [Line2D([], [], color=INK, **style) for style in below.values()]
    rows = [[*zip(handles, names, strict=True)], [*zip(marks, below, strict=True)]]
    across = [pair for column in zip_longest(*rows) for pair in column if pair]
    columns = across if most > 1 else [*rows[0], *rows[1]]
    figure.legend(
        [handle for handle, _ in columns],
        [name for _, name in columns],
        loc="outside lower left",
        ncols=most if most == 1 else max(map(len, rows)),
    )
