"""Put the checkpoints of a series in the order of their training steps."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np

from gainlens.runs.measured import Measured

_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter|tokens)[-_]?(\d+)|(\d+)$", re.IGNORECASE)


def step_of(source: str, training: Mapping[str, Any] | None) -> float | None:
    """Return a checkpoint's training step; None if neither its record nor its name says one.

    The record's `step`, `steps` or `tokens` comes first.  Else the revision after an @, or the last
    part of the path, says it: step1000, checkpoint-500, or a number at its end.
    """
    for key in ("step", "steps", "tokens"):
        value = (training or {}).get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    name = source.rpartition("@")[2].rstrip("/").rpartition("/")[2]
    found = _STEP.search(name)
    return float(found[1] or found[2]) if found else None


def in_order(
    measured: Sequence[Measured], names: Sequence[str]
) -> tuple[list[Measured], tuple[float, ...]]:
    """Return the checkpoints of a series in the order of their steps, with the steps."""
    steps = [
        step_of(name, one.report.checkpoint.training)
        for name, one in zip(names, measured, strict=True)
    ]
    missing = [name for name, step in zip(names, steps, strict=True) if step is None]
    if missing:
        raise ValueError(
            f"the step of {missing[0]} is not known, so the series has no order: give names that "
            "end in a step, such as step1000, or a training.json that says it"
        )
    known = cast("list[float]", steps)
    order = np.argsort(known, kind="stable")
    ordered = [known[place] for place in order]
    if any(before == after for before, after in pairwise(ordered)):
        raise ValueError(f"two checkpoints of the series have one step: {', '.join(names)}")
    return [measured[place] for place in order], tuple(ordered)
