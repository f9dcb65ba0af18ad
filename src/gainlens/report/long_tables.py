"""A comparison -> the long tables of its page, shown on demand."""

from typing import Final

from gainlens.claims.wording import plain, ratio, signed
from gainlens.core.glossary import GLOSSARY
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.gains import MassiveToken
from gainlens.records.verdict import GainCell
from gainlens.report.table import Table, column

MASSIVE_SHOWN: Final = 40
"""Massive tokens of a model that the page lists; result.json has all."""


def cells(comparison: Comparison) -> Table:
    """The last block in every way of measuring it, models side by side."""
    reports = comparison.reports
    return Table(
        "cells",
        "Every way of measuring the last block",
        "A claim that only one of these supports is no finding.",
        (
            *(
                column(name, numeric=False)
                for name in ("token_class", "reduction", "lengths", "after_final_norm")
            ),
            *(column("gain", f"gain, {report.checkpoint.name}") for report in reports),
        ),
        tuple(_cell_row(row) for row in zip(*(report.cells for report in reports), strict=True)),
        folded=True,
    )


def _cell_row(cells: tuple[GainCell, ...]) -> tuple[str, ...]:
    first = cells[0]
    return (
        GLOSSARY[first.token_class].label,
        GLOSSARY[first.reduction].label,
        first.lengths,
        "yes" if first.after_final_norm else "no",
        *(f"{ratio(cell.log_gain)} {cell.behaviour or ''}".rstrip() for cell in cells),
    )


def massive(report: ModelReport) -> Table:
    """Massive tokens of one model, from writing to erasing."""
    shown = report.massive[:MASSIVE_SHOWN]
    words = ("prompt", "text", "written_component", "erased_component", "dims")
    names = (
        "prompt", "position", "text", "written_by", "written_component", "plateau", "erased_by",
        "erased_component", "dims",
    )  # fmt: skip
    return Table(
        f"massive-{report.checkpoint.name}",
        f"Massive tokens of {report.checkpoint.name}",
        f"{len(shown)} of {len(report.massive)}, position 0 included where it is tracked.",
        tuple(column(name, numeric=name not in words) for name in names),
        tuple(_massive_row(token, report) for token in shown),
        folded=True,
    )


def _massive_row(token: MassiveToken, report: ModelReport) -> tuple[str, ...]:
    return (
        report.prompts.ids[token.prompt],
        str(token.position),
        visible_text(token.text),
        "none" if token.written_by is None else str(token.written_by),
        token.written_component or "none",
        plain(token.plateau, ".4g"),
        "none" if token.erased_by is None else str(token.erased_by),
        token.erased_component or "none",
        " ".join(str(dimension) for dimension in token.dims),
    )


def visible_text(text: str) -> str:
    """A token's text with its blanks and line ends made visible."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "(empty)"


def blocks(report: ModelReport) -> Table:
    """Every block of one model under the primary estimand."""
    return Table(
        f"blocks-{report.checkpoint.name}",
        f"Every block of {report.checkpoint.name}",
        "The interval is simultaneous over blocks.",
        tuple(
            column(name)
            for name in (
                "layer",
                "gain",
                "low",
                "high",
                "log_gain",
                "attention",
                "mlp",
                "remainder",
            )
        ),
        tuple(
            (
                str(block.block),
                *(plain(value, ".4f") for value in (block.gain, block.low, block.high)),
                *(signed(value) for value in (block.log_gain, block.attention, block.mlp)),
                plain(block.remainder, "+.0e"),
            )
            for block in report.blocks
        ),
        folded=True,
    )
