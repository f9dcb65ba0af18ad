"""Draw which block grows or shrinks the stream, and which of its components does it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gainlens.core.glossary import GLOSSARY
from gainlens.figures.along import legend_along, looks_along
from gainlens.figures.ordering import Along
from gainlens.figures.scales import block_axis, break_above, log_axis, number, padded, positive
from gainlens.figures.style import (
    COMPONENTS,
    FAINT,
    INK,
    ONE_COLUMN,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    axes_or_new,
    label,
    legend_above,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import BlockGain

_MARKERS = 12
"""About how many markers a curve carries: enough to tell curves apart without colour."""

_LAST: Final[Style] = {"markersize": 6.5, "markeredgecolor": INK, "markeredgewidth": 0.8}

_HATCHED = 40
"""Up to so many blocks bars are wide enough for a hatch."""


Blocks = ModelReport | Sequence[BlockGain]
"""A model's report, or its blocks alone, from `gainlens.block_gains`."""

Reports = ModelReport | Sequence[ModelReport]
"""One model's report, or several."""


def block_values(of: Blocks, field: str) -> np.ndarray:
    """Return one number per block, [block], in the field's own unit."""
    blocks = of.blocks if isinstance(of, ModelReport) else of
    return np.array([getattr(block, field) for block in blocks], dtype=np.float64)


@styled
def gain_curve(reports: Reports, ax: Axes | None = None, *, along: Along | None = None) -> Axes:
    """Draw the gain of every block with its simultaneous band, one curve per model.

    The axis is logarithmic, and broken if the first block lies far above the others.  The last
    block's marker is larger and has a black edge.  A band that is not known (NaN) is not drawn.

    Args:
        reports: one model's report, or several.
        ax: axes to draw into; a new figure's if None.
        along: the step or the prompt length of every report; a strip over the panel shows them.
    """
    reports = listed(reports)
    panel = axes_or_new(ax, ONE_COLUMN, 2.3 + 0.1 * len(reports))
    for report, look in zip(reports, looks_along(reports, along), strict=True):
        draw_gain(panel, report, look)
    threshold(panel, 1.0, along="x")
    block_axis(panel, max(len(report.blocks) for report in reports))
    panel.set_ylabel(label("gain"))
    gain_axis(panel, reports)
    last = Line2D([], [], linestyle="", marker="o", color="white", **_LAST)
    legend_along(panel, reports, along, outside=ax is None, handles=[last], names=["last block"])
    return panel


def listed(reports: Reports) -> list[ModelReport]:
    """Return the reports as a list, also if there is one."""
    return [reports] if isinstance(reports, ModelReport) else list(reports)


def gain_axis(ax: Axes, reports: Sequence[ModelReport]) -> None:
    """Make a gain axis logarithmic, broken below the first block's gain if that is far above."""
    values = [
        np.concatenate([block_values(report, name)[part] for report in reports])
        for name, part in (("gain", slice(1)), ("gain", slice(1, None)), ("low", slice(1, None)),
                           ("high", slice(1, None)))
    ]  # fmt: skip
    rest = positive(np.concatenate([*values[1:], [1.0]]))
    first = positive(values[0])
    if not break_above(ax, first.tolist(), rest.tolist(), log=True):
        ax.set_ylim(padded([*first, *rest]))
        log_axis(ax.yaxis)


def draw_gain(ax: Axes, report: ModelReport, look: Look) -> None:
    """Draw one model's curve, its band, and its last block."""
    block = block_values(report, "block")
    gain, low, high = (positive(block_values(report, name)) for name in ("gain", "low", "high"))
    ax.fill_between(block, low, high, color=look.colour, alpha=0.18, linewidth=0)
    ax.plot(
        block,
        gain,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=3.2,
        markevery=max(1, len(block) // _MARKERS),
        label=name_of(report),
    )
    last = slice(len(block) - 1, None)
    if np.isfinite([low[-1], high[-1]]).all():  # a band of one block has no width
        ax.vlines(block[last], low[last], high[last], color=look.colour, linewidth=1.4)
    ax.plot(block[last], gain[last], color=look.colour, marker=look.marker, zorder=4, **_LAST)


@styled
def split(report: Blocks, ax: Axes | None = None) -> Axes:
    """Draw the parts of every block's log gain of one model, in nats.

    Bars stack away from 0, positive parts up and negative parts down.  The line is their sum, the
    log gain, with its simultaneous band.  The remainder (rounding) is drawn only if it is large
    enough to be seen.  The axis is broken if the first block lies far above the others.

    Args:
        report: the model's report, or its blocks from `gainlens.block_gains`.
        ax: axes to draw into; a new figure's if None.
    """
    panel = axes_or_new(ax, ONE_COLUMN, 2.6)
    panel.set_ylabel(_parts_label())
    draw_split(panel, report)
    split_axis([panel], [report])
    legend_above(panel, outside=ax is None)
    if isinstance(report, ModelReport):
        panel.set_title(name_of(report, 40), pad=4 if ax is None else 18)  # over the legend
    return panel


@styled
def splits(reports: Reports) -> Figure:
    """Draw `split` of every model, side by side on one scale."""
    reports = listed(reports)
    columns = across(min(len(reports), 3 if len(reports) != 4 else 2))
    rows = -(-len(reports) // columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = new_figure(width, 0.4 + 2.1 * rows)
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(len(reports))]
    for place, (panel, report) in enumerate(zip(panels, reports, strict=True)):
        draw_split(panel, report)
        panel.set_title(name_of(report, 22 if columns == 3 else 34))
        if place % columns == 0:
            panel.set_ylabel(_parts_label())
        if place + columns < len(reports):
            panel.set_xlabel("")
    split_axis(panels, reports)
    handles, names = panels[0].get_legend_handles_labels()
    legend_above(panels[0], outside=True, handles=handles, names=names)
    return figure


def _parts_label() -> str:
    return f"{GLOSSARY['log_gain'].label} and its parts ({GLOSSARY['log_gain'].unit})"


def split_axis(panels: Sequence[Axes], models: Sequence[Blocks]) -> None:
    """Give the panels of `draw_split` one scale, broken below the first blocks if they are far."""
    tops, bottoms = zip(*(_reach(model) for model in models), strict=True)
    first = np.array([top[0] for top in tops])
    rest = np.concatenate([[0.0], *(top[1:] for top in tops), *bottoms])
    for panel in panels:
        if not break_above(panel, first.tolist(), rest.tolist(), log=False):
            span = float(np.nanmax([*first, *rest]) - np.nanmin(rest))
            panel.set_ylim(
                float(np.nanmin(rest)) - 0.06 * span, np.nanmax([*first, *rest]) + 0.12 * span
            )


def _reach(of: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return how high and how low bars, line and band reach at every block, nats."""
    parts = [block_values(of, name) for name in ("attention", "mlp", "remainder")]
    line = [block_values(of, "log_gain")]
    line += [np.log(positive(block_values(of, name))) for name in ("low", "high")]
    known = np.nan_to_num(np.array(parts))
    up, down = np.maximum(known, 0.0).sum(axis=0), np.minimum(known, 0.0).sum(axis=0)
    return np.fmax.reduce([up, *line]), np.fmin.reduce([down, *line])


def draw_split(ax: Axes, report: Blocks) -> None:
    """Draw the bars and the line, without scale, legend and title."""
    block = block_values(report, "block")
    parts = {name: block_values(report, name) for name in ("attention", "mlp", "remainder")}
    _stack(ax, block, parts)
    log_gain = block_values(report, "log_gain")
    low, high = (np.log(positive(block_values(report, name))) for name in ("low", "high"))
    ax.axhline(0, color=FAINT, linewidth=0.9, zorder=1.5)
    ax.fill_between(block, low, high, color=INK, alpha=0.25, linewidth=0, zorder=3)
    ax.plot(
        block,
        log_gain,
        color=INK,
        marker="o",
        markersize=3.0 if len(block) <= _HATCHED else 1.8,
        linewidth=0.9,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=4,
        label=GLOSSARY["log_gain"].label,
    )
    block_axis(ax, len(block))


def _stack(ax: Axes, block: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    """Draw diverging stacked bars: each part starts where the parts of its sign end."""
    up, down = np.zeros_like(block), np.zeros_like(block)
    largest = max(float(np.nanmax(np.abs(part), initial=0.0)) for part in parts.values())
    for name, part in parts.items():
        colour, hatch = COMPONENTS[name]
        if np.nanmax(np.abs(part), initial=0.0) <= 0.005 * largest:
            continue  # a remainder of rounding
        ax.bar(
            block,
            part,
            0.8,
            bottom=np.where(part >= 0, up, down),
            color=colour,
            hatch=hatch if len(block) <= _HATCHED else "",
            edgecolor="white",
            linewidth=0.3 if len(block) <= _HATCHED else 0.0,
            label=GLOSSARY[name].label,
            zorder=2,
        )
        known = np.nan_to_num(part)
        up, down = up + np.maximum(known, 0), down + np.minimum(known, 0)


def value_of_last(ax: Axes, report: ModelReport) -> None:
    """Write the last block's gain over the bars at the right end of a log-gain axis."""
    last = report.blocks[-1]
    near = report.blocks[-max(1, len(report.blocks) // 3) :]
    tops = [max(block.attention, 0.0) + max(block.mlp, 0.0) for block in near]
    ax.annotate(
        f"×{number(last.gain) if last.gain < 0.1 else f'{last.gain:.2f}'}",
        (last.block + 0.4, float(np.nanmax([*tops, *(block.log_gain for block in near), 0.0]))),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=SMALL,
        fontweight="bold",
    )
