"""Reduce any metric to one number per prompt and block."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gainlens.core.messages import check_one_of
from gainlens.core.vocabulary import TOKEN_CLASSES, Reduction, TokenClass
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.metric import Metric, OverTokens, metric_values
from gainlens.metrics.reductions import reduce_gains, reduce_norms
from gainlens.metrics.registry import metric_named
from gainlens.records.gains import Decomposition

Positions = tuple[int, int | None]
"""First and last position of a range; None: to the prompt's end."""


def tokens_at(
    decomposition: Decomposition, token_class: TokenClass, positions: Positions
) -> Bool[np.ndarray, " token"]:
    """Return the mask of a class's tokens at some positions.

    Position 0 is no ordinary token, so a range that begins with it counts it whatever the class.
    """
    first, last = positions
    position = decomposition.position
    within = position >= first if last is None else (position >= first) & (position <= last)
    of_class = decomposition.tokens_of(token_class)
    return within & (of_class | decomposition.is_bos if first == 0 else of_class)


def reduce_metric(
    metric: Metric | str,
    decomposition: Decomposition,
    token_class: TokenClass = "ordinary",
    over_tokens: OverTokens | None = None,
    positions: Positions | None = None,
) -> Float64[np.ndarray, "block prompt"]:
    """Return one number per block and prompt, in the metric's unit.

    Args:
        metric: a name, `module:function`, or a Metric.
        decomposition: from `decompose`.
        token_class: tokens that count: bos, massive, ordinary or all.
        over_tokens: mean (default), median or last_token; of log_gain geomean (default), median,
            ratio_of_means, frobenius or last_token.
        positions: first and last position of the tokens that count (see `tokens_at`); all if None.

    A metric of the last block alone is NaN at the others.  A metric that has one value per head is
    averaged over the heads.  One that has a single value per prompt (sink, sink_share) does not
    depend on token_class, over_tokens and positions.  NaN also marks a prompt that has no token of
    the class; tokens at which the metric is undefined do not count.  Raises ValueError for an
    unknown name.

    Examples:
        >>> gainlens.reduce_metric("angle", gains).shape
        (8, 2)
    """
    metric = metric_named(metric) if isinstance(metric, str) else metric
    check_one_of("token_class", token_class, TOKEN_CLASSES)
    over_tokens = metric.reductions[0] if over_tokens is None else over_tokens
    check_one_of(f"over_tokens of {metric.name}", over_tokens, metric.reductions)
    if metric.name == "log_gain":
        reduction: Reduction = over_tokens  # pyright: ignore[reportAssignmentType]
        if positions is None:
            return reduce_gains(decomposition, token_class, reduction).log_gain
        norms = decomposition.norm_in, decomposition.norm_out
        mask = tokens_at(decomposition, token_class, positions)
        return reduce_norms(*norms, decomposition.prompt, mask, reduction)
    values = metric_values(metric, decomposition)
    if metric.over == "block prompt":
        return values
    if metric.over == "block head prompt":
        return values.mean(axis=1)
    prompt, mask = decomposition.prompt, decomposition.tokens_of(token_class)
    if positions is not None:
        mask = tokens_at(decomposition, token_class, positions)
    if metric.over == "block head token":
        return np.mean(
            [_reduced(head, prompt, mask, over_tokens) for head in values.swapaxes(0, 1)], axis=0
        )
    if metric.over == "block token":
        return _reduced(values, prompt, mask, over_tokens)
    of_blocks = np.full((len(decomposition.log_gain), decomposition.capture.num_prompts), np.nan)
    of_blocks[-1] = _reduced(values[None], prompt, mask, over_tokens)[0]
    return of_blocks


def _reduced(
    values: Float64[np.ndarray, "block token"],
    prompt: Int64[np.ndarray, " token"],
    mask: Bool[np.ndarray, " token"],
    over_tokens: OverTokens,
) -> Float64[np.ndarray, "block prompt"]:
    """Reduce the masked tokens of every prompt; NaN for a prompt that has none."""
    slices = prompt_slices(prompt)
    reduced = np.full((len(values), len(slices)), np.nan)
    for index, tokens in enumerate(slices):
        chosen = values[:, tokens][:, mask[tokens]]
        known = ~np.isnan(chosen).all(axis=1)
        if over_tokens == "last_token" and chosen.shape[1]:
            reduced[:, index] = chosen[:, -1]
        elif known.any():
            take = np.nanmean if over_tokens == "mean" else np.nanmedian
            reduced[known, index] = take(chosen[known], axis=1)
    return reduced
