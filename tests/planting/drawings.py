"""TODO: planting/drawings.py."""

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gainlens.figures.style import (
    root_figure,
)


def texts_of(drawn: Axes | Figure) -> list[str]:
    return [text.get_text() for text in root_figure(drawn).findobj(Text) if text.get_text()]


def boxes_of(figure: Figure) -> Iterator[tuple[object, Bbox]]:
    """Every text that is drawn (an axis' tick labels and label as one), with its place."""
    for ax in figure.axes:
        for panel in (ax, *ax.child_axes):
            for text in (*panel.texts, panel.title, panel._left_title):
                if text.get_text():
                    yield text, text.get_window_extent()
            for axis in (panel.xaxis, panel.yaxis):
                box = axis.get_tightbbox() if panel.axison and axis.get_visible() else None
                if box is not None:
                    yield axis, box
            if panel.get_legend():
                yield panel.get_legend(), panel.get_legend().get_window_extent()
    for artist in (*figure.texts, *figure.legends):
        yield artist, artist.get_window_extent()
