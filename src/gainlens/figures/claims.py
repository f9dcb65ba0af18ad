"""Draw what was measured of a claim against what it predicts."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes

from gainlens.claims.claim import bounds_of
from gainlens.figures.style import (
    FAINT,
    INK,
    TWO_COLUMNS,
    across,
    axes_or_new,
    look,
    note,
    styled,
    threshold,
)
from gainlens.records.claims import ClaimVerdict
from gainlens.records.interval import Interval

_SHADE: Final = "#F3EBD3"


@styled
def claim_interval(verdict: ClaimVerdict, ax: Axes | None = None) -> Axes:
    """Draw a claim's numbers with their intervals; what it predicts is shaded.

    A claim with an intervention has three rows: the change, the change under the random control
    with a mark per draw, and their paired difference.  Of a claim that was not tested all is grey.

    Args:
        verdict: of one claim, from `gainlens.test`.
        ax: the axes to draw into; a new figure's if None.
    """
    rows = _rows(verdict)
    narrow = across(2) == 1
    ax = axes_or_new(ax, TWO_COLUMNS, 1.1 + 0.15 * narrow + 0.28 * max(len(rows), 1))
    between = ":\n" if narrow else ": "
    ax.set_title(f"{verdict.claim}{between}{verdict.outcome}")
    if not any(np.isfinite(interval.estimate) for _, interval, _ in rows):
        ax.set_axis_off()
        note(ax, verdict.reasons[0] if verdict.reasons else "nothing was measured")
        return ax
    colour = FAINT if verdict.outcome == "NOT TESTED" else look(0).colour
    for place, (_, interval, _) in enumerate(rows):
        if interval.known:
            ax.hlines(place, interval.low, interval.high, color=colour, linewidth=1.6)
        filled = colour if interval.known else "white"
        ax.plot(interval.estimate, place, marker="o", color=colour, markerfacecolor=filled)
    if verdict.effect is not None:
        draws = verdict.effect.draws
        ax.plot(draws, [1] * len(draws), linestyle="", marker="|", markersize=8, color=INK)
    threshold(ax, 0.0, along="y")
    _shade(ax, verdict, [place for place, row in enumerate(rows) if row[2]])
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("" if verdict.unit == "1" else verdict.unit)
    return ax


def _rows(verdict: ClaimVerdict) -> list[tuple[str, Interval, bool]]:
    """Return every number's name and interval, and whether the prediction is of it."""
    effect = verdict.effect
    if effect is None:
        names = {"the contrast": "measured"}
        predicted = bool(verdict.prediction)
        return [(names.get(one.of, one.of), one.interval, predicted) for one in verdict.estimates]
    beyond = effect.against == "control"
    return [
        ("change", effect.change, not beyond),
        ("change under the control", effect.control_change, False),
        ("difference of both", effect.excess, beyond),
    ]


def _shade(ax: Axes, verdict: ClaimVerdict, places: list[int]) -> None:
    """Shade the values that the claim predicts, in the rows that it speaks of."""
    if not verdict.prediction or not places:
        return
    sign, low, high = bounds_of(verdict.prediction)
    span = max(np.ptp(ax.get_xlim()), abs(high - low)) / 10
    ax.set_xlim(min(ax.get_xlim()[0], low - span), max(ax.get_xlim()[1], high + span))
    left, right = ax.get_xlim()
    if sign in (">", "<"):
        at = low + verdict.margin if sign == ">" else low - verdict.margin
        ends = (at, right) if sign == ">" else (left, at)
    else:
        ends = (low - verdict.margin, high + verdict.margin)
    for place in places:
        ax.fill_between(ends, place - 0.4, place + 0.4, color=_SHADE, linewidth=0, zorder=0)
    ax.set_xlim(left, right)
