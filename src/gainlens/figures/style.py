"""One look for every figure: sizes, colours, markers, axis labels, ticks, and how to write files.

Colours are Okabe & Ito's (2008), which survive the common colour blindnesses; every one comes with
a marker, a line style or a hatch of its own, so that nothing rests on colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened
from gainlens.records.comparison import ModelReport

ONE_COLUMN: Final = 3.4
TWO_COLUMNS: Final = 7.1
"""Widths in inches of a figure in a paper of two columns."""

Style = dict[str, Any]
"""Keyword arguments of a matplotlib call, where several calls share them."""

SMALL: Final = 7.0
"""Points: ticks, legends and notes; the rest is 8."""

INK: Final = "#222222"
FAINT: Final = "#767676"
"""Grey of notes and of the line at 1; 4.5 : 1 on white, so readable."""

RC: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same on every machine
    "font.size": 8.0,
    "text.color": INK,
    "text.parse_math": False,  # a model's name may hold a dollar sign
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.5,
    "figure.titlesize": 9.0,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,  # asked for figure by figure
    "svg.fonttype": "none",  # text stays text: searchable, and read aloud
    "svg.hashsalt": "gainlens",  # ids without it are random
    "pdf.fonttype": 42,
    "path.simplify": True,
}

styled = rc_context(RC)
"""Decorator of every function that draws; the user's own rcParams are as before afterwards."""


@dataclass(frozen=True)
class Look:
    """How a model appears in every figure."""

    colour: str
    marker: str
    line: Any
    """matplotlib line style"""


_ROLES: Final = {
    "short": (Look("#0072B2", "o", "-"),),
    "long": (Look("#D55E00", "s", (0, (5, 1.5))),),
    "reference": (Look("#000000", "D", (0, (1, 1.2))), Look("#767676", "P", (0, (1, 2.4)))),
    "control": (
        Look("#009E73", "^", (0, (6, 1.5, 1, 1.5))),
        Look("#CC79A7", "v", (0, (3, 1, 1, 1, 1, 1))),
        Look("#56B4E9", "X", (0, (3, 2))),
        Look("#8A7B1E", "h", (0, (8, 2, 2, 2))),
    ),
}

COMPONENTS: Final = {
    "attention": ("#E69F00", "////"),
    "mlp": ("#5B3F8C", ""),
    "remainder": ("#BBBBBB", "\\\\\\\\"),
    "final_norm": ("#6B6B6B", "xxxx"),
}
"""Colour and hatch of a component; none is the colour of a model, and their greys differ."""


def looks(reports: Sequence[ModelReport]) -> tuple[Look, ...]:
    """One look a model: fixed for the short and the long, by order for references and controls."""
    seen: dict[str, int] = {}
    chosen: list[Look] = []
    for report in reports:
        number = seen.get(report.role, 0)
        seen[report.role] = number + 1
        choices = _ROLES[report.role]
        chosen.append(choices[number % len(choices)])
    return tuple(chosen)


def name_of(report: ModelReport, width: int = 30) -> str:
    """Name and role of a model, as legends and titles have it."""
    return f"{shortened(report.checkpoint.name, width)} ({report.role})"


def label(key: str) -> str:
    """Axis label of a glossary term: its label and its unit."""
    term = GLOSSARY[key]
    return f"{term.label} ({term.unit})"


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, known to no pyplot."""
    return Figure(figsize=(width, height), layout="constrained")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """The user's axes, or the only axes of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def root_figure(drawn: Axes | Figure) -> Figure:
    """The figure that holds the axes."""
    holder: Any = drawn if isinstance(drawn, Figure) else drawn.figure
    while isinstance(holder, SubFigure):
        holder = holder.figure
    assert isinstance(holder, Figure), "axes without a figure cannot be drawn"
    return holder


def positive(values: np.ndarray) -> np.ndarray:
    """NaN, a gap in the line, where a logarithmic axis has no place for a value."""
    return np.where(values > 0, values, np.nan)


def number(value: float) -> str:
    """A tick's text, without mathtext: 0.3, 1, 250, then 10⁴."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.6g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = f"{value / 10**exponent:.3g}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def tick(value: float, _: int | None) -> str:
    """`number` as matplotlib's FuncFormatter calls it."""
    return number(value)


def log_axis(axis: Axis) -> None:
    """Logarithmic scale whose ticks are plain numbers, also within one decade.  Call it last: the
    ticks depend on the limits."""
    name = "x" if isinstance(axis, XAxis) else "y"
    axis.axes.set(**{f"{name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(ratio_locator(low, high, 5 if name == "x" else 7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_formatter(NullFormatter())


def ratio_locator(low: float, high: float, bins: int) -> Locator:
    """Places of the ticks of a logarithmic scale: up to `bins` even steps within most of a decade,
    else 1-2-5, 1-3, or powers of ten."""
    decades = math.log10(high / low)
    if decades < 0.8:
        return MaxNLocator(nbins=bins, steps=[1, 2, 5, 10])
    if decades < 2.2:
        return LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1, 3))
    return LogLocator(numticks=8)


def block_axis(ax: Axes, blocks: int) -> None:
    """Whole block indices from 0, with half a block and more of room on either side."""
    ax.set_xlabel(label("layer"))
    room = 0.6 + 0.015 * blocks
    ax.set_xlim(-room, blocks - 1 + room)
    steps = [1, 2, 4, 5, 8, 10]
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=steps))


def threshold(ax: Axes, value: float, *, along: str) -> None:
    """The line between expanding and contracting; `along` is the axis that it is parallel to."""
    draw = ax.axhline if along == "x" else ax.axvline
    draw(value, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)


def legend_above(
    ax: Axes, *, outside: bool, handles: Sequence[Any] = (), names: Sequence[str] = ()
) -> None:
    """Legend over the axes, where it can hide no data, in as many columns (up to 3) as fit.

    `outside` makes it the figure's, over its whole width: for a figure of our own.  In the user's
    figure it belongs to the axes.
    """
    if not handles:
        handles, names = ax.get_legend_handles_labels()
    figure = root_figure(ax)
    for columns in (3, 2, 1):
        if outside:
            legend = figure.legend(handles, names, ncols=columns, loc="outside upper left")
            room = figure.bbox.width
        else:
            at: Style = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
            legend = ax.legend(handles, names, ncols=columns, **at)
            room = ax.bbox.width
        if columns == 1 or legend.get_window_extent().width <= room:
            return
        legend.remove()


def note(ax: Axes, text: str) -> None:
    """Says in the middle of empty axes why they are empty."""
    keywords: Style = {"ha": "center", "va": "center", "color": FAINT, "wrap": True}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **keywords)
