"""Draw what the capture costs beside its peers, on one long prompt and on many short ones."""

from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from benchmark.table import OUT_OF_MEMORY, REFUSED, BenchRow, ThroughputRow
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    INK,
    ONE_COLUMN,
    TWO_COLUMNS,
    Style,
    across,
    axes_or_new,
    legend_above,
    new_figure,
    styled,
    threshold,
)

_METHODS: Final = {
    "gainlens": ("#D55E00", "o"),
    "plain": (INK, "s"),
    "notebook": ("#0072B2", "^"),
    "nnsight": ("#009E73", "v"),
    "run_with_cache, five sites": ("#CC79A7", "D"),
    "run_with_cache, all": ("#8A7B1E", "X"),
}
"""Colour and marker per method; other methods are grey."""
_BACKENDS: Final = {"native": "-", "hooked": (0, (5, 1.5)), "bridge": (0, (1, 1.2))}
"""Line style per back end."""


@styled
def bench_times(rows: Sequence[BenchRow], ax: Axes | None = None) -> Axes:
    """Draw time over the native plain forward pass against prompt length, of one machine and model.

    The ratio is that of medians of one run.  A method that did not fit is a cross at the top.

    Args:
        rows: of the bench table.
        ax: axes to draw on; None makes a new figure.

    Raises ValueError if there are no rows, or rows of several machines or models.
    """
    panel = axes_or_new(ax, ONE_COLUMN, 3.2)
    _draw(panel, _one_machine(rows), lambda row: row.times_native_plain)
    threshold(panel, 1.0, along="x")
    panel.set_ylabel("time over native plain forward (ratio)")
    return _finished(panel, rows, outside=ax is None)


@styled
def bench_memory(rows: Sequence[BenchRow], ax: Axes | None = None) -> Axes:
    """Draw peak memory above the weights in GB (1e9 bytes) against prompt length.

    Args:
        rows: of the bench table.
        ax: axes to draw on; None makes a new figure.

    Raises ValueError if there are no rows, or rows of several machines or models.
    """
    panel = axes_or_new(ax, ONE_COLUMN, 3.2)
    _draw(panel, _one_machine(rows), lambda row: row.memory_bytes and row.memory_bytes / 1e9)
    panel.set_ylabel("peak memory above weights (GB)")
    return _finished(panel, rows, outside=ax is None)


@styled
def bench_figure(rows: Sequence[BenchRow]) -> Figure:
    """Draw time and memory side by side, one line of panels per machine and model.

    rows: of the bench table.
    """
    groups: dict[tuple[str, str, str], list[BenchRow]] = {}
    for row in rows:
        groups.setdefault((row.machine, row.model, row.dtype), []).append(row)
    columns = across(2)
    rows = max(1, len(groups))
    figure = new_figure(TWO_COLUMNS, 0.8 + 2.6 * rows * 2 / columns)
    panels = figure.subplots(2 * rows // columns, columns, squeeze=False).reshape(rows, 2)
    handles: dict[str, object] = {}
    for (time, memory), (names, group) in zip(panels, groups.items(), strict=True):
        if time is not panels[0][0]:  # one scale per quantity
            time.sharey(panels[0][0])
            memory.sharey(panels[0][1])
        bench_times(group, time)
        bench_memory(group, memory)
        time.set_title(_title(*names, wide=columns == 2))
        for panel in (time, memory):
            drawn, labels = panel.get_legend_handles_labels()
            handles |= dict(zip(labels, drawn, strict=True))
            panel.get_legend().remove()
    if handles:
        last = panels[-1][-1]
        legend_above(last, outside=True, handles=list(handles.values()), names=list(handles))
    return figure


@styled
def throughput_figure(rows: Sequence[ThroughputRow]) -> Figure:
    """Draw tokens per second on many short prompts against the tokens per batch.

    One panel per machine and model.  rows: of the table throughput.csv.
    """
    groups: dict[tuple[str, str, str], list[ThroughputRow]] = {}
    for row in rows:
        groups.setdefault((row.machine, row.model, row.dtype), []).append(row)
    figure = new_figure(ONE_COLUMN * 1.5, 0.8 + 2.6 * len(groups))
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for panel, (names, group) in zip(panels, groups.items(), strict=True):
        lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in group:
            if row.tokens_per_second is not None:
                points = lines.setdefault((row.backend, row.method), [])
                points.append((row.batch_tokens, row.tokens_per_second))
        for (backend, method), points in lines.items():
            colour, marker = _METHODS.get(method, ("#767676", "P"))
            style: Style = {"color": colour, "marker": marker, "linestyle": _BACKENDS[backend]}
            panel.plot(*zip(*sorted(points), strict=True), label=f"{backend}: {method}", **style)
        panel.set_title(_title(*names, wide=across(2) == 2))
        panel.set_ylim(bottom=0)
        panel.set_ylabel(f"tokens per second, {group[0].prompts:,} short prompts")
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.set_xlabel("tokens per batch")
        _log_ticks(panel, sorted({row.batch_tokens for row in group}))
        legend_above(panel, outside=True)
    return figure


def _title(machine: str, model: str, dtype: str, *, wide: bool) -> str:
    return f"{model}, {dtype}, untrained weights{'; ' if wide else chr(10)}{machine}"


def _log_ticks(ax: Axes, values: Sequence[int]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(values)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _one_machine(rows: Sequence[BenchRow]) -> Sequence[BenchRow]:
    """Return the rows; raise ValueError if they cannot share a panel or if there are none."""
    groups = {(row.machine, row.model, row.dtype) for row in rows}
    if len(groups) != 1:
        raise ValueError(
            f"one panel shows one machine and model, the rows are of {len(groups)}; give the rows "
            "of one, or draw bench_figure"
        )
    return rows


def _draw(ax: Axes, rows: Sequence[BenchRow], value: Callable[[BenchRow], float | None]) -> None:
    curves: dict[tuple[str, str], list[BenchRow]] = {}
    for row in rows:
        curves.setdefault((row.backend, row.method), []).append(row)
    for (backend, method), points in curves.items():
        colour, marker = _METHODS.get(method, ("#767676", "P"))
        known = [(row.tokens, found) for row in points if (found := value(row)) is not None]
        lost = [row.tokens for row in points if row.status in (OUT_OF_MEMORY, REFUSED)]
        style: Style = {"color": colour, "marker": marker}
        if known:
            line = _BACKENDS.get(backend, "-")
            ax.plot(
                *zip(*known, strict=True), linestyle=line, label=f"{backend}: {method}", **style
            )
        if lost:
            at: Style = {"transform": ax.get_xaxis_transform(), "clip_on": False}
            ax.plot(lost, [1.0] * len(lost), linestyle="", color=colour, marker="x", **at)


def _finished(ax: Axes, rows: Sequence[BenchRow], *, outside: bool) -> Axes:
    _log_ticks(ax, sorted({row.tokens for row in rows}))
    ax.set_xlabel("prompt (tokens); a cross at the top: out of memory")
    log_axis(ax.yaxis)
    legend_above(ax, outside=outside)
    return ax
