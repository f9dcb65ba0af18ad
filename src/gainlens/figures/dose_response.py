"""Draw the gain of the last block against training context, with the seeds' intervals."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gainlens.figures.style import FAINT, TWO_COLUMNS, look, new_figure, styled

_APART = 0.06
"""Share of a doubling by which the marks of two thetas stand apart."""


@styled
def dose_response(
    contexts: tuple[int, ...],
    thetas: tuple[float, ...],
    panels: Mapping[str, np.ndarray],
) -> Figure:
    """Draw one panel per quantity, one mark per cell; cells are not joined.

    Args:
        contexts: training contexts, tokens.
        thetas: RoPE bases.
        panels: by title, [context, theta, end]: mean over seeds, low and high end, in nats.
    """
    figure = new_figure(TWO_COLUMNS, 2.6)
    first = None
    for place, (title, cells) in enumerate(panels.items()):
        panel = figure.add_subplot(1, len(panels), place + 1, sharey=first)
        first = first or panel
        for index, theta in enumerate(thetas):
            own = look(index)
            shift = 2 ** (_APART * (2 * index - len(thetas) + 1))
            x = np.array(contexts) * shift
            mean, low, high = cells[:, index].T
            panel.vlines(x, low, high, color=own.colour, linewidth=1.4)
            panel.plot(
                x,
                mean,
                color=own.colour,
                marker=own.marker,
                linestyle="",
                label=f"θ = {theta:,.0f}",
            )
        panel.axhline(0.0, color=FAINT, linewidth=0.6)
        panel.set_xscale("log", base=2)
        panel.set_xticks(contexts, [f"{context:,}" for context in contexts])
        panel.minorticks_off()
        panel.tick_params(axis="x", labelsize=6)
        panel.set_title(title)
        panel.set_xlabel("training context, tokens")
        if place:
            panel.tick_params(labelleft=False)
    assert first is not None, "a figure of at least one quantity"
    first.set_ylabel("log gain, nats")
    first.legend(loc="lower left", frameon=False, fontsize=7)
    return figure
