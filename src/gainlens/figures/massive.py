"""Draw where massive tokens are written and erased, joined to the gain curve."""

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
from gainlens.figures.blocks import Reports, draw_gain, gain_axis, listed
from gainlens.figures.scales import block_axis, log_axis, padded, positive
from gainlens.figures.style import (
    COMPONENTS,
    FAINT,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    label,
    legend_above,
    looks,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition


@dataclass(frozen=True)
class ClassNorms:
    """Median norm of the residual stream by token class, L2 norm.

    Entry l of each is |resid_pre| of block l, the last |resid_post| of the last block; NaN if there
    is no token of the class.
    """

    bos: Float64[np.ndarray, " state"]
    """position 0"""
    massive: Float64[np.ndarray, " state"]
    ordinary: Float64[np.ndarray, " state"]


def class_norms(decomposition: Decomposition) -> ClassNorms:
    """Return each class's median norm at every block's input and at the end, L2 norm.

    `decomposition` is of one model, from `gainlens.decompose`.
    """
    states = [*decomposition.norm_in, decomposition.norm_out[-1]]

    def median(name: TokenClass) -> np.ndarray:
        chosen = decomposition.tokens_of(name)
        return np.array([np.median(norms[chosen]) if chosen.any() else np.nan for norms in states])

    return ClassNorms(median("bos"), median("massive"), median("ordinary"))


CLASS_LOOKS: Final[dict[str, tuple[str, str, Any]]] = {
    "bos": ("#000000", "D", "-"),
    "massive": ("#8C4A0A", "s", (0, (5, 1.5))),
    "ordinary": ("#0B6B63", "o", (0, (1, 1.2))),
}


@styled
def massive_lifecycle(reports: Reports, norms: Mapping[str, ClassNorms]) -> Figure:
    """Draw the norms of position 0, massive and ordinary tokens along the blocks, over the gains.

    A norm stands between two blocks, a gain on its block.  Triangles mark the blocks that write
    (up) and erase (down) massive tokens, in the colour of the component that does it, with the
    number of tokens.  All models share one scale of norms and one of gains.

    Args:
        reports: one model's report, or several.
        norms: the `class_norms` of each model under its checkpoint's name.

    Raises ValueError if a model's norms are missing.
    """
    reports = listed(reports)
    _check_norms(reports, norms)
    columns = across(len(reports) if len(reports) <= 3 else 2 if len(reports) == 4 else 3)
    bands = -(-len(reports) // columns)
    figure = new_figure(TWO_COLUMNS if columns > 1 else TWO_COLUMNS * 0.6, 0.5 + 3.1 * bands)
    grid = figure.add_gridspec(2 * bands, columns, height_ratios=[1.7, 1] * bands)
    lines = sorted({(marker, component) for r in reports for marker, component, _ in acts_of(r)})
    shown = [norms[report.checkpoint.name] for report in reports]
    low, high = padded(np.concatenate([positive(v) for n in shown for v in _each(n)]).tolist())
    step = (high / low) ** 0.11
    for number, (report, look) in enumerate(zip(reports, looks(reports), strict=True)):
        band, column = divmod(number, columns)
        upper = figure.add_subplot(grid[2 * band, column])
        lower = figure.add_subplot(grid[2 * band + 1, column], sharex=upper)
        _draw_norms(upper, shown[number])
        upper.set_ylim(low, high * step ** (len(lines) + 0.3 if lines else 0))
        _draw_acts(upper, report, {line: high * step ** (i + 0.4) for i, line in enumerate(lines)})
        log_axis(upper.yaxis)
        upper.set_title(name_of(report, 20 if columns > 2 else 34))
        _gain_panel(lower, report, look, reports)
        upper.tick_params(labelbottom=False)
        if column == 0:
            upper.set_ylabel(label("norm"))
            lower.set_ylabel(label("gain"))
    _legend(figure, shown, lines)
    return figure


def _check_norms(reports: Sequence[ModelReport], norms: Mapping[str, ClassNorms]) -> None:
    missing = [r.checkpoint.name for r in reports if r.checkpoint.name not in norms]
    if missing:
        raise ValueError(
            f"no norms were given for {', '.join(missing)}; pass class_norms(decomposition) of "
            f"each model under its name, got the names {', '.join(norms) or 'none'}"
        )


def _each(norms: ClassNorms) -> list[np.ndarray]:
    return [getattr(norms, name) for name in CLASS_LOOKS]


def _gain_panel(ax: Axes, report: ModelReport, look: Look, reports: Sequence[ModelReport]) -> None:
    """Draw one model's gains on the scale of all."""
    draw_gain(ax, report, look)
    threshold(ax, 1.0, along="x")
    block_axis(ax, len(report.blocks))
    gain_axis(ax, reports)


def _draw_norms(ax: Axes, norms: ClassNorms) -> None:
    for (colour, marker, line), values in zip(CLASS_LOOKS.values(), _each(norms), strict=True):
        ax.plot(
            np.arange(len(values)) - 0.5,
            positive(values),
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=3,
            markevery=max(1, len(values) // 8),
        )


def acts_of(report: ModelReport) -> Counter[tuple[str, str, int]]:
    """Count the massive tokens per marker (up: written), component and block."""
    return Counter(
        (marker, component or "", block)
        for token in report.massive
        for marker, component, block in (
            ("^", token.written_component, token.written_by),
            ("v", token.erased_component, token.erased_by),
        )
        if block is not None
    )


def _draw_acts(ax: Axes, report: ModelReport, heights: Mapping[tuple[str, str], float]) -> None:
    """Draw triangles over the norms, each kind at its own height."""
    acts = acts_of(report)
    for block in {block for _, _, block in acts}:
        ax.axvspan(block - 0.5, block + 0.5, color="#EEEEEE", linewidth=0, zorder=0)
    for (marker, component, block), count in acts.items():
        height = heights[marker, component]
        ax.plot(block, height, linestyle="", marker=marker, color=component_colour(component), ms=5)
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


def component_colour(component: str) -> str:
    return COMPONENTS[component][0] if component else FAINT


def _legend(figure: Figure, norms: Sequence[ClassNorms], lines: Sequence[tuple[str, str]]) -> None:
    """Put a legend over the panels, of what any of them shows."""
    classes = [
        name for name in CLASS_LOOKS if any(np.isfinite(getattr(of, name)).any() for of in norms)
    ]
    handles, names = legend_entries(classes, lines)
    legend_above(figure.axes[0], outside=True, handles=handles, names=names)


def legend_entries(
    classes: Sequence[str], lines: Sequence[tuple[str, str]]
) -> tuple[list[Line2D], list[str]]:
    """Return a legend's handles and names, of token classes and of (marker, component) pairs."""
    handles: list[Line2D] = []
    names: list[str] = []
    for name in classes:
        colour, marker, line = CLASS_LOOKS[name]
        style: Style = {"color": colour, "marker": marker, "linestyle": line}
        handles.append(Line2D([], [], markersize=3, **style))
        names.append(f"{GLOSSARY[name].label} (median)")
    who = {"attention": "attention", "mlp": "the MLP", "": "neither part"}
    for marker, component in lines:
        colour = component_colour(component)
        handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5))
        names.append(f"{'written' if marker == '^' else 'erased'} by {who[component]} (tokens)")
    return handles, names
