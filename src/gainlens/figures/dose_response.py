"""Draw the gain of the last block against training context, with the seeds' intervals."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gainlens.figures.style import FAINT, TWO_COLUMNS, across, look, new_figure, styled

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
    columns = across(len(panels))
    rows = len(panels) // columns
    figure = new_figure(TWO_COLUMNS, 2.6 if rows == 1 else 2.2 * rows)
    first = None
    for place, (title, cells) in enumerate(panels.items()):
        panel = figure.add_subplot(rows, columns, place + 1, sharey=first)
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
        panel.set_xticks(contexts, [_short(context) for context in contexts])
        panel.minorticks_off()
        panel.set_title(title)
        panel.set_xlabel("training context (tokens)" if place >= len(panels) - columns else "")
        if place % columns:
            panel.tick_params(labelleft=False)
        else:
            panel.set_ylabel("log gain (nats)")
    assert first is not None, "a figure of at least one quantity"
    first.legend(loc="lower left")
    return figure


def _short(context: int) -> str:
    """Write a context as papers do: 512, then 4k."""
    return f"{context // 1024}k" if context >= 1024 else f"{context}"
