"""Show what orders a figure's reports: the training step, or the length of the prompts.

A curve over blocks or positions takes its colour from pale to strong, and a strip over the panel is
the step's or the length's own axis.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from gainlens.core.names import shortened
from gainlens.figures.looks import MARKERS, STOPS, Look, look, looks, ramp
from gainlens.figures.ordering import Along, names_of, position_text
from gainlens.figures.style import (
    FAINT,
    SMALL,
    Style,
    legend_above,
    root_figure,
)
from gainlens.records.comparison import ModelReport

_WIDE: Final = 20
"""Steps are drawn on a logarithmic axis if the last is more than so many times the first."""
_ROOM: Final = 0.06
"""Share of an axis beyond its first and its last position."""
_ROW: Final = 0.23
"""Inches of the strip per model, if the panel fills 0.7 of its place in the figure."""
_APART: Final = 0.13
"""Share of an axis between two ticks at least."""


def looks_along(reports: Sequence[ModelReport], along: Along | None) -> tuple[Look, ...]:
    """Return one look per report: along a series one colour from pale to strong per model."""
    if along is None:
        return looks(reports)
    found: dict[int, Look] = {}
    for number, places in enumerate(along.lines(names_of(reports)).values()):
        for place, share in zip(places, np.linspace(0, 1, len(places)), strict=True):
            marker = MARKERS[place % len(MARKERS)]
            colour = ramp(look(number).colour)[round(share * (STOPS - 1))]
            found[place] = Look(colour, marker, "-")
    return tuple(found[place] for place in range(len(reports)))


def along_axis(axis: XAxis, along: Along) -> None:
    """Make a horizontal axis the one of steps or lengths, with ticks at some positions."""
    positions = np.array(sorted(set(along.positions)))
    if along.axis == "tokens":
        axis.axes.set_xscale("log", base=2)
    elif positions[-1] > _WIDE * (first := positions[positions > 0][0]):
        axis.axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    scaled = axis.get_transform().transform(positions)
    low, high = scaled[0], scaled[-1]
    if low < high:
        ends = np.array([low, high]) + np.array([-_ROOM, _ROOM]) * (high - low)
        axis.axes.set_xlim(*axis.get_transform().inverted().transform(ends))
    ticks = [positions[-1]]
    for position, at in zip(positions[-2::-1], scaled[-2::-1], strict=True):
        last = scaled[list(positions).index(ticks[-1])]
        if last - at > _APART * (high - low):
            ticks.append(position)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([position_text(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(along.label)


def place_axis(axis: Axis, along: Along, most: int = 8) -> None:
    """Name evenly spaced rows or columns, one per report, by their step or length.

    Of more than `most` every second one is named, or every third, and so on.
    """
    every = -(-len(along.positions) // most)
    axis.set_ticks(range(0, len(along.positions), every), along.ticks[::every])
    axis.set_label_text(along.label)


def legend_along(
    ax: Axes,
    reports: Sequence[ModelReport],
    along: Along | None,
    *,
    outside: bool,
    handles: Sequence[Any] = (),
    names: Sequence[str] = (),
) -> None:
    """Name what the panel shows: models in a legend, or steps and lengths on a strip over it.

    Args:
        ax: the panel, whose labelled artists are the models.
        reports: of the figure.
        along: what orders them.
        outside: whether the legend is the figure's, as in `legend_above`.
        handles: of whatever else the legend names.
        names: one per handle.
    """
    shown, written = ax.get_legend_handles_labels()
    if along is not None:
        shown, written = [], []
        _strip(ax, reports, along)
    shown, written = [*shown, *handles], [*written, *names]
    if shown:
        legend_above(ax, outside=outside, handles=shown, names=written)


def _strip(ax: Axes, reports: Sequence[ModelReport], along: Along) -> None:
    """Draw every report's mark at its step or length, over the panel; a row per model."""
    lines = along.lines(names_of(reports))
    place = ax.get_subplotspec()
    rows = 1 if place is None else place.get_gridspec().nrows
    row = _ROW * rows / root_figure(ax).get_figheight()
    strip = ax.inset_axes((0.0, 1.05, 1.0, row * (len(lines) + 0.4)))
    strip.set_facecolor("none")
    strip.grid(visible=False)
    own = looks_along(reports, along)
    for height, places in enumerate(lines.values()):
        at = [along.positions[place] for place in places]
        strip.plot(at, [height] * len(at), color=FAINT, linewidth=0.6, zorder=1)
        for place in places:
            mark: Style = {"marker": own[place].marker, "color": own[place].colour}
            strip.plot(along.positions[place], height, markersize=5, clip_on=False, **mark)
    strip.set_ylim(len(lines) - 0.5, -0.7)
    many = len(lines) > 1
    strip.set_yticks(
        range(len(lines)) if many else [], [shortened(name, 14) for name in lines] if many else []
    )
    strip.tick_params(axis="y", length=0, labelsize=SMALL - 0.5)
    along_axis(strip.xaxis, along)
    strip.xaxis.set_label_position("top")
    strip.xaxis.tick_top()
    strip.spines["top"].set_visible(True)
    strip.spines[["bottom", "left"]].set_visible(False)
