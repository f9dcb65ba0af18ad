"""Draw the notebook's 2 x 2 figure, panel by panel, under its titles and labels."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gainlens.core.names import shortened
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.scales import block_axis, break_above, log_axis
from gainlens.figures.style import (
    SMALL,
    TWO_COLUMNS,
    Style,
    across,
    looks,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.notebook.published import ComparisonRow
from gainlens.records.comparison import ModelReport

_LINE: Final = 52
"""Characters of 7 pt in half of two columns: the names of all bars share them."""


@dataclass(frozen=True)
class _Bar:
    """Hold one model, or one row measured elsewhere."""

    name: str
    context: int
    colour: str
    hatch: str
    last_gain: float
    theta: float
    spectral_norm: float


@styled
def notebook_figure(reports: Reports, references: Sequence[ComparisonRow]) -> Figure:
    """Draw the notebook's four panels: last gain, RoPE theta, sigma_max(W_U), gains of all layers.

    All numbers are in the notebook's convention, on its one sentence.  `references` are rows
    measured elsewhere (the notebook drew Mistral's); they are hatched and say so.
    """
    reports = listed(reports)
    bars = _bars(reports, references)
    names, slanted = _bar_names(bars)
    columns = across(2)
    height = 3.2 if slanted or columns == 1 else 2.7
    figure = new_figure(TWO_COLUMNS, height * 4 / columns)
    gain, theta, spectral, curve = np.ravel(figure.subplots(4 // columns, columns))
    for ax in (gain, theta, spectral):
        ax.set_xticks(range(len(bars)), names, **slanted)
        ax.tick_params(axis="x", length=0)
        ax.grid(visible=False, axis="x")
    _last_gains(gain, bars)
    _thetas(theta, bars)
    _draw_bars(spectral, bars, [bar.spectral_norm for bar in bars], "{:.1f}", fontweight="bold")
    spectral.margins(y=0.12)
    _name(spectral, "Unembedding Matrix Spectral Norm\n(Static Amplification Factor)")
    spectral.set_ylabel("W_U Spectral Norm (σ_max)")
    _curves(curve, reports)
    return figure


def _bars(reports: Sequence[ModelReport], references: Sequence[ComparisonRow]) -> list[_Bar]:
    bars = [
        _Bar(
            report.checkpoint.name,
            report.checkpoint.context,
            look.colour,
            "",
            report.residual.last_gain,
            np.nan if report.rope.rope_theta is None else report.rope.rope_theta,
            report.unembed.spectral_norm,
        )
        for report, look in zip(reports, looks(reports), strict=True)
    ]
    for row in references:
        name = row.label.replace(" (ref)", " (reference)")
        theta = np.nan if row.rope_theta is None else row.rope_theta
        bars.append(
            _Bar(name, row.context, "#BBBBBB", "////", row.last_gain, theta, row.w_u_spectral)
        )
    return bars


def _bar_names(bars: Sequence[_Bar]) -> tuple[list[str], dict[str, Any]]:
    """Return names with contexts: upright if they fit side by side, else slanted."""
    width = _LINE // max(len(bars), 1)
    lines = [
        textwrap.wrap(shortened(bar.name, 3 * width), width, break_long_words=False) for bar in bars
    ]
    if all(len(line) <= width for name in lines for line in name):
        return ["\n".join([*name, _size(b)]) for name, b in zip(lines, bars, strict=True)], {}
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    return [f"{shortened(bar.name, 30)}\n{_size(bar)}" for bar in bars], slanted


def _size(bar: _Bar) -> str:
    return f"({bar.context // 1024}k ctx)" if bar.context >= 1024 else f"({bar.context} ctx)"


def _name(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="center")


def _draw_bars(
    ax: Axes, bars: Sequence[_Bar], values: Sequence[float], pattern: str, **text: Any
) -> None:
    drawn = ax.bar(
        range(len(bars)),
        np.nan_to_num(values),
        0.7,
        color=[bar.colour for bar in bars],
        edgecolor="white",
        hatch=[bar.hatch for bar in bars],
    )
    labels = ["" if np.isnan(value) else pattern.format(value) for value in values]
    size = SMALL - (len(bars) > 4)
    for written in ax.bar_label(drawn, labels, padding=2, fontsize=size, **text):
        written.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 0.6})  # over a line


def _last_gains(ax: Axes, bars: Sequence[_Bar]) -> None:
    _draw_bars(ax, bars, [bar.last_gain for bar in bars], "{:.2f}x", fontweight="bold")
    threshold(ax, 1.0, along="x")
    ax.lines[-1].set_label("Expansion Threshold")
    ax.set_ylim(top=ax.get_ylim()[1] * 1.15)
    ax.legend(loc="upper right", borderaxespad=0)
    _name(ax, "Last Layer Gain Comparison\n(>1 = Expand, <1 = Contract)")
    ax.set_ylabel("Last Layer Gain")


def _thetas(ax: Axes, bars: Sequence[_Bar]) -> None:
    """Draw bars from a decade below the smallest theta: a logarithmic axis has no 0."""
    thetas = [bar.theta for bar in bars]
    upright: dict[str, Any] = {} if across(2) == 2 else {"rotation": 90}
    _draw_bars(ax, bars, thetas, "{:,.0f}", **upright)
    for place in np.flatnonzero(np.isnan(thetas)):
        at: Style = {"transform": ax.get_xaxis_transform(), "ha": "center", "rotation": 90}
        ax.text(float(place), 0.02, "no RoPE", fontsize=SMALL, **at)
    known = [theta for theta in thetas if theta > 0] or [1.0]
    ax.set_ylim(min(known) / 10, max(known) * (10 if upright else 3))
    log_axis(ax.yaxis)
    _name(ax, "RoPE Theta Comparison\n(Higher = Longer Context Support)")
    ax.set_ylabel("RoPE Theta")


def _curves(ax: Axes, reports: Sequence[ModelReport]) -> None:
    for report, look in zip(reports, looks(reports), strict=True):
        gains = np.asarray(report.residual.gains)
        last = len(gains) - 1
        style: Style = {"color": look.colour, "linestyle": look.line, "marker": look.marker}
        ax.plot(gains, linewidth=1.6, markevery=[last], label=name_of(report, 22), **style)
        ax.axvline(last, color=look.colour, linestyle=":", alpha=0.7)
    threshold(ax, 1.0, along="x")
    block_axis(ax, max(len(report.residual.gains) for report in reports))
    gains = [report.residual.gains for report in reports]
    rest = [gain for each in gains for gain in each[1:]]
    break_above(ax, [each[0] for each in gains], [*rest, 0.0, 1.0], log=False)
    ax.set(xlabel="Layer", ylabel="Gain")
    _name(ax, "Layer-wise Gains\n(Last layer highlighted)")
    ax.legend(loc="best")
