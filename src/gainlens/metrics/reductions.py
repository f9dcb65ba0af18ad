"""Reduce the log gains of a prompt's tokens to one number per block and prompt."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gainlens.core.messages import check_one_of
from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES, Reduction, Split, TokenClass
from gainlens.metrics.splits import Parts, log_mean, ordered_split, writes_onto_sum
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition, PromptGains


def _group_sum(values: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Sum over each prompt's tokens: [block, token] -> [block, prompt]."""
    return np.add.reduceat(values, np.flatnonzero(np.diff(prompt, prepend=-1)), axis=1)


def _reducer(
    log_gain: np.ndarray, prompt: np.ndarray, mask: np.ndarray, reduction: Reduction
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that averages the tokens that count: [block, token] -> [block, prompt].

    Of the masked tokens, geomean takes all, last_token the last, and median the one or two whose
    `log_gain` is in the middle.  A prompt without a masked token gives NaN.
    """
    chosen = np.flatnonzero(mask)
    owner = prompt[chosen]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    counts = np.diff(starts, append=len(chosen))

    def placed(values: np.ndarray) -> np.ndarray:
        whole = np.full((len(values), int(prompt[-1]) + 1), np.nan)
        whole[:, owner[starts]] = values
        return whole

    if reduction == "last_token":
        last = chosen[starts + counts - 1]
        return lambda values: placed(values[:, last])
    if reduction == "median":
        lower, upper = _middle_tokens(log_gain, chosen, starts, counts)
        take = partial(np.take_along_axis, axis=1)
        return lambda values: placed(take(values, lower) / 2 + take(values, upper) / 2)
    return lambda values: placed(_group_sum(values[:, chosen], owner) / counts)


def _middle_tokens(
    log_gain: np.ndarray, chosen: np.ndarray, starts: np.ndarray, counts: np.ndarray
) -> Int64[np.ndarray, "two block prompt"]:
    """Return the two middle tokens of each prompt's log gains, equal if the number is odd."""
    middle = np.empty((2, len(log_gain), len(starts)), np.int64)
    for place, (start, count) in enumerate(zip(starts, counts, strict=True)):
        tokens = chosen[start : start + count]
        order = np.argsort(log_gain[:, tokens], axis=1, kind="stable")
        middle[0, :, place] = tokens[order[:, (count - 1) // 2]]
        middle[1, :, place] = tokens[order[:, count // 2]]
    return middle


def reduce_norms(
    norm_in: Float64[np.ndarray, "block token"],
    norm_out: Float64[np.ndarray, "block token"],
    prompt: Int64[np.ndarray, " token"],
    mask: Bool[np.ndarray, " token"],
    reduction: Reduction,
) -> Float64[np.ndarray, "block prompt"]:
    """Return one log gain per prompt, nats, from norms before and after, over the masked tokens.

    A prompt without a masked token gives NaN.  The median is taken on log gains: for an even number
    of tokens it is the geometric mean of the two middle gains.
    """
    if reduction in ("frobenius", "ratio_of_means"):
        power = 2 if reduction == "frobenius" else 1
        sums = [_group_sum(norm**power * mask, prompt) for norm in (norm_in, norm_out)]
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where the class is empty: NaN
            return (np.log(sums[1]) - np.log(sums[0])) / power
    log_gain = np.log(norm_out / norm_in)
    return _reducer(log_gain, prompt, mask, reduction)(log_gain)


def reduce_gains(
    decomposition: Decomposition,
    token_class: TokenClass = "ordinary",
    reduction: Reduction = "geomean",
) -> PromptGains:
    """Return one log gain per block and prompt with its parts, [block, prompt], nats.

    Args:
        decomposition: from `decompose`.
        token_class: the tokens that count: bos, massive, ordinary or all.
        reduction: how they become one number: geomean, median, ratio_of_means, frobenius or
            last_token.

    Examples:
        >>> gainlens.reduce_gains(gains, "ordinary", "geomean").log_gain.shape
        (8, 2)

    A prompt without a token of the class gives NaN.  Under every reduction attention + mlp +
    remainder is the log gain: `median` and `last_token` take the parts of the tokens that they
    pick, `frobenius` splits the prompt's tokens as one long vector, `ratio_of_means` splits the
    change of the summed norms.  Raises ValueError for an unknown class or reduction.
    """
    own: dict[Split, Parts] = {decomposition.split: (decomposition.attention, decomposition.mlp)}
    return reduce_splits(decomposition, own, token_class, reduction)[decomposition.split]


def reduce_splits(
    decomposition: Decomposition,
    parts: Mapping[Split, Parts],
    token_class: TokenClass,
    reduction: Reduction,
) -> dict[Split, PromptGains]:
    """Reduce under several splits at once, so that the tokens that count are found once.

    parts: attention's and the MLP's part under each split, from `split_log_gain`.
    """
    check_one_of("token_class", token_class, TOKEN_CLASSES)
    check_one_of("reduction", reduction, REDUCTIONS)
    capture = decomposition.capture
    prompt, mask = capture.prompt, decomposition.tokens_of(token_class)
    reduced: dict[Split, Parts]
    if reduction in ("frobenius", "ratio_of_means"):
        norms = decomposition.norm_in, decomposition.norm_out
        log_gain = reduce_norms(*norms, prompt, mask, reduction)
        reduced = _splits_of_sums(capture, list(parts), mask, reduction)
    else:
        mean = _reducer(decomposition.log_gain, prompt, mask, reduction)
        log_gain = mean(decomposition.log_gain)
        reduced = {split: (mean(both[0]), mean(both[1])) for split, both in parts.items()}
    return {
        split: PromptGains(
            token_class=token_class,
            reduction=reduction,
            log_gain=log_gain,
            attention=attention,
            mlp=mlp,
            remainder=log_gain - attention - mlp,
        )
        for split, (attention, mlp) in reduced.items()
    }


def _splits_of_sums(
    capture: Capture, splits: Sequence[Split], mask: np.ndarray, reduction: Reduction
) -> dict[Split, Parts]:
    """Split the log of a ratio of sums over tokens.

    With N the Frobenius norm or the sum of token norms: shapley and path add a and m to N in turn;
    logmean divides each component's share of N(y)^p - N(x)^p by that difference's logarithmic mean,
    where a token's |y| - |x| is <a, x+y> / (|x|+|y|) for attention and likewise for the MLP.
    """
    power = 2 if reduction == "frobenius" else 1

    def total(values: np.ndarray) -> np.ndarray:
        return _group_sum(values * mask, capture.prompt)

    x, xa, xm, y = (
        total(capture.column(name) ** (power / 2)) for name in ("xx", "xa_sq", "xm_sq", "yy")
    )
    found: dict[Split, Parts] = {}
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where the class is empty: NaN
        logs = [np.log(size) / power for size in (x, xa, xm, y)]
        for split in splits:
            if split != "logmean":
                found[split] = ordered_split(split, *logs)
                continue
            sizes = (np.sqrt(capture.column("xx")) + np.sqrt(capture.column("yy"))) ** (2 - power)
            weight = power * log_mean(x, y)
            attention, mlp = (total(write / sizes) / weight for write in writes_onto_sum(capture))
            found[split] = attention, mlp
    return found
