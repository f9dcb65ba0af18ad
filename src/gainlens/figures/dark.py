"""Redraw an SVG of ours for a dark page: every colour of the palette has a dark partner.

A filter would turn hues and greys alike; here each partner is chosen by hand, so that lines keep at
least 3 : 1 and text 4.5 : 1 against the dark paper.
"""

import re
from typing import Final

from gainlens.figures.looks import COLOURS, ramp

PAPER: Final = "#14171a"
"""Background of the page in dark mode; report.css has the same."""

_HAND_MADE: Final = {
    "#ffffff": PAPER,
    "#222222": "#e6e8ea",
    "#767676": "#9aa2ab",
    "#000000": "#e6e8ea",
    "#e6e6e6": "#2b3036",
    "#eeeeee": "#22272c",
    "#cccccc": "#4a5159",
    "#bbbbbb": "#6c747d",
    "#6b6b6b": "#a9b0b8",
    "#f3ebd3": "#37301c",
    "#0072b2": "#4da6e0",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc79b",
    "#cc79a7": "#e29cc4",
    "#56b4e9": "#7fcaf2",
    "#8a7b1e": "#c9b84a",
    "#882255": "#e68bb5",
    "#117733": "#5fbf7d",
    "#5b3f8c": "#a98de0",
    "#e69f00": "#e69f00",
    "#8c4a0a": "#d8935a",
    "#0b6b63": "#3fb8ac",
}
"""Colour on white paper -> colour on dark paper."""

PARTNERS: Final = {
    stop: partner
    for colour in COLOURS
    for stop, partner in zip(
        ramp(colour), ramp(_HAND_MADE[colour.lower()], PAPER, "#FFFFFF"), strict=True
    )
} | _HAND_MADE
"""The same with the colours along a series: the last step stands out most on either paper."""

KEPT: Final = frozenset({"#232323", "#fefefe", "#666666"})
"""Ink on a coloured cell: the cell is the same on either paper, so its ink is too."""


def dark_svg(svg: str) -> str:
    """Return the SVG with every colour exchanged for its dark partner; others stay as they are."""
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: _partner(found[0]), svg)


def _partner(colour: str) -> str:
    return PARTNERS.get(colour.lower(), colour)
