"""Set the numbers that several files give for one model side by side, and trace copied ones."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gainlens.notebook.definitions import model_key
from gainlens.notebook.rescored import Origin, Rescore, SameModel

_COPIED_DIGITS: Final = (2, 3)
"""Decimals of a copied gain; with fewer, a coincidence is likely."""


def side_by_side(scores: Sequence[Rescore]) -> tuple[SameModel, ...]:
    """Return the gains of every model that has two that differ, by model and definition."""
    by_model: dict[str, list[SameModel]] = {}
    for row in _gains(scores):
        if row.measurement.state != "copied":
            by_model.setdefault(row.model, []).append(row)
    return tuple(
        row
        for _, rows in sorted(by_model.items())
        if len({f"{row.measurement.value:.3f}" for row in rows}) > 1
        for row in sorted(rows, key=lambda row: (row.measurement.state, row.measurement.reduction))
    )


def origins(scores: Sequence[Rescore]) -> tuple[Origin, ...]:
    """Return every copied gain with the measured one that it is, if a file holds that.

    A copied gain is another one if it is its rounding.  Models of one family count too, because a
    number may have been copied from the wrong one.
    """
    rows = list(_gains(scores))
    measured = [row for row in rows if row.measurement.state != "copied"]
    return tuple(
        Origin(copied=row, source=_source_of(row, measured))
        for row in rows
        if row.measurement.state == "copied"
    )


def _gains(scores: Sequence[Rescore]) -> Iterator[SameModel]:
    for score in scores:
        for measurement in score.measurements:
            if measurement.value is not None and "write" not in measurement.state:
                key = model_key(measurement.model)
                yield SameModel(model=key, file=Path(score.source).name, measurement=measurement)


def _source_of(copied: SameModel, measured: Sequence[SameModel]) -> SameModel | None:
    digits = len(f"{copied.measurement.value!r}".rpartition(".")[2])
    if digits not in _COPIED_DIGITS:
        return None
    same = [row for row in measured if row.model == copied.model]
    family = [row for row in measured if _family(row.model) == _family(copied.model)]
    for row in (*same, *family):
        stated = row.measurement.stated or row.measurement.value
        if stated is not None and round(stated, digits) == copied.measurement.value:
            return row
    return None


def _family(key: str) -> str:
    """Return the letters that a model's key starts with."""
    return "".join(itertools.takewhile(str.isalpha, key))
