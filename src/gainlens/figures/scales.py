"""Set the scales of axes: logarithmic, by block, and broken above the blocks after the first."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from gainlens.figures.style import INK, Style, label

_UPPER: Final = 0.14
"""Share of a broken axis' height above the break."""
_FAR: Final = 0.75
"""An axis breaks if its highest value lies further above the rest than this share of the rest's
range; below that a break would save nothing."""


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Return limits of a logarithmic axis that leave room around the values."""
    low, high = np.log([np.nanmin(values), np.nanmax(values)])
    room = share * max(high - low, 0.02)
    return float(np.exp(low - room)), float(np.exp(high + room))


def positive(values: np.ndarray) -> np.ndarray:
    """Return the values with NaN, a gap in a line, for those that a logarithm does not take."""
    return np.where(values > 0, values, np.nan)


def number(value: float) -> str:
    """Return a tick's text, without mathtext: 0.3, 1, 250, then 10⁴."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.6g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = f"{value / 10**exponent:.3g}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def tick(value: float, _: int | None) -> str:
    """Format a tick; matplotlib's FuncFormatter passes the position too."""
    return number(value)


def log_axis(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers as ticks, also within one decade.

    Call it last: the ticks depend on the limits.
    """
    name = "x" if isinstance(axis, XAxis) else "y"
    axis.axes.set(**{f"{name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(ratio_locator(low, high, 5 if name == "x" else 7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_formatter(NullFormatter())


def ratio_locator(low: float, high: float, bins: int) -> Locator:
    """Return the ticks' locator of a logarithmic scale.

    Within most of a decade it gives up to `bins` even steps, else 1-2-5, 1-3, or powers of ten.
    """
    decades = math.log10(high / low)
    if decades < 0.8:
        return MaxNLocator(nbins=bins, steps=[1, 2, 5, 10])
    if decades < 2.2:
        return LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1, 3))
    return LogLocator(numticks=8)


def block_axis(ax: Axes, blocks: int) -> None:
    """Show whole block indices from 0, with half a block and more of room on either side."""
    ax.set_xlabel(label("layer"))
    room = 0.6 + 0.015 * blocks
    ax.set_xlim(-room, blocks - 1 + room)
    steps = [1, 2, 4, 5, 8, 10]
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=steps))


def break_above(ax: Axes, firsts: Sequence[float], rest: Sequence[float], *, log: bool) -> bool:
    """Break the vertical axis between the first block's values and all others, if they are far.

    Everything above the break is drawn in the top seventh of the axis, so the first block does not
    flatten the others; two strokes on the axis mark the break.  Returns False, and changes nothing,
    if no value of `firsts` is far above `rest`.

    Args:
        firsts: what is drawn of the first block.
        rest: what is drawn of all other blocks, and the values that must stay below the break.
        log: whether the axis is logarithmic; values are then positive.
    """
    forth, back = (_log, np.exp) if log else (_same, _same)
    low, high, top = (
        float(function(forth(np.asarray(values, dtype=np.float64))))
        for function, values in ((np.nanmin, rest), (np.nanmax, rest), (np.nanmax, firsts))
    )
    span = max(high - low, 1e-6)
    if not top - high > _FAR * span:
        return False
    low, edge = low - 0.06 * span, high + 0.12 * span
    top += 0.3 * (top - edge)  # room for the marker of the first block
    marks = [low, edge, top], [0.0, 1 - _UPPER, 1.0]

    def forward(values: Any) -> np.ndarray:
        return _pieces(forth(np.asarray(values)), *marks)

    def backward(heights: Any) -> np.ndarray:
        return back(_pieces(np.asarray(heights), *marks[::-1]))

    ax.set_yscale("function", functions=(forward, backward))
    ax.set_ylim(float(back(low)), float(back(top)))
    lower = ratio_locator(math.exp(low), math.exp(edge), 6) if log else MaxNLocator(6)
    inside = lower.tick_values(float(back(low)), float(back(edge)))
    ticks = [place for place in inside if low <= forth(place) < edge]
    highest = float(f"{np.nanmax(firsts):.2g}")
    ax.yaxis.set_major_locator(FixedLocator([*ticks, highest]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(tick))
    stroke: Style = {"color": INK, "clip_on": False, "linewidth": 0.8, "transform": ax.transAxes}
    for height in (1 - _UPPER - 0.012, 1 - _UPPER + 0.012):
        ax.plot([-0.012, 0.012], [height - 0.012, height + 0.012], zorder=9, **stroke)
    gap: Style = {"color": "white", "linewidth": 1.6, "transform": ax.get_xaxis_transform()}
    ax.plot([-0.5, 0.5], [1 - _UPPER - 0.01, 1 - _UPPER + 0.01], zorder=8, **gap)
    return True


def _same(values: Any) -> Any:
    return values


def _log(values: Any) -> Any:
    """Return logarithms; matplotlib also asks below 0 while it looks for limits."""
    return np.log(np.maximum(values, 1e-12))


def _pieces(values: np.ndarray, at: Sequence[float], to: Sequence[float]) -> np.ndarray:
    """Map values linearly between given points, and on beyond the first and the last."""
    slopes = np.diff(to) / np.diff(at)
    inner = np.interp(values, at, to)
    below, above = np.minimum(values - at[0], 0.0), np.maximum(values - at[-1], 0.0)
    return inner + below * slopes[0] + above * slopes[-1]
