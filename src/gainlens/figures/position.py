"""Draw the last block's gain against the position in the prompt."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes

from gainlens.figures.along import legend_along, looks_along
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.ordering import Along
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    ONE_COLUMN,
    axes_or_new,
    label,
    name_of,
    styled,
    threshold,
)
from gainlens.records.gains import Decomposition


@styled
def gain_by_position(
    reports: Reports,
    quartiles: Mapping[str, np.ndarray],
    ax: Axes | None = None,
    *,
    along: Along | None = None,
) -> Axes:
    """Draw the last block's median gain in bins of position that double in width, per model.

    Position 0 has a bin of its own; after it massive tokens are left out.  The bar is the range of
    the middle half of a bin's tokens.

    Args:
        reports: one model's report, or several.
        quartiles: the `position_quartiles` of each model under its checkpoint's name.
        ax: axes to draw into; a new figure's if None.
        along: the step or the prompt length of every report; a strip over the panel shows them.

    Raises ValueError if a model's quartiles are missing.
    """
    reports = listed(reports)
    missing = [r.checkpoint.name for r in reports if r.checkpoint.name not in quartiles]
    if missing:
        raise ValueError(
            f"no quartiles were given for {', '.join(missing)}; pass position_quartiles("
            "decomposition) of each model under its name, got the names "
            f"{', '.join(quartiles) or 'none'}"
        )
    panel = axes_or_new(ax, ONE_COLUMN, 2.3 + 0.1 * len(reports))
    longest = 0
    for place, (report, look) in enumerate(zip(reports, looks_along(reports, along), strict=True)):
        low, middle, high = quartiles[report.checkpoint.name]
        longest = max(longest, len(middle))
        at = np.arange(len(middle)) + min(0.12, 0.5 / len(reports)) * (
            place - (len(reports) - 1) / 2
        )
        panel.vlines(at, low, high, color=look.colour, linewidth=1.0, alpha=0.6)
        panel.plot(at, middle, color=look.colour, linestyle=look.line, marker=look.marker,
                markersize=3.6, label=name_of(report))  # fmt: skip
    threshold(panel, 1.0, along="x")
    starts = [0, *(2**k for k in range(longest - 1))]
    step = 1 if longest <= 11 else 2
    panel.set_xticks(range(0, longest, step), [f"{start:,}" for start in starts[::step]])
    panel.set_xlabel(f"{label('position')}: first of each bin")
    panel.set_ylabel(f"last block: {label('gain')}")
    log_axis(panel.yaxis)
    legend_along(panel, reports, along, outside=ax is None)
    return panel


def position_quartiles(decomposition: Decomposition) -> Float64[np.ndarray, "quartile bin"]:
    """Return quartiles of the last block's gain by position, ratio; NaN for an empty bin.

    The bins are 0, 1, 2-3, 4-7, ...  Massive tokens are left out.  `decomposition` is of one model,
    from `gainlens.decompose`.
    """
    kept = ~decomposition.is_massive
    gain = np.exp(decomposition.log_gain[-1][kept])
    # frexp's exponent of p is 0 for p = 0 and k + 1 for 2^k <= p < 2^(k+1)
    place = np.frexp(decomposition.position[kept].astype(np.float64))[1]
    result = np.full((3, int(place.max(initial=0)) + 1), np.nan)
    for number in np.unique(place):
        result[:, number] = np.quantile(gain[place == number], (0.25, 0.5, 0.75))
    return result
