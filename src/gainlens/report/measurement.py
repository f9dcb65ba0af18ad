"""Say what a measurement without a claim found: the answer in one line, and the tables."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from gainlens.core.table import Column, Table, fill
from gainlens.figures.ordering import Along, names_of
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import BlockGain
from gainlens.report.terminal import console_of, rich_table

_SHOWN: Final = 12
"""Blocks of one model that the terminal shows."""


def answer(
    reports: Sequence[ModelReport],
    difference: Sequence[Mapping[str, Any]],
    along: Along | None = None,
) -> str:
    """Return what was measured in one line.

    Of two models it is the paired difference of their last blocks, given as rows of
    `Measurement.difference`; of one model its last block; of a series its first and last gain; of
    more models the range of their last blocks.  Models that hold the same weights are named.
    """
    models = reports if along is None else along.once(reports)
    return _found(reports, difference, along) + "".join(
        f"; {' and '.join(names)} hold the same weights" for names in _twins(models)
    )


def _twins(reports: Sequence[ModelReport]) -> list[list[str]]:
    """Return the names of models that hold the same weights, one list per set of weights."""
    names: dict[str, dict[str, None]] = {}
    for report in reports:
        if report.checkpoint.weights is not None:
            names.setdefault(report.checkpoint.weights, {})[report.checkpoint.name] = None
    return [[*alike] for alike in names.values() if len(alike) > 1]


def _found(
    reports: Sequence[ModelReport],
    difference: Sequence[Mapping[str, Any]],
    along: Along | None,
) -> str:
    if difference:
        last = difference[-1]
        first, second = (report.checkpoint.name for report in reports)
        return (
            f"{second} minus {first}: the last block's log gain differs by "
            f"{last['difference']:+.4f} [{last['low']:+.4f}, {last['high']:+.4f}] nats, paired "
            f"over {last['n']} prompts"
        )
    if len(reports) == 1:
        (report,) = reports
        last = report.blocks[-1]
        act = "grows" if last.gain > 1 else "shrinks"
        part = "attention" if abs(last.attention) > abs(last.mlp) else "the MLP"
        return (
            f"{report.checkpoint.name}: the last block {act} the stream, gain {_gain(last)}, most "
            f"of it by {part}"
        )
    if along is not None and len(lines := along.lines(names_of(reports))) == 1:
        of = "".join(f" of {name}" for name in lines if name)
        at = "step" if along.axis == "step" else "length"
        first, last = (
            f"{reports[end].blocks[-1].gain:.3f} at {at} {along.ticks[end]}" for end in (0, -1)
        )
        return (
            f"the gain of the last block{of} goes from {first} to {last} "
            f"({len(reports)} measurements)"
        )
    lasts = sorted(reports, key=lambda report: report.blocks[-1].gain)
    low, high = lasts[0], lasts[-1]
    return (
        f"the last block's gain lies between {low.blocks[-1].gain:.3f} ({low.checkpoint.name}) and "
        f"{high.blocks[-1].gain:.3f} ({high.checkpoint.name}) over {len(reports)} measurements"
    )


def models_table(reports: Sequence[ModelReport], along: Along | None = None) -> Table:
    """Return every model's last block, with its step or prompt length if something orders them."""
    ticks = [] if along is None else along.ticks
    at = {report.checkpoint.name: tick for report, tick in zip(reports, ticks, strict=False)}
    order = () if along is None else (_position_column(along, at),)

    def last(name: str, head: str) -> Column:
        return Column(
            name, head, lambda report: f"{getattr(report.blocks[-1], name):+.3f}", numeric=True
        )

    return fill(
        "models",
        "The last block of each model",
        "gain with its band over blocks; log gain's parts in nats",
        (
            Column("model", "model", lambda report: report.checkpoint.name, numeric=False),
            *order,
            Column("prompts", "prompts", lambda report: f"{len(report.prompts.ids)}", numeric=True),
            Column("gain", "gain", lambda report: _gain(report.blocks[-1]), numeric=True),
            last("attention", "attention"),
            last("mlp", "MLP"),
        ),
        reports,
    )


def _position_column(along: Along, at: Mapping[str, str]) -> Column:
    head = "step" if along.axis == "step" else "tokens"
    return Column(along.axis, head, lambda report: at[report.checkpoint.name], numeric=True)


def blocks_table(report: ModelReport, shown: int | None = None) -> Table:
    """Return a model's blocks: all, or the `shown` that are last or of largest log gain."""
    blocks = list(report.blocks)
    note = f"{len(report.prompts.ids)} prompts; gain with its band; parts in nats"
    if shown is not None and len(blocks) > shown:
        ends = {blocks[0].block, *(block.block for block in blocks[-3:])}
        ranked = sorted(blocks, key=lambda block: -abs(block.log_gain))
        rest = [block.block for block in ranked if block.block not in ends]
        kept = ends | set(rest[: shown - len(ends)])
        blocks = [block for block in blocks if block.block in kept]
        note += f"; {shown} of {len(report.blocks)} blocks"
    return fill(
        f"blocks-{report.checkpoint.name}",
        f"Blocks of {report.checkpoint.name}",
        note,
        (
            Column("layer", "block", lambda block: str(block.block), numeric=True),
            Column("gain", "gain", _gain, numeric=True),
            Column("log_gain", "log gain", lambda block: f"{block.log_gain:+.3f}", numeric=True),
            Column("attention", "attention", lambda b: f"{b.attention:+.3f}", numeric=True),
            Column("mlp", "MLP", lambda block: f"{block.mlp:+.3f}", numeric=True),
        ),
        blocks,
    )


def _gain(block: BlockGain) -> str:
    band = f" [{block.low:.3f}, {block.high:.3f}]" if isfinite(block.low + block.high) else ""
    return f"{block.gain:.3f}{band}"


def frame_table(id: str, title: str, note: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of mappings that share their keys, such as the rows of a data frame."""

    def text(key: str, row: Mapping[str, Any]) -> str:
        return f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key])

    columns = tuple(
        Column(
            key, key.replace("_", " "), lambda row, key=key: text(key, row), numeric=key != "model"
        )
        for key in (rows[0] if rows else ())
    )
    return fill(id, title, note, columns, rows)


def print_measurement(
    said: str, tables: Sequence[Table], written: Sequence[Path], seconds: float
) -> None:
    """Print the answer, the tables, where the files are, and the answer again."""
    console = console_of()
    console.print(f"[bold]{escape(said)}[/]", soft_wrap=True)
    for table in tables:
        console.print()
        console.print(f"[bold]{escape(table.title)}[/]: {escape(table.note)}")
        console.print(rich_table(table, console.width))
    console.print()
    console.print(f"Measured in {seconds:.1f} s.")
    for path in written:
        if path.suffix == ".html":
            console.print(f"Page  {escape(str(path))}", soft_wrap=True)
    folders = dict.fromkeys(str(path.parent) for path in written)
    console.print(f"Files {escape(', '.join(folders))}", soft_wrap=True)
    console.print(f"[bold]{escape(said)}[/]", soft_wrap=True)


def print_line(said: str) -> None:
    """Print the answer alone."""
    console_of().print(escape(said), soft_wrap=True, highlight=False)


def shown_tables(
    reports: Sequence[ModelReport],
    difference: Sequence[Mapping[str, Any]],
    along: Along | None = None,
) -> list[Table]:
    """Return the tables that the terminal shows.

    They are one model's blocks; or of two models their difference, then of all their last blocks.
    """
    if len(reports) == 1:
        return [blocks_table(reports[0], _SHOWN)]
    shown = [difference_table(difference)] if difference and len(difference) <= _SHOWN else []
    return [*shown, models_table(reports, along)]


def difference_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the paired difference of two models per block, from `Measurement.difference`."""
    return frame_table(
        "difference", "Second minus first", "paired over prompts, metric's unit", rows
    )
