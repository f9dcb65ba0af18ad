"""Give every model one look in all figures and on the page.  No matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gainlens.records.comparison import ModelReport


@dataclass(frozen=True)
class Look:
    """Hold how a model appears in every figure."""

    colour: str
    marker: str
    line: Any
    """matplotlib line style"""


_FIRST: Final = {"model": 0, "short": 0, "long": 1, "control": 2, "reference": 6}
"""Place in the list of colours at which a role starts, so that most comparisons look alike."""

COLOURS: Final = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8A7B1E", "#000000", "#882255",
    "#117733", "#767676",
)  # fmt: skip
STOPS: Final = 24
"""Colours of a model along a series, from pale to strong."""
_PALE: Final = 0.4
_STRONG: Final = 0.5
"""Shares of white in the palest colour and of black in the strongest."""
MARKERS: Final = ("o", "s", "^", "v", "X", "h", "D", "P", "*", "<", ">", "p", "d")
_LINES: Final[tuple[Any, ...]] = (
    "-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (3, 2)),
    (0, (8, 2, 2, 2)), (0, (1, 1.2)), (0, (10, 2)), (0, (2, 1, 5, 1)), (0, (1, 2.4)),
)  # fmt: skip


def looks(reports: Sequence[ModelReport]) -> tuple[Look, ...]:
    """Return one look per model; no two models share one.

    Up to ten models differ in colour and in marker.  More repeat colours under other markers: 130
    pairs are distinct, since the numbers of colours and of markers share no factor.
    """
    order: list[int] = []
    for report in reports:
        start = _FIRST[report.role]
        rest = range(len(COLOURS) * len(MARKERS))
        preferred = (start, *range(max(start, 2), len(COLOURS)), *rest[2:], *rest)
        order.append(next(number for number in preferred if number not in order))
    return tuple(look(number) for number in order)


def look(number: int) -> Look:
    """Return the look at a place in the list."""
    choices = (COLOURS, MARKERS, _LINES)
    return Look(*(choice[number % len(choice)] for choice in choices))


def ramp(colour: str, pale: str = "#FFFFFF", strong: str = "#000000") -> list[str]:
    """Return a colour's stops from pale to strong, as lower-case hex.

    The first is mixed with `pale` and the last with `strong`.
    """
    ends = [
        [
            (1 - share) * own + share * other
            for own, other in zip(_rgb(colour), _rgb(end), strict=True)
        ]
        for end, share in ((pale, _PALE), (strong, _STRONG))
    ]
    shares = [stop / (STOPS - 1) for stop in range(STOPS)]
    return [
        "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))
        for share in shares
    ]


def _rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
