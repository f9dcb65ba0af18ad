"""Where massive tokens are written and erased, joined to the gain curve."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gainlens.core.glossary import GLOSSARY
from gainlens.core.vocabulary import TokenClass
from gainlens.figures.blocks import draw_gain
from gainlens.figures.style import (
    COMPONENTS,
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    block_axis,
    label,
    log_axis,
    looks,
    name_of,
    new_figure,
    positive,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition


@dataclass(frozen=True)
class ClassNorms:
    """Median norm of the residual stream by token class, L2 norm.

    Entry l of each is |resid_pre| of block l, the last |resid_post| of the last block; NaN where
    there is no token of the class.
    """

    bos: Float64[np.ndarray, " state"]
    """position 0"""
    massive: Float64[np.ndarray, " state"]
    ordinary: Float64[np.ndarray, " state"]


def class_norms(decomposition: Decomposition) -> ClassNorms:
    """Median over the tokens of each class of the norm at every block's input and at the end.

    `decomposition` is of one model, from `gainlens.decompose`; L2 norms.
    """
    states = [*decomposition.norm_in, decomposition.norm_out[-1]]

    def median(name: TokenClass) -> np.ndarray:
        chosen = decomposition.tokens_of(name)
        return np.array([np.median(norms[chosen]) if chosen.any() else np.nan for norms in states])

    return ClassNorms(median("bos"), median("massive"), median("ordinary"))


_CLASS_LOOKS: Final[dict[str, tuple[str, str, Any]]] = {
    "bos": ("#000000", "D", "-"),
    "massive": ("#8C4A0A", "s", (0, (5, 1.5))),
    "ordinary": ("#0B6B63", "o", (0, (1, 1.2))),
}


@styled
def massive_lifecycle(reports: Sequence[ModelReport], norms: Mapping[str, ClassNorms]) -> Figure:
    """Norm of position 0, massive and ordinary tokens along the blocks; below, the gain curve.

    `norms` holds the `class_norms` of each model under its checkpoint's name.  A norm stands
    between two blocks, a gain on its block.  Triangles mark the blocks that write (up) and erase
    (down) massive tokens, in the colour of the component that does it, with the number of tokens.
    Raises ValueError where a model's norms are missing.
    """
    missing = [r.checkpoint.name for r in reports if r.checkpoint.name not in norms]
    if missing:
        raise ValueError(
            f"no norms were given for {', '.join(missing)}; pass class_norms(decomposition) of "
            f"each model under its name, got the names {', '.join(norms) or 'none'}"
        )
    columns = len(reports) if len(reports) <= 3 else 2 if len(reports) == 4 else 3
    bands = -(-len(reports) // columns)
    figure = new_figure(TWO_COLUMNS if columns > 1 else TWO_COLUMNS * 0.6, 0.5 + 3.1 * bands)
    grid = figure.add_gridspec(2 * bands, columns, height_ratios=[1.7, 1] * bands)
    for number, (report, look) in enumerate(zip(reports, looks(reports), strict=True)):
        band, column = divmod(number, columns)
        upper = figure.add_subplot(grid[2 * band, column])
        lower = figure.add_subplot(grid[2 * band + 1, column], sharex=upper)
        _norm_panel(upper, report, norms[report.checkpoint.name])
        upper.set_title(name_of(report, 20 if columns > 2 else 34))
        draw_gain(lower, report, look)
        threshold(lower, 1.0, along="x")
        log_axis(lower.yaxis)
        block_axis(lower, len(report.blocks))
        upper.tick_params(labelbottom=False)
        if column == 0:
            upper.set_ylabel(label("norm"))
            lower.set_ylabel(label("gain"))
    _legend(figure)
    return figure


def _norm_panel(ax: Axes, report: ModelReport, norms: ClassNorms) -> None:
    for name in _CLASS_LOOKS:
        colour, marker, line = _CLASS_LOOKS[name]
        values = positive(getattr(norms, name))
        ax.plot(
            np.arange(len(values)) - 0.5,
            values,
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=3,
            markevery=max(1, len(values) // 8),
        )
    log_axis(ax.yaxis)
    _write_and_erase_marks(ax, report)


def _write_and_erase_marks(ax: Axes, report: ModelReport) -> None:
    """Triangles over the data, a line for each direction and component that occurs."""
    acts = Counter(
        (marker, component, block)
        for token in report.massive
        for marker, component, block in (
            ("^", token.written_component, token.written_by),
            ("v", token.erased_component, token.erased_by),
        )
        if block is not None
    )
    lines = sorted({(marker, component or "") for marker, component, _ in acts})
    low, high = ax.get_ylim()
    step = (high / low) ** 0.11
    ax.set_ylim(low, high * step ** (len(lines) + 0.3 if lines else 0))
    for block in {block for _, _, block in acts}:
        ax.axvspan(block - 0.5, block + 0.5, color="#EEEEEE", linewidth=0, zorder=0)
    for (marker, component, block), count in acts.items():
        height = high * step ** (lines.index((marker, component or "")) + 0.4)
        colour = COMPONENTS[component][0] if component else FAINT
        ax.plot(block, height, linestyle="", marker=marker, color=colour, markersize=5)
        late = block > 0.7 * len(report.blocks)
        ax.annotate(
            f"{count}",
            (block, height),
            xytext=(-5 if late else 5, -0.5),
            textcoords="offset points",
            ha="right" if late else "left",
            va="center",
            fontsize=SMALL,
        )


def _legend(figure: Figure) -> None:
    handles: list[Line2D] = []
    names: list[str] = []
    for name in _CLASS_LOOKS:
        colour, marker, line = _CLASS_LOOKS[name]
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=3))
        names.append(f"{GLOSSARY[name].label} (median)")
    for marker, verb in (("^", "written by"), ("v", "erased by")):
        for component in ("attention", "mlp"):
            colour = COMPONENTS[component][0]
            handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5))
            names.append(
                f"{verb} {'attention' if component == 'attention' else 'the MLP'} (tokens)"
            )
    figure.legend(handles, names, loc="outside upper left", ncols=4, labelcolor=INK)
