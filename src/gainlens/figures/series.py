"""Draw the last block against prompt length or training step."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes

from gainlens.claims.intervals import mean_intervals
from gainlens.core.spec import Rule
from gainlens.figures.blocks import listed
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    ONE_COLUMN,
    axes_or_new,
    legend_above,
    look,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport

_LABELS: Final = {"tokens": "prompt length (tokens)", "step": "training step"}


@styled
def series(
    reports: ModelReport | Sequence[ModelReport],
    positions: Sequence[float],
    axis: Literal["tokens", "step"],
    ax: Axes | None = None,
    *,
    rule: Rule | None = None,
) -> Axes:
    """Draw the last block's gain with its interval against prompt length or step, ratio.

    Reports whose names agree up to an `@` are one model at several prompt lengths: one line each.
    The checkpoints of a training series are one line.

    Args:
        reports: one per point.
        positions: the prompt length or the step of each.
        axis: which of the two it is.
        ax: axes to draw into; a new figure's if None.
        rule: confidence, resamples and seed of the intervals.

    Raises ValueError if there is not one position per report.
    """
    reports, rule = listed(reports), rule or Rule()
    if len(reports) != len(positions):
        raise ValueError(
            f"got {len(reports)} reports and {len(positions)} positions: give each one"
        )
    panel = axes_or_new(ax, ONE_COLUMN, 2.5)
    lines: dict[str, list[int]] = {}
    for place, report in enumerate(reports):
        name = "last block" if axis == "step" else report.checkpoint.name.rpartition("@")[0]
        lines.setdefault(name, []).append(place)
    for number, (name, places) in enumerate(lines.items()):
        own = look(number)
        at = np.array([positions[place] for place in places], dtype=float)
        intervals = [
            mean_intervals(
                reports[place].last_block[None],
                confidence=rule.confidence,
                resamples=rule.resamples,
                seed=rule.seed,
            )[0]
            for place in places
        ]
        gain, low, high = (
            np.exp([getattr(interval, end) for interval in intervals])
            for end in ("estimate", "low", "high")
        )
        panel.plot(at, gain, color=own.colour, marker=own.marker, linestyle=own.line, label=name)
        panel.vlines(at, low, high, color=own.colour, linewidth=1.2)
    threshold(panel, 1.0, along="x")
    if axis == "tokens":
        panel.set_xscale("log", base=2)
        ticks = sorted(set(positions))
        panel.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        panel.minorticks_off()
    panel.set_xlabel(_LABELS[axis])
    panel.set_ylabel("gain of the last block (ratio)")
    log_axis(panel.yaxis)
    legend_above(panel, outside=ax is None)
    return panel
