"""The headline figure: the answer at a glance."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.figures.blocks import draw_split, value_of_last
from gainlens.figures.style import (
    COMPONENTS,
    INK,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    label,
    log_axis,
    looks,
    name_of,
    new_figure,
    number,
    ratio_locator,
    styled,
    threshold,
    tick,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.verdict import Verdict

_TITLE_WIDTH: Final = 94
"""Characters of bold 9 pt that fit two columns."""

_TRUE: Final[Style] = {"markersize": 5.0}
_NOTEBOOK: Final[Style] = {"markersize": 4.5, "markerfacecolor": "white"}


@styled
def headline(
    reports: Sequence[ModelReport], verdict: Verdict, *, rule: Rule | None = None
) -> Figure:
    """Per-block log gain and its parts of the short and the long model, beside it every model's
    last block as it is and as the notebook's number has it; the verdict's sentence above.

    `rule` is the rule that the run was judged by, Rule() where not given; ValueError where the
    reports' primary estimand is not that rule's, or where a role is missing.
    """
    rule = rule or Rule()
    short, long = (_of_role(reports, role) for role in ("short", "long"))
    sentence = textwrap.wrap(" ".join(verdict.headline.split()), _TITLE_WIDTH)
    height = 2.8 + 0.15 * len(sentence) + 0.22 * max(0, len(reports) - 4)
    figure = new_figure(TWO_COLUMNS, height)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    middle.sharey(left)
    for letter, panel, report in (("a", left, short), ("b", middle, long)):
        draw_split(panel, report)
        value_of_last(panel, report)
        panel.set_title(f"{letter}  {name_of(report, 21)}")
    term = GLOSSARY["log_gain"]
    left.set_ylabel(f"{term.label} and its parts ({term.unit})")
    _ratio_scale(middle)
    _last_blocks(right, reports, rule)
    right.set_title("c  last block")
    _legend(figure, left, rule)
    figure.suptitle("\n".join(sentence), x=0.01, ha="left", fontweight="bold")
    return figure


def _of_role(reports: Sequence[ModelReport], role: str) -> ModelReport:
    found = [report for report in reports if report.role == role]
    if not found:
        raise ValueError(
            f"the headline figure needs a short and a long model, got no {role} one among "
            f"{', '.join(name_of(report) for report in reports) or 'no reports'}"
        )
    return found[0]


def _ratio_scale(ax: Axes) -> None:
    """The same scale as ratios, on the right."""
    right = ax.secondary_yaxis("right", functions=(np.exp, _log))
    low, high = np.exp(ax.get_ylim())
    right.yaxis.set_major_locator(ratio_locator(low, high, 7))
    right.yaxis.set_major_formatter(FuncFormatter(tick))
    right.set_ylabel(label("gain"))
    ax.tick_params(labelleft=False, left=False)


def _log(values: Any) -> Any:
    """Matplotlib asks for the inverse below 0 too while it looks for limits."""
    return np.log(np.maximum(values, 1e-12))


def last_block_interval(report: ModelReport, rule: Rule) -> Interval:
    """The primary estimand's own interval (not the wider band over blocks), nats."""
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
    """One row a model: the gain with its interval, and what the final norm makes of it."""
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
    """From the notebook's sentence before the final norm to its last_gain after it."""
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
    """The number, beside what it belongs to."""
    offset: Style = {"xytext": (-5 if left else 5, 0), "textcoords": "offset points"}
    offset["ha"] = "right" if left else "left"
    text = number(float(f"{value:.2g}")) if value < 0.1 else f"{value:.2f}"
    ax.annotate(text, (beside, height), va="center", fontsize=SMALL, **offset)


def _legend(figure: Figure, panel: Axes, rule: Rule) -> None:
    """Under the panels: a row for the bars and the line, a row for the markers of the last one."""
    handles, names = panel.get_legend_handles_labels()
    true = f"c: {GLOSSARY[rule.token_class].label}, {rule.confidence:.0%} interval"
    below: dict[str, Style] = {
        true: _TRUE | {"marker": "o", "linestyle": "-", "linewidth": 2.2},
        f"c: {GLOSSARY['last_gain'].label}": _NOTEBOOK | {"marker": "o", "linestyle": ""},
        "c: the same before the final norm": {"marker": "|", "markersize": 5, "linestyle": ""},
    }
    marks = [Line2D([], [], color=INK, **style) for style in below.values()]
    rows = [[*zip(handles, names, strict=True)], [*zip(marks, below, strict=True)]]
    columns = [pair for column in zip_longest(*rows) for pair in column if pair]
    figure.legend(
        [handle for handle, _ in columns],
        [name for _, name in columns],
        loc="outside lower left",
        ncols=max(map(len, rows)),
    )
