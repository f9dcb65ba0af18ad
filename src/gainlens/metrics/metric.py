"""Define what a metric is, and compute one from captured columns with its result checked."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gainlens.core.messages import nearest
from gainlens.core.vocabulary import GRAM_COLUMNS
from gainlens.records.gains import Decomposition

Over = Literal["block token", "token", "block head token", "block head prompt", "block prompt"]
"""Axes of a metric's array; `token` alone belongs to the last block."""
OVERS = get_args(Over)
OverTokens = Literal["mean", "median", "last_token", "geomean", "ratio_of_means", "frobenius"]
"""How a metric's tokens become one number per prompt; the last three are log_gain's alone."""


@dataclass(frozen=True)
class Metric:
    """Define one quantity that a user asks for by name."""

    name: str
    definition: str
    """one sentence or formula, with x, a, m, y for what enters, attention's and the MLP's write,
    and what leaves a block"""
    unit: str
    neutral: float | None
    """the value that means "no change"; None if no value does"""
    source: str
    """the paper that the definition is from; empty for gainlens' own"""
    function: Callable[..., Any]
    """takes the columns that its parameters name and returns an array with the axes of `over`"""
    over: Over = "block token"
    undefined: str = ""
    """when the value is unknown, so that NaN is allowed; empty: NaN is refused"""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the function reads."""
        return tuple(inspect.signature(self.function).parameters)

    @property
    def reductions(self) -> tuple[OverTokens, ...]:
        """Return the ways in which a prompt's tokens become one number, the default first."""
        if self.name == "log_gain":
            return "geomean", "median", "ratio_of_means", "frobenius", "last_token"
        return "mean", "median", "last_token"


def column_metric(name: str) -> Metric:
    """Return the metric that shows a column of `capture(extra=...)` as it is."""

    def read(**columns: np.ndarray) -> np.ndarray:
        return columns[name]

    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
    read.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return Metric(name, "a column that `extra` added", "as measured", None, "", read)


def metric_values(metric: Metric, decomposition: Decomposition) -> np.ndarray:
    """Return a metric's values, float64, with the axes that `metric.over` names.

    Args:
        metric: from `metric_named` or METRICS.
        decomposition: from `decompose`; its capture holds the columns.

    Raises ValueError if the capture lacks a column that the metric reads, and if the result has
    another shape than `over` says or holds a value that is not finite (NaN is allowed where
    `metric.undefined` says what it means).
    """
    columns = columns_of(decomposition)
    missing = [name for name in metric.columns if name not in columns]
    if missing:
        raise ValueError(
            f"metric {metric.name!r} reads column {missing[0]!r}, which this capture does not "
            f"have{_advice(missing[0], columns)}"
        )
    values = np.asarray(metric.function(**{name: columns[name] for name in metric.columns}))
    sizes = _sizes(decomposition)
    needed = tuple(sizes[axis] for axis in metric.over.split())
    if values.shape != needed:
        raise ValueError(
            f"metric {metric.name!r} returned shape {values.shape}; needed is {needed}, "
            f"[{metric.over.replace(' ', ', ')}]"
        )
    _check_finite(metric, values)
    return values.astype(np.float64)


def columns_of(decomposition: Decomposition) -> Mapping[str, np.ndarray | bool]:
    """Return every column that a metric may read, by name.

    The Gram columns and the decomposition's arrays are [block, token]; `final_norm`, `normed`,
    `position`, `token_id` and `token_loss` are [token]; `skip_loss` is [block, token]; `visible`
    and `null` [component, token]; `sink` [block, head, prompt]; `top_value` and `top_index` [block,
    token, rank]; `heads` [block, head, column, token]; `parallel` is a bool; a column of
    `capture(extra=...)` is [block, token].
    """
    capture = decomposition.capture
    columns: dict[str, np.ndarray | bool] = {name: capture.column(name) for name in GRAM_COLUMNS}
    for name in _OF_DECOMPOSITION:
        columns[name] = getattr(decomposition, name)
    for name in _OF_CAPTURE:
        if getattr(capture, name) is not None:
            columns[name] = getattr(capture, name)
    return columns | dict(capture.extra)


_OF_DECOMPOSITION = (
    "log_gain", "attention", "mlp", "remainder", "norm_in", "norm_out", "final_norm",
)  # fmt: skip
_OF_CAPTURE = (
    "position", "token_id", "normed", "visible", "null", "sink", "heads", "top_value", "top_index",
    "parallel", "token_loss", "skip_loss",
)  # fmt: skip


def _advice(name: str, columns: Mapping[str, object]) -> str:
    how = {
        "sink": "capture(patterns=True) adds it if the back end shows attention patterns",
        "heads": "capture(heads=True) adds it",
        "visible": "capture(subspaces=...) adds it",
        "null": "capture(subspaces=...) adds it",
        "token_loss": "gainlens.with_losses adds it",
        "skip_loss": "gainlens.with_losses(..., skip=True) adds it",
    }.get(name)
    return f"; {how}" if how else f"; {nearest(name, columns)}"


def _sizes(decomposition: Decomposition) -> dict[str, int]:
    capture = decomposition.capture
    by_head = capture.sink if capture.sink is not None else capture.heads
    return {
        "block": len(decomposition.log_gain),
        "token": len(capture.prompt),
        "prompt": capture.num_prompts,
        "head": 0 if by_head is None else by_head.shape[1],
    }


def _check_finite(metric: Metric, values: np.ndarray) -> None:
    allowed = np.isnan(values) if metric.undefined else np.zeros(values.shape, bool)
    bad = ~(np.isfinite(values) | allowed)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"metric {metric.name!r} returned {values[place]} at index {place} of {values.shape}, "
            f"[{metric.over.replace(' ', ', ')}]; every value must be finite"
        )
