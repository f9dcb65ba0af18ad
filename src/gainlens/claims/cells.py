"""Grade the last block of one model under every way of measuring it."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Bool

from gainlens.claims.behaviour import behaviour_of
from gainlens.claims.intervals import mean_intervals
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import (
    REDUCTIONS,
    TOKEN_CLASSES,
    UNIT_ROUNDOFF,
    Lengths,
    Reduction,
    TokenClass,
)
from gainlens.metrics.reductions import reduce_norms
from gainlens.records.gains import Decomposition
from gainlens.records.interval import Interval
from gainlens.records.verdict import GainCell

LENGTHS: Final[tuple[Lengths, ...]] = ("all", "short", "long")
DECIDING_SHARE: Final = 0.8
"""An outcome is robust only if this share of the distinct analyses decides."""
ONE_VALUE: Final = "one value: position 0 attends only to itself"
NO_TOKENS: Final = "no tokens of this class"

Key = tuple[TokenClass, Reduction, Lengths, bool]
"""class, reduction, lengths, after the final norm"""


def length_halves(lengths: np.ndarray) -> dict[Lengths, Bool[np.ndarray, " prompt"]]:
    """Return masks of all prompts, and of their shorter and longer half by number of tokens.

    Ties are broken by order, so that either half has its share.  Both halves are empty if all
    prompts have one length.
    """
    rank = np.argsort(np.argsort(lengths, kind="stable"), kind="stable")
    short = rank < len(lengths) // 2
    differ = np.ptp(lengths) > 0
    return {"all": np.ones_like(short), "short": short & differ, "long": ~short & differ}


def grade_cells(decomposition: Decomposition, rule: Rule, dtype: str) -> tuple[GainCell, ...]:
    """Measure the last block by class x reduction x lengths x before or after the final norm.

    Intervals are over prompts, in nats.  A cell with fewer than `rule.min_prompts` prompts keeps
    its numbers, but its status says so and it has no behaviour.
    """
    capture = decomposition.capture
    halves = length_halves(np.bincount(decomposition.prompt))
    starts = capture.token_id[decomposition.is_bos].reshape(-1, capture.prefix)
    one_start = len(starts) >= rule.min_prompts and bool((starts == starts[0]).all())
    keys: list[Key] = []
    rows: list[np.ndarray] = []
    for token_class, reduction, after in itertools.product(
        TOKEN_CLASSES, REDUCTIONS, (False, True)
    ):
        values = reduce_norms(
            decomposition.norm_in[-1:],
            capture.normed[None] if after else decomposition.norm_out[-1:],
            decomposition.prompt,
            decomposition.tokens_of(token_class),
            reduction,
        )[0]
        for lengths in LENGTHS:
            keys.append((token_class, reduction, lengths, after))
            rows.append(np.where(halves[lengths], values, np.nan))
    intervals = mean_intervals(
        np.stack(rows), confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    roundoff = UNIT_ROUNDOFF[dtype]
    return tuple(
        _grade(key, interval, rule, roundoff, one_start)
        for key, interval in zip(keys, intervals, strict=True)
    )


def _grade(key: Key, interval: Interval, rule: Rule, roundoff: float, one_start: bool) -> GainCell:
    if key[0] == "bos" and one_start and interval.n:
        point = replace(interval, low=interval.estimate, high=interval.estimate)
        interval = Interval(
            interval.estimate, np.nan, np.nan, 1, rule.confidence, ONE_VALUE, ONE_VALUE, "one value"
        )
        return GainCell(*key, interval, behaviour_of(point, roundoff))
    if interval.n == 0:
        interval = replace(interval, method="none", status=NO_TOKENS, problem="no tokens")
    else:
        interval = enough_prompts(interval, rule)
    behaviour = behaviour_of(interval, roundoff) if interval.known else None
    return GainCell(*key, interval, behaviour)


def enough_prompts(interval: Interval, rule: Rule) -> Interval:
    """Mark an interval over fewer prompts than the rule's minimum as not to be used."""
    if interval.n >= rule.min_prompts:
        return interval
    status = f"too few prompts: {interval.n}, at least {rule.min_prompts} are needed"
    return replace(interval, status=status, problem="too few")


def primary_cell(cells: Sequence[GainCell], rule: Rule) -> GainCell:
    """Return the cell that the rule names: the one that decides."""
    wanted = (rule.token_class, rule.reduction, "all", False)
    return next(cell for cell in cells if cell_key(cell) == wanted)


def cell_key(cell: GainCell) -> Key:
    """Return what tells a cell from the others."""
    return cell.token_class, cell.reduction, cell.lengths, cell.after_final_norm
