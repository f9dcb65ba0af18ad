"""Show what each block does and what skipping it costs: one table, and the answer in one line."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from gainlens.claims.wording import plain
from gainlens.core.table import Column, Table, fill
from gainlens.records.importance import Agreement, Removal

_SHOWN: Final = 8
"""Blocks that the terminal shows."""
_SKIP: Final = "skip_loss"


def removal_answer(model: str, removal: Removal, prompts: int, blocks: int) -> str:
    """Return the suggested order of removal in one line, or why there is none.

    Args:
        model: its name.
        removal: from `removal_of`.
        prompts: number of prompts measured.
        blocks: number of the model's blocks.
    """
    if removal.withheld:
        return f"{model}: no order of removal: {removal.withheld}"
    if len(removal.groups) == 1:
        return (
            f"{model}: no order of removal: {prompts} prompts do not tell its {blocks} blocks apart"
        )
    listed = ", ".join(" = ".join(map(str, group)) for group in removal.groups)
    said = f"{model}: the cheapest blocks to skip first: {listed}"
    if removal.order is not None:
        return said
    return f"{said}; = joins blocks that tie, since {prompts} prompts do not tell them apart"


def importance_table(
    rows: Sequence[Mapping[str, Any]], agreement: Sequence[Agreement], *, shown: bool = False
) -> Table:
    """Return a row per block, and a last row with each measure's agreement with the skip loss.

    Args:
        rows: of `Layers.layers`.
        agreement: of the measures with the skip loss.
        shown: for the terminal: the cheapest and the dearest blocks of a deep model, and intervals
            of the skip loss alone.
    """
    chance = agreement[0].chance
    note = f"mean over prompts; last row: rank correlation with skip loss, chance ±{chance:.2f}"
    if shown and len(rows) > _SHOWN:
        order = sorted(rows, key=lambda row: row[_SKIP])
        rows = sorted((*order[: _SHOWN // 2], *order[-_SHOWN // 2 :]), key=lambda row: row["block"])
        note += f"; {_SHOWN} cheapest and dearest blocks"
    last: dict[str, Any] = {one.measure: one.spearman for one in agreement} | {"block": None}

    def cell(name: str, row: Mapping[str, Any]) -> str:
        if row["block"] is None:
            return f"{row[name]:+.2f}" if name in row and isfinite(row[name]) else ""
        if name == _SKIP or not shown:
            return _with_ends(row, name)
        return plain(row[name], ".3f")

    def block(row: Mapping[str, Any]) -> str:
        return "rank" if row["block"] is None else str(row["block"])

    def place(row: Mapping[str, Any]) -> str:
        known = row["block"] is not None and isfinite(row["place"])
        return f"{row['place']:.0f}" if known else ""

    names = [*(one.measure for one in agreement), _SKIP]
    columns = [Column("layer", "block", block, numeric=True)]
    columns += [
        Column(name, name.replace("_", " "), lambda row, name=name: cell(name, row), numeric=True)
        for name in names
    ]
    columns.append(Column("place", "place", place, numeric=True))
    return fill(
        "layers", "What each block does, and costs if skipped", note, columns, (*rows, last)
    )


def _with_ends(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = f" [{low:.3f}, {high:.3f}]" if isfinite(low + high) else ""
    return f"{plain(row[name], '.3f')}{ends}"
