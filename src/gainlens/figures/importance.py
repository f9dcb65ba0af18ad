"""Draw what each block does to the stream beside what skipping it costs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gainlens.figures.scales import block_axis, break_above
from gainlens.figures.style import FAINT, TWO_COLUMNS, across, look, new_figure, styled

_COLUMNS = 3


@styled
def importance(
    measures: Mapping[str, np.ndarray],
    units: Mapping[str, str] | None = None,
    spearman: Mapping[str, float] | None = None,
) -> Figure:
    """Draw measures of a model's blocks, one panel per measure, with an interval per block.

    The axis of a panel is broken if the first block lies far above the others.

    Args:
        measures: by name, [3, block]: mean, low and high end; ends that are NaN are not drawn.
        units: of the measures, by name.
        spearman: rank correlation ρ with the skip loss by name, written into the panel's title.

    Raises ValueError if there is no measure.
    """
    if not measures:
        raise ValueError("there is no measure to draw: give at least one array [3, block]")
    columns = across(_COLUMNS)
    rows = -(-len(measures) // columns)
    figure = new_figure(TWO_COLUMNS, 0.2 + 1.9 * rows)
    own = look(0)
    for place, (name, (mean, low, high)) in enumerate(measures.items()):
        panel = figure.add_subplot(rows, columns, place + 1)
        block = np.arange(len(mean))
        panel.vlines(block, low, high, color=own.colour, linewidth=1.4)
        panel.plot(block, mean, color=own.colour, marker=own.marker, linestyle="", markersize=3.2)
        panel.axhline(0.0, color=FAINT, linewidth=0.6)
        block_axis(panel, len(mean))
        if place + columns < len(measures):
            panel.set_xlabel("")
        title = name.replace("_", " ")
        if spearman and name in spearman:
            title += f": ρ = {spearman[name]:+.2f}"
        panel.set_title(title)
        unit = (units or {}).get(name, "1")
        panel.set_ylabel("" if unit == "1" else unit)
        ends = np.stack(
            [mean, np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)]
        )
        if len(mean) > 1:
            break_above(panel, ends[:, 0].tolist(), [0.0, *ends[:, 1:].ravel()], log=False)
    return figure
