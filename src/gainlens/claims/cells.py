"""TODO: claims.cells."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Bool

from gainlens.claims.intervals import mean_intervals, simultaneous_band
from gainlens.claims.outcomes import behaviour_of
from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import (
    REDUCTIONS,
    TOKEN_CLASSES,
    UNIT_ROUNDOFF,
    Reduction,
    TokenClass,
)
from gainlens.metrics.reductions import reduce_norms
from gainlens.records.gains import BlockGain, Decomposition, PromptGains
from gainlens.records.interval import Interval
from gainlens.records.verdict import GainCell

LENGTHS: Final = ("all", "short", "long")
ONE_VALUE: Final = "one value: position 0 attends only to itself"
NO_TOKENS: Final = "no tokens of this class"
BLIND: Final = "(after the final norm: blind to the last block)"

Key = tuple[TokenClass, Reduction, str, bool]
"""class, reduction, lengths, after the final norm"""


def is_equivalent(interval: Interval, rule: Rule) -> bool | None:
    """Whether the interval (nats) lies within a gain of 1 +- the rule's margin; None if unknown."""
    if not interval.known:
        return None
    low, high = np.log1p(-rule.equivalence), np.log1p(rule.equivalence)
    return bool(low <= interval.low and interval.high <= high)


def block_gains(gains: PromptGains, rule: Rule | None = None) -> tuple[BlockGain, ...]:
    """Every block's mean over prompts (nats) with a simultaneous band over blocks (ratios).

    Args:
        gains: from `reduce_gains`.
        rule: confidence, resamples and seed of the band; the defaults where not given.

    Examples:
        >>> blocks = gainlens.block_gains(gainlens.reduce_gains(gains))
        >>> len(blocks), blocks[-1].block
        (8, 7)
    """
    rule = rule or Rule()
    low, high = simultaneous_band(
        gains.log_gain, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    known = ~np.isnan(gains.log_gain).any(axis=0)
    parts = (gains.log_gain, gains.attention, gains.mlp, gains.remainder)
    means = [part[:, known].mean(axis=1) if known.any() else low * np.nan for part in parts]
    return tuple(
        BlockGain(
            block=block,
            log_gain=float(means[0][block]),
            attention=float(means[1][block]),
            mlp=float(means[2][block]),
            remainder=float(means[3][block]),
            gain=float(np.exp(means[0][block])),
            low=float(np.exp(low[block])),
            high=float(np.exp(high[block])),
        )
        for block in range(len(low))
    )


def length_halves(
    prompt: np.ndarray,
) -> dict[str, Bool[np.ndarray, " prompt"]]:
    """Which prompts belong to `all`, and to the shorter and longer half by number of tokens.

    Ties are broken by order, so that either half has its share; both halves are empty where all
    prompts have one length.
    """
    lengths = np.bincount(prompt)
    rank = np.argsort(np.argsort(lengths, kind="stable"), kind="stable")
    short = rank < len(lengths) // 2
    differ = np.ptp(lengths) > 0
    return {"all": np.ones_like(short), "short": short & differ, "long": ~short & differ}


def grade_cells(decomposition: Decomposition, rule: Rule, dtype: str) -> tuple[GainCell, ...]:
    """The last block in every cell: class x reduction x lengths x before/after the final norm.

    Intervals are over prompts, in nats.  A cell below `rule.min_prompts` keeps its numbers, but
    its status says so and it has no behaviour.
    """
    capture = decomposition.capture
    halves = length_halves(decomposition.prompt)
    first = capture.token_id[decomposition.is_bos]
    one_start = len(first) >= rule.min_prompts and bool((first == first[0]).all())
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
        nothing = {"low": np.nan, "high": np.nan, "n": 1}
        interval = replace(interval, **nothing, method=ONE_VALUE, status=ONE_VALUE)
        point = replace(interval, low=interval.estimate, high=interval.estimate)
        return GainCell(*key, interval, behaviour_of(point, roundoff))
    if interval.n == 0:
        interval = replace(interval, method="none", status=NO_TOKENS)
    elif interval.n < rule.min_prompts:
        status = f"too few prompts: {interval.n}, at least {rule.min_prompts} are needed"
        interval = replace(interval, status=status)
    behaviour = behaviour_of(interval, roundoff) if interval.known else None
    return GainCell(*key, interval, behaviour)


def primary_cell(cells: Sequence[GainCell], rule: Rule) -> GainCell:
    """The cell that the rule names: the one that decides."""
    wanted = (rule.token_class, rule.reduction, "all", False)
    return next(cell for cell in cells if cell_key(cell) == wanted)


def cell_key(cell: GainCell) -> Key:
    return cell.token_class, cell.reduction, cell.lengths, cell.after_final_norm


def cell_name(cell: GainCell) -> str:
    """A cell in words, as the lists of dissent and of the undecided say it."""
    kind = GLOSSARY[cell.token_class].label
    name = kind if cell.token_class == "bos" else f"{GLOSSARY[cell.reduction].label} of {kind}"
    return name if cell.lengths == "all" else f"{name}, {cell.lengths} prompts"


def repeats_another_cell(cell: GainCell) -> bool:
    """Position 0 is one token a prompt: every reduction of it is the same number, and where it is
    one value so are the halves."""
    if cell.token_class != "bos":
        return False
    return cell.reduction != REDUCTIONS[0] or (
        cell.lengths != "all" and cell.log_gain.method == ONE_VALUE
    )
