"""Draw the last block against prompt length or training step."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from gainlens.claims.intervals import mean_intervals
from gainlens.core.spec import Rule
from gainlens.figures.along import along_axis
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.ordering import Along, names_of
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    ONE_COLUMN,
    Look,
    axes_or_new,
    legend_above,
    look,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport


@styled
def series(
    reports: Reports,
    along: Along,
    ax: Axes | None = None,
    *,
    rule: Rule | None = None,
) -> Axes:
    """Draw the last block's gain with its interval against prompt length or step, ratio.

    Reports whose names agree up to an `@` are one model at several prompt lengths: one line each.
    The checkpoints of a training series are one line.

    Args:
        reports: one per point.
        along: the step or the prompt length of every report.
        ax: axes to draw into; a new figure's if None.
        rule: confidence, resamples and seed of the intervals.

    Raises ValueError if there is not one position per report.
    """
    reports = listed(reports)
    lines = along.lines(names_of(reports))
    panel = axes_or_new(ax, ONE_COLUMN, 2.5)
    for number, (name, places) in enumerate(lines.items()):
        line = [reports[place] for place in places]
        _draw_line(panel, line, along.of(places), look(number), name, rule or Rule())
    threshold(panel, 1.0, along="x")
    along_axis(panel.xaxis, along)
    panel.set_ylabel("gain of the last block (ratio)")
    log_axis(panel.yaxis)
    if len(lines) > 1:
        legend_above(panel, outside=ax is None)
    return panel


def _draw_line(
    ax: Axes, reports: Sequence[ModelReport], along: Along, own: Look, name: str, rule: Rule
) -> None:
    intervals = [
        mean_intervals(
            report.last_block[None],
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        )[0]
        for report in reports
    ]
    gain, low, high = (
        np.exp([getattr(interval, end) for interval in intervals])
        for end in ("estimate", "low", "high")
    )
    at = along.positions
    ax.plot(at, gain, color=own.colour, marker=own.marker, linestyle=own.line, label=name)
    ax.vlines(at, low, high, color=own.colour, linewidth=1.2)
