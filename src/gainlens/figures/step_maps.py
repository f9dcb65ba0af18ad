"""Draw a series of checkpoints or prompt lengths as maps: a column per step, a row per block."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened
from gainlens.figures.along import along_axis, place_axis
from gainlens.figures.blocks import block_values
from gainlens.figures.maps import colour_bar, colour_norm, draw_cells, top_heads
from gainlens.figures.massive import (
    CLASS_LOOKS,
    ClassNorms,
    acts_of,
    component_colour,
    legend_entries,
)
from gainlens.figures.ordering import Along, names_of
from gainlens.figures.scales import log_axis, positive
from gainlens.figures.style import (
    ON_DARK,
    ON_PALE,
    ONE_COLUMN,
    SMALL,
    TWO_COLUMNS,
    Style,
    across,
    label,
    legend_above,
    new_figure,
    note,
    styled,
)
from gainlens.records.comparison import ModelReport

_PARTS: Final = ("log_gain", "attention", "mlp")
_NUMBER: Final = 0.42
"""Inches that a number in a cell needs."""

_APART: Final = 0.6
"""Blocks by which marks at one block stand below one another."""


@styled
def splits_along(reports: Sequence[ModelReport], along: Along) -> Figure:
    """Draw every block's log gain and its parts, nats: a column per step or prompt length.

    All panels share one scale of colours, a square root, so that block 0 does not pale the others.
    Each model has a row of panels.
    """
    lines = along.lines(names_of(reports))
    columns = across(len(_PARTS))
    rows = len(lines) * len(_PARTS) // columns
    figure = new_figure(TWO_COLUMNS, 0.4 + 2.0 * rows)
    grids = {
        (name, part): _grid([reports[place] for place in places], part)
        for name, places in lines.items()
        for part in _PARTS
    }
    norm = colour_norm(list(grids.values()), 0.0, root=True)
    for at, ((name, part), grid) in enumerate(grids.items()):
        panel = figure.add_subplot(rows, columns, at + 1)
        image = draw_cells(panel, grid, norm)
        place_axis(panel.xaxis, along.of(lines[name]), most=5)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if at % columns == 0:
            named = f"{shortened(name, 20)}\n" if len(lines) > 1 else ""
            panel.set_ylabel(named + label("layer"))
        panel.set_title(GLOSSARY[part].label)
        if at % columns == columns - 1:
            colour_bar(image, panel.inset_axes((1.04, 0.0, 0.05, 1.0)), "log_gain")
    return figure


def _grid(reports: Sequence[ModelReport], part: str) -> np.ndarray:
    """Return a part of every block of every report, [block, report]; NaN below a lesser depth."""
    values = [block_values(report, part) for report in reports]
    grid = np.full((max(map(len, values)), len(values)), np.nan)
    for column, own in enumerate(values):
        grid[: len(own), column] = own
    return grid


@styled
def heads_along(values: Mapping[str, np.ndarray], along: Along, *, top: int = 10) -> Figure:
    """Draw the heads of largest part of the log gain, nats: a column per step or prompt length.

    The heads are those of largest size at any step; L4H0 is head 0 of block 4.  Each model has a
    panel, and all share one scale of colours.

    Args:
        values: [block, head] by the report's name, in the order of the positions.
        along: the step or the prompt length of every report.
        top: how many heads are shown.
    """
    arrays = list(values.values())
    lines = along.lines(list(values))
    norm = colour_norm(arrays, 0.0, root=False)
    width = ONE_COLUMN if len(along.positions) <= 4 else TWO_COLUMNS
    figure = new_figure(width, len(lines) * (0.9 + 0.17 * top))
    for at, (name, places) in enumerate(lines.items()):
        panel = figure.add_subplot(len(lines), 1, at + 1)
        stack = np.stack([arrays[place] for place in places])  # [report, block, head]
        flat = stack.reshape(len(places), -1)
        ranked = top_heads(np.nanmax(np.abs(stack), axis=0), top)
        chosen = [_flat(head, stack.shape[2]) for head, _ in ranked]
        cells = flat[:, chosen].T[::-1]  # the largest on top
        image = draw_cells(panel, cells, norm)
        panel.set_yticks(range(len(chosen)), [head for head, _ in ranked][::-1])
        place_axis(panel.xaxis, along.of(places))
        panel.set_title(shortened(name, 40))
        if _NUMBER * len(places) <= 0.6 * figure.get_figwidth():
            _write(panel, cells, norm)
        colour_bar(image, panel.inset_axes((1.03, 0.0, 0.04, 1.0)), "head_part")
    return figure


def _flat(name: str, heads: int) -> int:
    block, head = name[1:].split("H")
    return int(block) * heads + int(head)


def _write(ax: Axes, cells: np.ndarray, norm: Any) -> None:
    """Write every cell's number."""
    for row, column in np.ndindex(cells.shape):
        value = cells[row, column]
        dark = abs(float(norm(value)) - 0.5) > 0.3
        style: Style = {"ha": "center", "va": "center", "fontsize": SMALL - 0.5}
        text = f"{value:+.3f}".replace("-", "−")
        ax.text(column, row, text, color=ON_DARK if dark else ON_PALE, **style)


@styled
def lifecycle_along(
    reports: Sequence[ModelReport], norms: Mapping[str, ClassNorms], along: Along
) -> Figure:
    """Draw the norms of position 0, massive and ordinary tokens against the step or the length.

    Above: each class's largest median norm between blocks.  Below: the blocks that write (up) and
    erase (down) massive tokens, in the colour of the component that does it, with the number of
    tokens.  Each model has a column.

    Args:
        reports: one per step or length.
        norms: the `class_norms` of each report under its checkpoint's name.
        along: the step or the prompt length of every report.
    """
    lines = along.lines(names_of(reports))
    columns = across(len(lines))
    bands = -(-len(lines) // columns)
    figure = new_figure(ONE_COLUMN if columns == 1 else TWO_COLUMNS, 0.5 + 3.4 * bands)
    grid = figure.add_gridspec(2 * bands, columns)
    shown: set[str] = set()
    kinds: set[tuple[str, str]] = set()
    for at, (name, places) in enumerate(lines.items()):
        band, column = divmod(at, columns)
        upper = figure.add_subplot(grid[2 * band, column])
        lower = figure.add_subplot(grid[2 * band + 1, column], sharex=upper)
        own, line = along.of(places), [reports[place] for place in places]
        shown |= _draw_norms(upper, [norms[report.checkpoint.name] for report in line], own)
        kinds |= _draw_acts(lower, line, own)
        along_axis(lower.xaxis, own)
        upper.tick_params(labelbottom=False)
        log_axis(upper.yaxis)
        upper.set_title(shortened(name, 34))
        upper.set_ylabel(f"largest {label('norm')}".replace(" (", "\n("))
        lower.set_ylabel(label("layer"))
    handles, names = legend_entries([name for name in CLASS_LOOKS if name in shown], sorted(kinds))
    legend_above(figure.axes[0], outside=True, handles=handles, names=names)
    return figure


def _draw_norms(ax: Axes, norms: Sequence[ClassNorms], along: Along) -> set[str]:
    """Draw each class's largest norm at every step, and return the classes that have tokens."""
    shown: set[str] = set()
    for name, (colour, marker, line) in CLASS_LOOKS.items():
        states = [getattr(of, name) for of in norms]
        largest = [np.nanmax(own) if np.isfinite(own).any() else np.nan for own in states]
        if np.isfinite(largest).any():
            style: Style = {"color": colour, "marker": marker, "linestyle": line}
            ax.plot(along.positions, positive(np.array(largest)), markersize=3.6, **style)
            shown.add(name)
    return shown


def _draw_acts(ax: Axes, reports: Sequence[ModelReport], along: Along) -> set[tuple[str, str]]:
    """Draw who writes and who erases massive tokens at every step; return the kinds of marks."""
    kinds: set[tuple[str, str]] = set()
    for position, report in zip(along.positions, reports, strict=True):
        at_block: Counter[int] = Counter()
        for (marker, component, block), count in sorted(acts_of(report).items()):
            height = block - _APART * at_block[block]
            at_block[block] += 1
            style: Style = {"color": component_colour(component), "marker": marker}
            ax.plot(position, height, linestyle="", markersize=5, **style)
            at: Style = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(f"{count}", (position, height), fontsize=SMALL, **at)
            kinds.add((marker, component))
    ax.set_ylim(-0.7, max(len(report.blocks) for report in reports) - 0.3)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if not kinds:
        note(ax, "no token is massive")
    return kinds
