"""Draw maps: any metric by block and token, and any number by block and head (L4H0)."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, Normalize, TwoSlopeNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened
from gainlens.figures.along import place_axis
from gainlens.figures.ordering import Along
from gainlens.figures.scales import tick
from gainlens.figures.style import (
    INK,
    SMALL,
    TWO_COLUMNS,
    across,
    axes_or_new,
    label,
    new_figure,
    root_figure,
    styled,
)
from gainlens.metrics.registry import METRICS

_CLIP: Final = 0.99
"""The colour saturates at this quantile of the sizes, so that one token does not pale the rest."""
_TEXTS: Final = 48
"""Up to this many tokens are named below a map."""
_TOP: Final = 10

Values = np.ndarray | Mapping[str, np.ndarray]
"""One model's array, or arrays by model key."""


@styled
def token_map(
    values: np.ndarray,
    texts: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    metric: str = "log_gain",
    neutral: float | None = 0.0,
    along: Along | None = None,
) -> Axes:
    """Draw one number of every block and token of a prompt as colours; unknown cells are grey.

    The scale of colours is a square root, so that the first block does not pale the others.

    Args:
        values: [block, token], such as a slice of `decomposition.log_gain`; or one block's values
            along a series, [step or length, token].
        texts: the tokens' texts, written below if there are at most 48.
        ax: axes to draw into; a new figure's if None.
        metric: its name; a key of the glossary gives label and unit.
        neutral: the value drawn pale, red above and blue below; None for a scale of one colour.
        along: the steps or the prompt lengths, if each row is one of them; None: rows are blocks.

    Raises ValueError if `texts` has another length than the tokens of `values`.
    """
    blocks, tokens = _checked(values, texts)
    panel = axes_or_new(ax, TWO_COLUMNS, 1.3 + 0.13 * blocks)
    image = draw_cells(panel, values, colour_norm([values], neutral, root=True))
    colour_bar(image, panel.inset_axes((1.01, 0.0, 0.015, 1.0)), metric)
    if along is None:
        panel.set_ylabel(label("layer"))
        panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    else:
        place_axis(panel.yaxis, along)
    if texts is not None and tokens <= (_TEXTS if across(2) == 2 else _TEXTS // 2):
        names = [shortened(text.strip() or "␣", 12) for text in texts]
        panel.set_xticks(range(tokens), names, rotation=90, fontsize=SMALL - 1)
    else:
        panel.set_xlabel(label("position"))
    return panel


def interactive_token_map(
    values: np.ndarray,
    texts: Sequence[str] | None = None,
    *,
    metric: str = "log_gain",
    neutral: float | None = 0.0,
) -> Any:
    """Return `token_map` as a plotly figure, which shows token, block and number under the mouse.

    It needs plotly (`pip install plotly`); a notebook shows the figure as it is, and its
    `write_html` makes a page.  Colours are those of `token_map`; the arguments are as there.

    Raises ValueError if plotly is not installed, or if `texts` has another length than the tokens.
    """
    try:
        import plotly.graph_objects as plotly
    except ImportError:
        raise ValueError(
            "an interactive map needs plotly: run `pip install plotly`, or draw token_map"
        ) from None
    _, tokens = _checked(values, texts)
    norm = colour_norm([values], neutral, root=True)
    shares = np.where(np.isfinite(values), np.ma.filled(norm(values), 0.5), np.nan)
    map_of_colours = _colours(norm)
    names = [f"[{place}]" for place in range(tokens)] if texts is None else list(texts)
    marks = np.linspace(0, 1, 5)
    where = [f"{escape(repr(name))}, position {place}" for place, name in enumerate(names)]
    figure = plotly.Figure(
        plotly.Heatmap(
            z=np.clip(shares, 0, 1),
            zmin=0,
            zmax=1,
            text=[[f"{value:.4g}" for value in row] for row in values],
            customdata=[where] * len(values),
            hovertemplate="%{customdata}, block %{y}: %{text}<extra></extra>",
            colorscale=[[share, to_hex(map_of_colours(share))] for share in np.linspace(0, 1, 33)],
            colorbar={
                "title": _label(metric),
                "tickvals": marks.tolist(),
                "ticktext": [f"{float(norm.inverse(mark)):.3g}" for mark in marks],
            },
        )
    )
    ticks: dict[str, Any] = {"title": label("position")}
    if texts is not None and tokens <= _TEXTS:
        shown = [escape(shortened(name.strip() or "␣", 12)) for name in names]
        ticks = {"tickvals": list(range(tokens)), "ticktext": shown}
    figure.update_layout(
        xaxis=ticks, yaxis_title=label("layer"), plot_bgcolor="#BBBBBB", height=420
    )
    return figure


def _checked(values: np.ndarray, texts: Sequence[str] | None) -> tuple[int, int]:
    """Return the numbers of blocks and tokens; raise ValueError if the texts are not one each."""
    blocks, tokens = values.shape
    if texts is not None and len(texts) != tokens:
        raise ValueError(f"values have {tokens} tokens and texts {len(texts)}; give one text each")
    return blocks, tokens


@styled
def head_map(
    values: Values, *, metric: str = "head_part", neutral: float | None = 0.0, top: int = _TOP
) -> Figure:
    """Draw one number of every head, and rank the heads of largest size: L4H0 is head 0 of block 4.

    Per model a map by block and head on the left, and bars of its `top` heads on the right; all
    models share one scale.

    Args:
        values: [block, head], or such arrays by model key; for example the mean over prompts of
            `head_split`.
        metric: its name; a key of the glossary gives label and unit.
        neutral: the value from which the size of a head counts; None counts from 0.
        top: how many heads are ranked.

    Raises ValueError if there is no array.
    """
    arrays = {"": values} if isinstance(values, np.ndarray) else dict(values)
    if not arrays:
        raise ValueError(
            "there are no heads to draw; capture with heads=True and pass [block, head]"
        )
    wide = across(2) == 2
    deep = 0.9 + 0.14 * top
    figure = new_figure(TWO_COLUMNS, 0.3 + len(arrays) * deep * (1 if wide else 2))
    grid = figure.add_gridspec(
        len(arrays) * (1 if wide else 2), 3 if wide else 2,
        width_ratios=[1.2, 0.03, 1] if wide else [1, 0.05],
    )  # fmt: skip
    norm = colour_norm(list(arrays.values()), neutral, root=False)
    ends = [float(end(array)) for array in arrays.values() for end in (np.nanmin, np.nanmax)]
    ends.append(neutral or 0.0)
    room = 0.4 * max(max(ends) - min(ends), 1e-9)  # for the values beside the bars
    images: list[Any] = []
    for row, (name, array) in enumerate(arrays.items()):
        at = (grid[row, 0], grid[row, 2]) if wide else (grid[2 * row, 0], grid[2 * row + 1, 0])
        left, right = map(figure.add_subplot, at)
        images.append(draw_cells(left, array, norm))
        left.set(xlabel="head", ylabel=label("layer"), title=shortened(name, 40))
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _rank(right, array, norm, neutral or 0.0, top)
        right.set_xlim(min(ends) - room, max(ends) + room)
        right.set_xlabel(_label(metric))
    colour_bar(images[0], figure.add_subplot(grid[:, 1] if wide else grid[0, 1]), metric)
    return figure


def top_heads(
    values: np.ndarray, count: int = _TOP, neutral: float = 0.0
) -> list[tuple[str, float]]:
    """Return the heads of largest size, named L4H0, with their values; [block, head]."""
    sizes = np.nan_to_num(np.abs(values - neutral), nan=-1.0)
    order = np.argsort(-sizes, axis=None, kind="stable")[:count]
    places = [divmod(int(place), values.shape[1]) for place in order]
    return [(f"L{block}H{head}", float(values[block, head])) for block, head in places]


def _rank(ax: Axes, values: np.ndarray, norm: Normalize, neutral: float, top: int) -> None:
    """Draw a bar per head of largest size, in its colour on the map, with its name and value."""
    ranked = top_heads(values, top, neutral)
    numbers = [value for _, value in ranked]
    colours = [_colours(norm)(norm(value)) for value in numbers]
    ax.barh(range(len(ranked)), [value - neutral for value in numbers], left=neutral,
            color=colours, edgecolor=INK, linewidth=0.4)  # fmt: skip
    ax.set_yticks(range(len(ranked)), [name for name, _ in ranked])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.axvline(neutral, color=INK, linewidth=0.6)
    for place, value in enumerate(numbers):
        right = value >= neutral
        ax.annotate(
            f"{value:+.3g}".replace("-", "−"), (value, place),
            xytext=(3 if right else -3, 0), textcoords="offset points",
            ha="left" if right else "right", va="center", fontsize=SMALL,
        )  # fmt: skip


def draw_cells(ax: Axes, values: np.ndarray, norm: Normalize) -> Any:
    """Draw the cells, block 0 at the bottom, and return the image."""
    ax.set_facecolor("#BBBBBB")
    ax.grid(visible=False)
    return ax.imshow(
        np.ma.masked_invalid(values), cmap=_colours(norm), norm=norm, aspect="auto",
        origin="lower", interpolation="nearest",
    )  # fmt: skip


def colour_bar(image: Any, into: Axes, metric: str) -> None:
    """Draw the one bar of colours; its ends point on, since colours saturate."""
    bar = root_figure(into).colorbar(image, cax=into, extend="both")
    bar.set_label(_label(metric))
    bar.locator = MaxNLocator(5)
    bar.formatter = FuncFormatter(tick)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _colours(norm: Normalize) -> Any:
    return colormaps["viridis" if type(norm) is Normalize else "RdBu_r"]


def colour_norm(arrays: Sequence[np.ndarray], neutral: float | None, *, root: bool) -> Normalize:
    """Return one scale for all arrays, symmetric around the neutral value if there is one."""
    numbers = np.concatenate([array[np.isfinite(array)] for array in arrays])
    if not len(numbers):
        numbers = np.zeros(1)
    if neutral is None:
        low, high = (float(np.quantile(numbers, share)) for share in (1 - _CLIP, _CLIP))
        return Normalize(low, max(high, low + 1e-12))
    size = float(np.quantile(np.abs(numbers - neutral), _CLIP)) or 1.0
    if not root:
        return TwoSlopeNorm(neutral, neutral - size, neutral + size)

    def rooted(values: Any) -> Any:
        return np.sign(values - neutral) * np.sqrt(np.abs(values - neutral))

    def squared(roots: Any) -> Any:
        return neutral + np.sign(roots) * np.square(roots)

    return FuncNorm((rooted, squared), neutral - size, neutral + size)


def _label(metric: str) -> str:
    term = GLOSSARY.get(metric)
    if term is not None:
        return f"{term.label} ({term.unit})"
    return f"{metric} ({METRICS[metric].unit})" if metric in METRICS else metric
