"""Draw what interventions do: components ablated in turn, and other RoPE bases."""

import textwrap
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
from gainlens.figures.along import legend_along, looks_along, place_axis
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.ordering import Along, names_of
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    FAINT,
    INK,
    ON_DARK,
    ON_PALE,
    ON_PALE_FAINT,
    SMALL,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    label,
    look,
    looks,
    name_of,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblationEffect, Change, ThetaDose

_OWN: Final[Style] = {"markersize": 7.0, "markeredgecolor": INK, "markeredgewidth": 0.8}
"""The mark of the base that a model was trained with."""
_BESIDE: Final = 6
"""Up to so many columns the panels stand beside one another."""
QUANTITIES: Final = ("delta_log_gain", "delta_last_gain", "delta_loss")
_PALE: Final = 0.05
"""Changes below this stay pale, so that a panel of next to nothing does not look like a finding."""
_ASIDE: Final = 1.1
"""Factor by which models stand aside of one another along theta, so that no interval is hidden."""


def change_of(change: Change, quantity: str) -> tuple[float, bool]:
    """Return a change, and whether its interval leaves out 0; the notebook's has no interval."""
    if quantity == "delta_last_gain":
        return change.after.notebook_last_gain - change.before.notebook_last_gain, True
    interval: Interval = getattr(change, quantity)
    return interval.estimate, bool(interval.low > 0 or interval.high < 0)


@styled
def ablation_heatmap(
    reports: Reports,
    effects: Mapping[str, Sequence[AblationEffect]],
    how: str = "zero",
    *,
    along: Along | None = None,
) -> Figure:
    """Draw what each ablated component of the last blocks changes, in every model: three panels.

    Rows are components, the last block on top, and columns models by their markers.  A cell is the
    change of the last block's log gain, of the notebook's number, or of the loss; all panels share
    one scale of colours.  Grey text: the interval holds 0.  A black frame: the last block's
    behaviour becomes another.

    Args:
        reports: one model's report, or several.
        effects: by the model's key, from `sweep_last_blocks`.
        how: zero or mean.
        along: the step or the prompt length of every report, written under its column.

    Raises ValueError if no model has an ablation of this kind.
    """
    reports = listed(reports)
    changes = {
        key: {e.site: e.change for e in swept if e.how == how} for key, swept in effects.items()
    }
    shown = [
        (report, own)
        for report, own in zip(reports, _column_looks(reports, along), strict=True)
        if changes.get(report.checkpoint.name)
    ]
    if not shown:
        raise ValueError(f"there is no ablation by {how} to draw; sweep the models first")
    columns = [changes[report.checkpoint.name] for report, _ in shown]
    sites = list(dict.fromkeys(site for column in columns for site in column))
    beside = across(len(QUANTITIES)) if len(shown) <= _BESIDE else 1
    rows = len(QUANTITIES) // beside
    figure = new_figure(TWO_COLUMNS, 0.9 + (0.6 + 0.1 * len(shown) + 0.18 * len(sites)) * rows)
    panels: Any = np.ravel(figure.subplots(rows, beside, sharey=True))
    cells = [change for column in columns for change in column.values()]
    sizes = [abs(change_of(change, name)[0]) for change in cells for name in QUANTITIES]
    size = max(float(np.nanmax(sizes)), _PALE)
    marked = along is None or len(along.lines(names_of(reports))) > 1
    for ax, quantity in zip(panels, QUANTITIES, strict=True):
        _draw_map(ax, columns, sites, quantity, size)
        for place, (_, own) in enumerate(shown if marked else ()):
            ax.plot(place, -1, marker=own.marker, color=own.colour, ms=5.0, linestyle="")
        top = -1.6 if marked else -0.6
        ax.set(ylim=(len(sites) - 0.5, top), xlim=(-0.5, len(shown) - 0.5), xticks=[])
        if along is not None:
            place_axis(ax.xaxis, along.of([reports.index(report) for report, _ in shown]))
    panels[0].set_yticks(range(len(sites)), [component_label(site) for site in sites])
    figure.suptitle(f"{how} ablation of one component at a time", x=0.01, ha="left")
    models = {name_of(report): own for report, own in shown}
    if along is not None:
        names = list(along.lines(names_of(reports)))
        models = {name: look(number) for number, name in enumerate(names) if len(names) > 1}
    _map_legend(figure, models, cells)
    return figure


def _column_looks(reports: Sequence[ModelReport], along: Along | None) -> Sequence[Look]:
    """Return one look per report; along a series every step of one model has the same."""
    if along is None:
        return looks(reports)
    lines = along.lines(names_of(reports)).values()
    number = {place: line for line, places in enumerate(lines) for place in places}
    return [look(number[place]) for place in range(len(reports))]


def _map_legend(figure: Figure, models: Mapping[str, Look], cells: Sequence[Change]) -> None:
    """Put a legend below the panels, of the models and of the marks that occur."""
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour)
        for look in models.values()
    ]
    names = list(models)
    if any(_flips(change) for change in cells):
        handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.3))
        names.append("the last block's behaviour becomes another")
    if not all(change_of(change, name)[1] for change in cells for name in QUANTITIES):
        handles.append(Rectangle((0, 0), 1, 1, facecolor=FAINT, linewidth=0))
        names.append("in grey: the interval holds 0")
    figure.legend(handles, names, loc="outside lower left", ncols=across(2))


def _flips(change: Change) -> bool:
    return change.before.behaviour != change.after.behaviour


def _draw_map(
    ax: Axes,
    columns: Sequence[Mapping[str, Change]],
    sites: Sequence[str],
    quantity: str,
    size: float,
) -> None:
    values = np.full((len(sites), len(columns)), np.nan)
    for place, column in enumerate(columns):
        for row, site in enumerate(sites):
            if site in column:
                values[row, place] = change_of(column[site], quantity)[0]
    ax.imshow(values, cmap="PuOr_r", norm=TwoSlopeNorm(0.0, -size, size), aspect="auto")
    for place, column in enumerate(columns):
        for row, site in enumerate(sites):
            if site in column:
                _draw_cell(ax, place, row, column[site], quantity, size)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    term = GLOSSARY[quantity]
    ax.set_title(f"{textwrap.fill(term.label, 20)}\n({term.unit})", fontsize=SMALL)


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
        color=ON_DARK if dark else ON_PALE if clear else ON_PALE_FAINT,
    )
    if quantity == "delta_log_gain" and _flips(change):
        frame = Rectangle((place - 0.47, row - 0.45), 0.94, 0.9, fill=False)
        halo = withStroke(linewidth=2.8, foreground=ON_DARK)  # seen on dark cells too
        frame.set(edgecolor=ON_PALE, linewidth=1.3, path_effects=[halo])
        ax.add_patch(frame)


@styled
def theta_dose(
    reports: Reports, doses: Mapping[str, Sequence[ThetaDose]], *, along: Along | None = None
) -> Figure:
    """Draw the same weights under other RoPE bases: change of log gain and of loss against theta.

    Marks carry intervals over prompts and are not joined, since nothing is measured between them.
    The large mark is the base that a model was trained with; its change is 0 by definition.

    Args:
        reports: one model's report, or several.
        doses: by the model's key, from `interventions.theta_dose`.
        along: the step or the prompt length of every report; a strip over a panel shows them.

    Raises ValueError if no model has a dose.
    """
    reports = listed(reports)
    shown = [report for report in reports if doses.get(report.checkpoint.name)]
    if not shown:
        raise ValueError(
            "there is no dose of theta to draw; measure the models under --theta first"
        )
    look_of = dict(zip(names_of(reports), looks_along(reports, along), strict=True))
    columns = across(2)
    above = 0.1 * len(shown) if along is None else 0.6
    figure = new_figure(TWO_COLUMNS, 2.2 * (3 - columns) + 0.4 + above)
    panels: Any = np.ravel(figure.subplots(3 - columns, columns))
    for ax, quantity in zip(panels, ("delta_log_gain", "delta_loss"), strict=True):
        for place, report in enumerate(shown):
            aside = _ASIDE ** (place - (len(shown) - 1) / 2)
            name = report.checkpoint.name
            _draw_dose(ax, doses[name], look_of[name], quantity, name_of(report), aside)
        threshold(ax, 0.0, along="x")
        ax.set_xlabel(label("rope_theta"))
        ax.set_ylabel(label(quantity).replace(" (", "\n("))
        log_axis(ax.xaxis)
    handles: list[Line2D] = []
    names: list[str] = []
    if any(dose.own for report in shown for dose in doses[report.checkpoint.name]):
        handles.append(Line2D([], [], linestyle="", marker="o", color="white", **_OWN))
        names.append("base that the model was trained with")
    legend_along(panels[0], reports, along, outside=True, handles=handles, names=names)
    return figure


def _draw_dose(
    ax: Axes, doses: Sequence[ThetaDose], look: Look, quantity: str, name: str, aside: float
) -> None:
    intervals: list[Interval] = [getattr(dose.change, quantity) for dose in doses]
    mark: Style = {"color": look.colour, "marker": look.marker, "linestyle": ""}
    thetas = [dose.theta * aside for dose in doses]
    ax.plot(thetas, [interval.estimate for interval in intervals], ms=3.6, label=name, **mark)
    for theta, interval, dose in zip(thetas, intervals, doses, strict=True):
        if np.isfinite([interval.low, interval.high]).all():
            ax.vlines(theta, interval.low, interval.high, color=look.colour, linewidth=1.0)
        if dose.own:
            ax.plot(theta, interval.estimate, zorder=4, **mark | _OWN)
