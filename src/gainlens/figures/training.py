"""Draw the gain along training: every cell of a design, every seed."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gainlens.figures.scales import log_axis, positive
from gainlens.figures.style import (
    ONE_COLUMN,
    TWO_COLUMNS,
    Look,
    Style,
    across,
    axes_or_new,
    label,
    legend_above,
    look,
    new_figure,
    styled,
    threshold,
)

Quantity = Literal["gain", "last_gain"]
Abscissa = Literal["loss", "tokens"]

_COLUMNS: Final = {"gain": "log_gain_last_ordinary", "last_gain": "notebook_last_gain"}
"""The table's column of each quantity; `gain` is stored as nats and drawn as a ratio."""

_CELLS: Final = (0, 2, 3, 1, 6, 5, 4, 7, 8, 9)
"""Looks of the cells in the order of context, then theta, then BOS.  In the 2 x 2 design the short
twin and the long one keep the colours of their roles."""


@styled
def training_curves(
    table: Mapping[str, np.ndarray],
    ax: Axes | None = None,
    *,
    against: Abscissa = "loss",
    of: Quantity = "gain",
) -> Axes:
    """Draw the last block's gain, or the notebook's number, of every cell along training.

    Thin lines are seeds, the thick one is their mean, its marker the end of training.  Loss falls
    to the right, so that training runs to the right in either view.

    Args:
        table: equally long columns, one entry per cell, seed and checkpoint: context and tokens
            (tokens), theta, seed, `loss_<context>` (held-out loss at the cell's own context, nats
            per token), log_gain_last_ordinary (nats), notebook_last_gain (ratio), and bos_every if
            there are control cells.
        ax: axes to draw into; a new figure's if None.
        against: the horizontal axis, loss or tokens.
        of: the vertical axis: the gain as a ratio, or the notebook's last_gain.

    Raises ValueError if a column is missing.
    """
    _check_columns(table, [_COLUMNS[of]])
    panel = axes_or_new(ax, ONE_COLUMN, 2.9)
    cells = _cells_of(table)
    for (name, rows), style in zip(cells.items(), _looks(len(cells)), strict=True):
        _draw_cell(panel, table, rows, style, name, against, of)
    threshold(panel, 1.0, along="x")
    panel.set_ylabel(label(of) if of == "last_gain" else f"last block: {label(of)}")
    log_axis(panel.yaxis)
    if against == "tokens":
        panel.set_xlabel(label("trained_tokens"))
        log_axis(panel.xaxis)
    else:
        panel.set_xlabel(label("loss"))
        panel.invert_xaxis()
    legend_above(panel, outside=ax is None)
    return panel


@styled
def training_figure(table: Mapping[str, np.ndarray]) -> Figure:
    """Draw `training_curves` in four panels: gain and the notebook's number by tokens and by loss.

    `table` is as there.  Raises ValueError if a column is missing.
    """
    columns = across(2)
    figure = new_figure(TWO_COLUMNS, 4.8 if columns == 2 else 8.4)
    panels: Any = figure.subplots(4 // columns, columns)
    for first, second in np.reshape(panels, (2, 2)):
        second.sharey(first)
    views: tuple[tuple[Quantity, Abscissa], ...] = (
        ("gain", "tokens"), ("gain", "loss"), ("last_gain", "tokens"), ("last_gain", "loss"),
    )  # fmt: skip
    for ax, (of, against) in zip(panels.flat, views, strict=True):
        training_curves(table, ax, against=against, of=of)
        ax.get_legend().remove()
    if columns == 2:
        for ax in panels.flat:
            ax.label_outer(remove_inner_ticks=False)
    handles, names = panels.flat[0].get_legend_handles_labels()
    legend_above(panels.flat[0], outside=True, handles=handles, names=names)
    return figure


def _check_columns(table: Mapping[str, np.ndarray], wanted: Sequence[str]) -> None:
    needed = ["context", "theta", "seed", "tokens", *wanted]
    missing = [name for name in needed if name not in table]
    if missing or not len(table["tokens"]):
        raise ValueError(
            f"the training table needs the columns {', '.join(needed)} and at least one row; "
            f"missing: {', '.join(missing) or 'rows'}"
        )


def _cells_of(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the row indices of every cell by name, sorted by BOS spacing, context and theta."""
    every = np.asarray(table.get("bos_every", np.ones(len(table["tokens"]))))
    keys = sorted(
        {
            (float(b), float(c), float(t))
            for b, c, t in zip(every, table["context"], table["theta"], strict=True)
        }
    )
    cells: dict[str, np.ndarray] = {}
    for bos, context, theta in keys:
        mine = (every == bos) & (table["context"] == context) & (table["theta"] == theta)
        rare = "" if bos == 1 else f", BOS in 1 of {bos:g}"
        name = f"context {context:,.0f}, theta {theta:,.0f}{rare}"
        cells[name] = np.flatnonzero(mine)
    return cells


def _looks(count: int) -> list[Look]:
    return [look(_CELLS[i] if i < len(_CELLS) else i) for i in range(count)]


def _draw_cell(
    ax: Axes,
    table: Mapping[str, np.ndarray],
    rows: np.ndarray,
    drawn: Look,
    name: str,
    against: Abscissa,
    of: Quantity,
) -> None:
    """Draw every seed of one cell thin, their mean at each checkpoint thick, and mark the end."""
    x = np.asarray(table["tokens"] if against == "tokens" else own_loss(table), dtype=np.float64)
    y = np.asarray(table[_COLUMNS[of]], dtype=np.float64)
    y = positive(np.exp(y) if of == "gain" else y)
    x = positive(x) if against == "tokens" else x
    style: Style = {"color": drawn.colour, "linestyle": drawn.line}
    for seed in np.unique(table["seed"][rows]):
        mine = rows[table["seed"][rows] == seed]
        mine = mine[np.argsort(table["tokens"][mine], kind="stable")]
        ax.plot(x[mine], y[mine], color=drawn.colour, linewidth=0.5, alpha=0.5)
    reached = [rows[table["tokens"][rows] == tokens] for tokens in np.unique(table["tokens"][rows])]
    mean_x, mean_y = ([values[at].mean() for at in reached] for values in (x, y))
    ax.plot(mean_x, mean_y, linewidth=1.5, **style)
    edge: Style = {"markeredgecolor": "white", "markeredgewidth": 0.6, "markersize": 5.5}
    ax.plot(mean_x[-1], mean_y[-1], color=drawn.colour, marker=drawn.marker, zorder=4, **edge)
    ax.plot([], [], marker=drawn.marker, label=name, **style)


def own_loss(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return each row's held-out loss at its own training context, nats per token."""
    contexts = np.asarray(table["context"]).astype(int)
    missing = sorted({f"loss_{c}" for c in contexts if f"loss_{c}" not in table})
    if missing:
        raise ValueError(f"the training table has no column {', '.join(missing)}: held-out loss")
    return np.array([table[f"loss_{c}"][row] for row, c in enumerate(contexts)], dtype=np.float64)
