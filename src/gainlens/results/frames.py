"""Turn records into pandas DataFrames, and write the summary tables of a run as CSV.

frame = gainlens.to_frame(run.reports)              one row per model
frame = gainlens.to_frame(run.decompositions["m"])  one row per block and token
gainlens.columns_of(frame)                          what every column means
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from gainlens.claims.cells import primary_cell
from gainlens.core.glossary import GLOSSARY, Term
from gainlens.core.vocabulary import contract_key
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison, ModelReport, NotebookResidual
from gainlens.records.gains import Decomposition, PromptGains
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.interventions import Change, ControlEffect, Interventions
from gainlens.results.files import replace_file

GLOSSARY_FILE: Final = "columns.csv"
TABLES: Final = ("models", "layers", "cells", "sweep", "theta_dose", "controls")
"""Names of all summary tables; a run without interventions lacks the last three."""
_INTERVAL: Final = ("low", "high", "n", "status")
_OTHER_NAMES: Final = {
    (ModelReport, "name"): "model",
    (ControlEffect, "name"): "control",
    (NotebookResidual, "final_norm"): "notebook_final_norm",  # in the glossary a gain in nats
}


def to_frame(records: Any) -> pd.DataFrame:
    """Return a record, or a sequence of records of one kind, as a table.

    - Capture and Decomposition give one row per block and token.
    - PromptGains gives one row per block and prompt, EncodedPrompts one row per prompt.
    - Comparison gives one row per model, with its last block's primary log gain (nats).
    - Every other record gives one row.  The fields of a record within it become columns of their
      own.  An Interval becomes its estimate under the field's name, and NAME_low, NAME_high, NAME_n
      and NAME_status.  Arrays, mappings and tuples of numbers or records are left out.

    Raises ValueError if a value is no record.

    Examples:
        >>> len(gainlens.to_frame(gains)) == gains.log_gain.size
        True
        >>> gainlens.to_frame(run.reports)["role"].tolist()[:2]
        ['short', 'long']
    """
    if isinstance(records, Comparison):
        return _models(records)
    for kind, table in _TABLES.items():
        if isinstance(records, kind):
            return pd.DataFrame(table(records))
    listed: list[Any] = list(records) if isinstance(records, Iterable) else [records]
    if not all(dataclasses.is_dataclass(record) for record in listed):
        raise ValueError(
            "to_frame takes a record of gainlens.records or a sequence of them, got "
            f"{records!r:.60}"
        )
    return pd.DataFrame([_row(record) for record in listed])


def _models(comparison: Comparison) -> pd.DataFrame:
    rule = comparison.spec.rule
    frame = to_frame(comparison.reports)
    primary = [_row(primary_cell(report.cells, rule)) for report in comparison.reports]
    names = ["log_gain", *(f"log_gain_{part}" for part in _INTERVAL)]
    for place, name in enumerate(("model", *names)):
        values = frame.pop("model") if name == "model" else [row[name] for row in primary]
        frame.insert(place, name, values)
    return frame


def columns_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what every column of a table means: column, label, unit, meaning, source.

    Args:
        frame: from `to_frame` or `run_tables`.

    Raises ValueError for a column that gainlens does not define.
    """
    rows = [{"column": name, **dataclasses.asdict(define(str(name)))} for name in frame.columns]
    return pd.DataFrame(rows)


def define(column: str) -> Term:
    """Return the definition of a column; NAME_low, NAME_high and the like belong to NAME."""
    if column in GLOSSARY:
        return GLOSSARY[column]
    name, _, part = column.rpartition("_")
    if name in GLOSSARY and part in _INTERVAL:
        whole, end = GLOSSARY[name], GLOSSARY[part]
        unit = whole.unit if part in ("low", "high") else end.unit
        return Term(f"{whole.label}, {end.label}", unit, f"{end.meaning}; of: {whole.meaning}")
    raise ValueError(f"{column!r} is no column of gainlens' tables")


def run_tables(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Return the summary tables of a run by name, models one after another in rows.

    These are models, layers (blocks) and cells, and sweep, theta_dose and controls if the run has
    such interventions.
    """

    def per_model(records: Callable[[ModelReport], Any]) -> pd.DataFrame | None:
        parts = []
        for report in comparison.reports:
            frame = to_frame(records(report))
            frame.insert(0, "model", report.checkpoint.name)
            frame.insert(1, "role", report.role)
            parts.append(frame)
        full = [frame for frame in parts if len(frame)]
        return pd.concat(full, ignore_index=True) if full else None

    tables = {
        "models": to_frame(comparison),
        "layers": per_model(lambda report: report.blocks),
        "cells": per_model(lambda report: report.cells),
        "sweep": per_model(lambda report: report.interventions.sweep),
        "theta_dose": per_model(lambda report: report.interventions.theta_dose),
        "controls": per_model(lambda report: report.interventions.controls),
    }
    return {name: frame for name, frame in tables.items() if frame is not None}


def write_tables(folder: Path, comparison: Comparison) -> list[Path]:
    """Write one CSV per table of `run_tables`, and columns.csv with every column's meaning.

    Writes UTF-8 at full precision; an unknown number is empty.  The same comparison gives the same
    bytes.
    """
    tables = run_tables(comparison)
    described = pd.concat([columns_of(frame) for frame in tables.values()])
    tables[GLOSSARY_FILE.removesuffix(".csv")] = described.drop_duplicates("column")
    written: list[Path] = []
    for name, frame in tables.items():
        text = frame.to_csv(index=False, lineterminator="\n")
        path = folder / f"{name}.csv"
        replace_file(path, lambda place, text=text: place.write_text(text, encoding="utf-8"))
        written.append(path)
    return written


def _row(record: Any) -> dict[str, Any]:
    """Return the scalars of a record and of the records within it."""
    row: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if _is_series(field.type):
            continue
        if isinstance(value, Interval):
            found: dict[str, Any] = {field.name: value.estimate}
            found |= {f"{field.name}_{part}": getattr(value, part) for part in _INTERVAL}
        elif isinstance(value, EncodedPrompts):
            found = {"prompts": len(value.ids), "sha256": value.sha256}
        elif isinstance(value, Change):
            found = _change(value)
        elif type(record) is ControlEffect and field.name == "change":
            found = {}  # nothing to intervene on: the note says why
        elif dataclasses.is_dataclass(value):
            found = _row(value)
        elif isinstance(value, tuple):
            found = {field.name: "; ".join(map(str, cast("tuple[Any, ...]", value)))}
        else:
            found = {field.name: value}
        found = {
            _OTHER_NAMES.get((type(record), name), contract_key(name)): of
            for name, of in found.items()
        }
        twice = row.keys() & found.keys()
        assert all(row[name] == found[name] for name in twice), f"two columns named {twice}"
        row |= found
    return row


def _change(change: Change) -> dict[str, Any]:
    """Return before and after side by side, and the differences with their intervals."""
    found: dict[str, Any] = {}
    for side, block in (("before", change.before), ("after", change.after)):
        found |= {
            f"log_gain_{side}": block.log_gain.estimate,
            f"loss_{side}": block.loss.estimate,
            f"last_gain_{side}": block.notebook_last_gain,
            f"behaviour_{side}": block.behaviour,
        }
    for name in ("delta_log_gain", "delta_loss"):
        interval: Interval = getattr(change, name)
        found[name] = interval.estimate
        found |= {f"{name}_{part}": getattr(interval, part) for part in _INTERVAL}
    return found


def _is_series(kind: Any) -> bool:
    """Return whether a type is an array, a mapping, or a tuple of numbers or records."""
    if kind is Interventions:
        return True
    if hasattr(kind, "array_type"):  # a jaxtyping annotation
        return True
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return any(each is float or dataclasses.is_dataclass(each) for each in inner)
    return origin is Mapping or any(_is_series(each) for each in inner)


def _grid(blocks: int, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's block and its index along the other axis; blocks vary slowest."""
    return np.repeat(np.arange(blocks), others), np.tile(np.arange(others), blocks)


def _capture(capture: Capture) -> dict[str, Any]:
    blocks, tokens = capture.gram.shape[1:]
    block, token = _grid(blocks, tokens)
    columns: dict[str, Any] = {
        "prompt": capture.prompt[token],
        "position": capture.position[token],
        "token_id": capture.token_id[token],
        "layer": block,
    }
    if capture.token_text is not None:
        columns["text"] = np.array(capture.token_text, dtype=object)[token]
    last = block == blocks - 1
    for name, values in capture.columns.items():
        if np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float64)
        columns[name] = (
            values.ravel() if values.ndim == 2 else np.where(last, values[token], np.nan)
        )
    return columns


def _decomposition(found: Decomposition) -> dict[str, Any]:
    blocks, tokens = found.log_gain.shape
    block, token = _grid(blocks, tokens)
    classes = np.select([found.is_bos, found.is_massive], ["bos", "massive"], "ordinary")
    parts = ("log_gain", "attention", "mlp", "remainder", "norm_in", "norm_out")
    return {
        "prompt": found.prompt[token],
        "position": found.position[token],
        "layer": block,
        "class": classes[token],
        **{name: getattr(found, name).ravel() for name in parts},
        "final_norm": np.where(block == blocks - 1, found.final_norm[token], np.nan),
    }


def _prompt_gains(gains: PromptGains) -> dict[str, Any]:
    block, prompt = _grid(*gains.log_gain.shape)
    parts = ("log_gain", "attention", "mlp", "remainder")
    return {
        "token_class": gains.token_class,
        "reduction": gains.reduction,
        "layer": block,
        "prompt": prompt,
        **{name: getattr(gains, name).ravel() for name in parts},
    }


def _prompts(prompts: EncodedPrompts) -> dict[str, Any]:
    return {"prompt": list(prompts.ids), "tokens": [len(tokens) for tokens in prompts.tokens]}


_TABLES: Final[dict[type, Any]] = {
    Capture: _capture,
    Decomposition: _decomposition,
    PromptGains: _prompt_gains,
    EncodedPrompts: _prompts,
}
