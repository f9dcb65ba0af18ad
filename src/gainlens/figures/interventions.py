"""What an intervention does: every component ablated in turn, and RoPE's base on fixed weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from gainlens.claims.wording import component_label
from gainlens.core.glossary import GLOSSARY
from gainlens.figures.style import (
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    Look,
    label,
    log_axis,
    looks,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblationEffect, Change, ThetaDose

QUANTITIES: Final = ("delta_log_gain", "delta_last_gain", "delta_loss")
_PALE: Final = 0.05
"""Changes below this stay pale, so that a panel of next to nothing does not look like a finding."""
_ASIDE: Final = 1.06
"""Factor by which models stand aside of one another along theta, so that no interval is hidden."""


def change_of(change: Change, quantity: str) -> tuple[float, bool]:
    """One change as a number, and whether its interval leaves out 0 (the notebook's has none)."""
    if quantity == "delta_last_gain":
        return change.after.notebook_last_gain - change.before.notebook_last_gain, True
    found: Interval = getattr(change, quantity)
    return found.estimate, bool(found.low > 0 or found.high < 0)


@styled
def ablation_heatmap(
    reports: Sequence[ModelReport],
    effects: Mapping[str, Sequence[AblationEffect]],
    how: str = "zero",
) -> Figure:
    """Every component of the last blocks ablated in turn, in every model: three panels.

    Rows are components, the last block on top, columns models by their markers; a cell is the
    change of the last block's log gain, of the notebook's number, or of the loss.  Grey text: the
    interval holds 0.  A black frame: the last block's behaviour becomes another.  effects: by the
    model's key, from `sweep_last_blocks`; how: zero or mean.  ValueError where no model has one of
    this kind.
    """
    chosen = {
        key: {e.site: e.change for e in found if e.how == how} for key, found in effects.items()
    }
    shown = [report for report in reports if chosen.get(report.checkpoint.name)]
    if not shown:
        raise ValueError(f"there is no ablation by {how} to draw; sweep the models first")
    columns = [chosen[report.checkpoint.name] for report in shown]
    sites = list(dict.fromkeys(site for column in columns for site in column))
    looks_of = [
        look for report, look in zip(reports, looks(reports), strict=True) if report in shown
    ]
    figure = new_figure(TWO_COLUMNS, 1.5 + 0.1 * len(shown) + 0.18 * len(sites))
    panels: Any = figure.subplots(1, len(QUANTITIES), sharey=True)
    for ax, quantity in zip(panels, QUANTITIES, strict=True):
        _draw_map(ax, columns, sites, quantity)
        for place, look in enumerate(looks_of):
            ax.plot(place, -1, marker=look.marker, color=look.colour, ms=5.0, linestyle="")
        ax.set(ylim=(len(sites) - 0.5, -1.6), xlim=(-0.5, len(shown) - 0.5), xticks=[])
    panels[0].set_yticks(range(len(sites)), [component_label(site) for site in sites])
    figure.suptitle(f"{how} ablation of one component at a time", x=0.01, ha="left")
    _map_legend(figure, [name_of(report) for report in shown], looks_of)
    return figure


def _map_legend(figure: Figure, names: Sequence[str], looks_of: Sequence[Look]) -> None:
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour) for look in looks_of
    ]
    handles += [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.3),
        Rectangle((0, 0), 1, 1, facecolor=FAINT, linewidth=0),
    ]
    marks = ["the last block's behaviour becomes another", "in grey: the interval holds 0"]
    figure.legend(handles, [*names, *marks], loc="outside lower left", ncols=2)


def _draw_map(
    ax: Axes, columns: Sequence[Mapping[str, Change]], sites: Sequence[str], quantity: str
) -> None:
    values = np.full((len(sites), len(columns)), np.nan)
    for place, column in enumerate(columns):
        for row, site in enumerate(sites):
            if site in column:
                values[row, place] = change_of(column[site], quantity)[0]
    size = max(float(np.nanmax(np.abs(values))), _PALE)
    ax.imshow(values, cmap="PuOr_r", norm=TwoSlopeNorm(0.0, -size, size), aspect="auto")
    for place, column in enumerate(columns):
        for row, site in enumerate(sites):
            if site in column:
                _draw_cell(ax, place, row, column[site], quantity, size)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    term = GLOSSARY[quantity]
    ax.set_title(f"{_wrapped(term.label)}\n({term.unit})", fontsize=SMALL)


def _draw_cell(ax: Axes, place: int, row: int, change: Change, quantity: str, size: float) -> None:
    value, clear = change_of(change, quantity)
    dark = abs(value) > 0.6 * size
    ax.text(
        place,
        row,
        f"{value:+.2f}".replace("-", "−"),
        ha="center",
        va="center",
        fontsize=SMALL - 0.5,
        color="white" if dark else INK if clear else FAINT,
    )
    if quantity == "delta_log_gain" and change.before.behaviour != change.after.behaviour:
        frame = Rectangle((place - 0.47, row - 0.45), 0.94, 0.9, fill=False)
        halo = withStroke(linewidth=2.8, foreground="white")  # a frame on dark cells is seen too
        frame.set(edgecolor=INK, linewidth=1.3, path_effects=[halo])
        ax.add_patch(frame)


def _wrapped(text: str) -> str:
    """Two lines of a title, broken at the space nearest its middle."""
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if not spaces:
        return text
    middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"


@styled
def theta_dose(reports: Sequence[ModelReport], doses: Mapping[str, Sequence[ThetaDose]]) -> Figure:
    """The same weights under other RoPE bases: change of the last block's log gain, and of the
    loss, against theta; one curve a model, with intervals over prompts.

    The large marker is the base that a model was trained with, where the change is 0 by
    definition.  doses: by the model's key, from `interventions.theta_dose`.  ValueError without.
    """
    shown = [report for report in reports if doses.get(report.checkpoint.name)]
    if not shown:
        raise ValueError(
            "there is no dose of theta to draw; measure the models under --theta first"
        )
    look_of = dict(zip((r.checkpoint.name for r in reports), looks(reports), strict=True))
    figure = new_figure(TWO_COLUMNS, 2.6 + 0.1 * len(shown))
    panels: Any = figure.subplots(1, 2)
    for ax, quantity in zip(panels, ("delta_log_gain", "delta_loss"), strict=True):
        for place, report in enumerate(shown):
            name = report.checkpoint.name
            aside = _ASIDE ** (place - (len(shown) - 1) / 2)
            _draw_dose(ax, doses[name], look_of[name], quantity, name_of(report), aside)
        threshold(ax, 0.0, along="x")
        ax.set_xlabel(label("rope_theta"))
        ax.set_ylabel(label(quantity))
        log_axis(ax.xaxis)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2)
    return figure


def _draw_dose(
    ax: Axes, doses: Sequence[ThetaDose], look: Look, quantity: str, name: str, aside: float
) -> None:
    found: list[Interval] = [getattr(dose.change, quantity) for dose in doses]
    theta = [dose.theta * aside for dose in doses]
    value = [interval.estimate for interval in found]
    colour, marker = look.colour, look.marker
    ax.plot(theta, value, color=colour, linestyle=look.line, marker=marker, ms=3.2, label=name)
    for place, interval in zip(theta, found, strict=True):
        if np.isfinite([interval.low, interval.high]).all():
            ax.vlines(place, interval.low, interval.high, color=colour, linewidth=1.0)
    for dose, at in zip(doses, value, strict=True):
        if dose.own:
            ax.plot(
                dose.theta * aside,
                at,
                color=colour,
                marker=marker,
                ms=7.0,
                mec=INK,
                mew=0.8,
                zorder=4,
            )
