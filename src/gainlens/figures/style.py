"""Set one look for every figure: sizes, colours, markers, labels and legends.

Colours are Okabe & Ito's (2008), which survive the common colour blindnesses; every one comes with
a marker, a line style or a hatch of its own, so that nothing rests on colour alone.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened
from gainlens.figures.looks import Look as Look
from gainlens.figures.looks import look as look
from gainlens.figures.looks import looks as looks
from gainlens.records.comparison import ModelReport

ONE_COLUMN: Final = 3.3
TWO_COLUMNS: Final = 7.1
"""Widths in inches of a figure in a paper of two columns."""

_in_one_column: ContextVar[bool] = ContextVar("in_one_column", default=False)

Style = dict[str, Any]
"""Keyword arguments of a matplotlib call, where several calls share them."""

SMALL: Final = 7.0
"""Points: ticks, legends and notes; the rest is 8."""

INK: Final = "#222222"
FAINT: Final = "#767676"
"""Grey of notes and of the line at 1; 4.5 : 1 on white, so readable."""

ON_PALE: Final = "#232323"
ON_PALE_FAINT: Final = "#666666"
ON_DARK: Final = "#FEFEFE"
"""Ink on a coloured cell.  They differ from INK, FAINT and white, which a dark page exchanges."""

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
    "legend.handlelength": 3.2,
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


COMPONENTS: Final = {
    "attention": ("#E69F00", "////"),
    "mlp": ("#5B3F8C", ""),
    "remainder": ("#BBBBBB", "\\\\\\\\"),
    "final_norm": ("#6B6B6B", "xxxx"),
}
"""Colour and hatch of a component; none is the colour of a model, and their greys differ."""


def name_of(report: ModelReport, width: int = 30) -> str:
    """Return a model's name, and its role in a claim, as legends and titles show them."""
    name = shortened(report.checkpoint.name, width)
    return name if report.role == "model" else f"{name} ({report.role})"


def label(key: str) -> str:
    """Return the axis label of a glossary term: its label and its unit."""
    term = GLOSSARY[key]
    return f"{term.label} ({term.unit})"


@contextmanager
def one_column() -> Generator[None]:
    """Draw every figure for one column of a paper, or for a phone: 3.3 inches wide.

    A figure of several panels puts them below one another, so that its text keeps its size.
    """
    token = _in_one_column.set(True)
    try:
        yield
    finally:
        _in_one_column.reset(token)


def across(panels: int) -> int:
    """Return how many of so many panels stand beside one another: all, or one in one column."""
    return 1 if _in_one_column.get() else panels


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot does not know, at most as wide as it may be."""
    if _in_one_column.get():
        width = min(width, ONE_COLUMN)
    return Figure(figsize=(width, height), layout="constrained")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the user's axes, or the only axes of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def root_figure(drawn: Axes | Figure) -> Figure:
    """Return the figure that holds the axes."""
    holder: Any = drawn if isinstance(drawn, Figure) else drawn.figure
    while isinstance(holder, SubFigure):
        holder = holder.figure
    assert isinstance(holder, Figure), "axes without a figure cannot be drawn"
    return holder


def threshold(ax: Axes, value: float, *, along: str) -> None:
    """Draw the line between expanding and contracting, parallel to the axis `along`."""
    draw = ax.axhline if along == "x" else ax.axvline
    draw(value, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)


def legend_above(
    ax: Axes, *, outside: bool, handles: Sequence[Any] = (), names: Sequence[str] = ()
) -> None:
    """Put a legend over the axes, where it hides no data, in as many columns (up to 3) as fit.

    If `outside`, the legend is the figure's and has its whole width, as in a figure of our own.  In
    the user's figure it belongs to the axes.
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
    """Say in the middle of empty axes why they are empty."""
    keywords: Style = {"ha": "center", "va": "center", "color": FAINT, "wrap": True}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **keywords)


def beside(ax: Axes, text: str, height: float, *, right: bool = False, **style: Any) -> None:
    """Write a text at a height of the data, left of the axes or right of them."""
    place: Style = {"xytext": (3 if right else -4, 0), "ha": "left" if right else "right"}
    ax.annotate(
        text,
        (1 if right else 0, height),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        **place | style,
    )
