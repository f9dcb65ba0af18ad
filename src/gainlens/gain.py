"""Gram columns -> gains, their split, token classes, and one number a prompt.  float64 numpy.

Notation as in DESIGN section 2: per block and token x enters, attention adds a, the MLP adds m,
y leaves; y = x + a + m up to rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gainlens.axes import (
    CLASS_SELECTIONS,
    HEAD_COLUMNS,
    REDUCTIONS,
    SPLITS,
    ClassSelection,
    Reduction,
    Split,
    check_one_of,
)
from gainlens.held import Held
from gainlens.records import Capture, Decomposition, PromptGains

_SERIES = 1e-4
"""Below this relative change the logarithmic mean is taken from its series: (u/log1p(u)) is exact
to 1e-12 there, and 0/0 at 0."""


Parts = tuple[Float64[np.ndarray, "layer item"], Float64[np.ndarray, "layer item"]]
"""Attention's and the MLP's part of log gains, nats; an item is a token, or a prompt."""


def log_mean(
    p: Float64[np.ndarray, "*shape"], q: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Logarithmic mean (q - p) / ln(q / p) of positive numbers; p where they agree (Ang 2004)."""
    u = (q - p) / p
    small = np.abs(u) < _SERIES
    safe = np.where(small, 1.0, u)
    return p * np.where(small, 1 + u / 2 - u**2 / 12 + u**3 / 24, safe / np.log1p(safe))


def split_log_gain(capture: Capture, split: Split) -> Parts:
    """Attention's and the MLP's part of every token's log gain, nats.

    Each split sums to the log gain up to the model's own rounding.  `logmean` is free of
    cancellation and finite where |x+m| vanishes; see DESIGN section 2 for all three.
    """
    if split == "logmean":
        weight = 2 * log_mean(capture.column("xx"), capture.column("yy"))
        attention, mlp = _writes_onto_sum(capture)
        return attention / weight, mlp / weight
    x, xa, xm, y = (np.log(capture.column(name)) / 2 for name in ("xx", "xa_sq", "xm_sq", "yy"))
    return _ordered_split(split, x, xa, xm, y)


def head_split(capture: Capture) -> Float64[np.ndarray, "layer head token"]:
    """Every head's part of every token's log gain, nats, under the logarithmic-mean split.

    Args:
        capture: from `capture(..., heads=True)`.

    Head h writes h: its part is <h, x+y> / 2L.  The heads sum to attention's part, less that of
    attention's bias b_O (GPT-2, GPT-NeoX) and of whatever was put in attn_out's place.  ValueError
    where the capture was made without heads.

    Examples:
        >>> with_heads = gainlens.capture(loaded.model, prompts, heads=True)
        >>> parts = gainlens.head_split(with_heads)
        >>> parts.shape  # layer head token; nats
        (8, 4, 35)
        >>> bool(abs(parts.sum(axis=1) - tokens.attention).max() < 1e-5)
        True
    """
    if capture.heads is None:
        raise ValueError("this capture has no heads: make it with capture(..., heads=True)")
    weight = 2 * log_mean(capture.column("xx"), capture.column("yy"))
    on_x, on_y = (capture.heads[:, :, HEAD_COLUMNS.index(name)] for name in ("hx", "hy"))
    return (on_x + on_y) / weight[:, None, :]


def _writes_onto_sum(
    capture: Capture,
) -> tuple[Float64[np.ndarray, "layer token"], Float64[np.ndarray, "layer token"]]:
    """<a, x+y> and <m, x+y>; their sum is |y|^2 - |x|^2."""
    xa, xm, am = (capture.column(name) for name in ("xa", "xm", "am"))
    return 2 * xa + capture.column("aa") + am, 2 * xm + capture.column("mm") + am


def _ordered_split(
    split: Split, x: np.ndarray, xa: np.ndarray, xm: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From the logs of |x|, |x+a|, |x+m|, |y|: one order of adding (path), or the mean of both."""
    if split == "path":
        return xa - x, y - xa
    return ((xa - x) + (y - xm)) / 2, ((xm - x) + (y - xa)) / 2


def massive_tokens(capture: Capture, ratio: float = 10.0) -> Bool[np.ndarray, " token"]:
    """Tokens, position 0 left out, that are massive at some block's input.

    A token is massive where its norm is at least `ratio` times the median over the prompt's tokens
    but the first.  One answer a token, not a block: what the last block erases was still massive.
    """
    norms = np.sqrt(capture.column("xx"))
    massive = np.zeros(len(capture.prompt), dtype=bool)
    for tokens in prompt_slices(capture.prompt):
        later = slice(tokens.start + 1, tokens.stop)
        if later.start < later.stop:
            within = norms[:, later]
            median = np.median(within, axis=1, keepdims=True)
            massive[later] = (within >= ratio * median).any(axis=0)
    return massive


def prompt_slices(prompt: np.ndarray) -> list[slice]:
    """Where each prompt's tokens stand on the token axis."""
    starts = np.flatnonzero(np.diff(prompt, prepend=-1))
    return [
        slice(int(start), int(stop))
        for start, stop in zip(starts, [*starts[1:], len(prompt)], strict=True)
    ]


def decompose(
    capture: Capture, *, split: Split = "logmean", massive_ratio: float = 10.0
) -> Decomposition:
    """Log gain of every block on every token, split into attention, MLP and remainder, in nats.

    Args:
        capture: from `capture`.
        split: logmean, shapley or path; each sums to the log gain.
        massive_ratio: a token is massive from this many times the median norm at some block.

    Raises ValueError where a stream has norm 0 or is not finite (such a token has no gain), and for
    a split that is none.

    Examples:
        >>> tokens = gainlens.decompose(captured)
        >>> tokens.log_gain.shape  # layer token; nats
        (8, 35)
        >>> parts = tokens.attention + tokens.mlp + tokens.remainder
        >>> bool(abs(parts - tokens.log_gain).max() < 1e-12)
        True
    """
    check_one_of("split", split, SPLITS)
    xx, yy = capture.column("xx"), capture.column("yy")
    bad = ~(np.isfinite(capture.gram).all(axis=0) & (xx > 0) & (yy > 0))
    if bad.any():
        layer, token = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"block {layer} has a residual stream of norm 0 or not finite at position "
            f"{capture.position[token]} of prompt {capture.prompt[token]}, so it has no gain "
            f"(|x|^2 = {xx[layer, token]:g}, |y|^2 = {yy[layer, token]:g}); "
            "measure in float32 or bfloat16, or leave that prompt out"
        )
    log_gain = np.log(yy / xx) / 2
    attention, mlp = split_log_gain(capture, split)
    norm_out = np.sqrt(yy)
    return Decomposition(
        split=split,
        log_gain=log_gain,
        attention=attention,
        mlp=mlp,
        remainder=log_gain - attention - mlp,
        final_norm=np.log(capture.normed / norm_out[-1]),
        norm_in=np.sqrt(xx),
        norm_out=norm_out,
        prompt=capture.prompt,
        position=capture.position,
        is_bos=capture.position == 0,
        is_massive=massive_tokens(capture, massive_ratio),
    )


def of_blocks(
    capture: Capture, decomposition: Decomposition, blocks: slice
) -> tuple[Capture, Decomposition]:
    """Both of some blocks alone, as views; what belongs to the last block stays as it is."""
    first = _there(capture, "top_value", "top_index", "sink", "heads")
    grids = _there(
        decomposition, "log_gain", "attention", "mlp", "remainder", "norm_in", "norm_out"
    )
    some = {name: value[blocks] for name, value in first.items()}
    own = {name: value[blocks] for name, value in grids.items()}
    return replace(capture, gram=capture.gram[:, blocks], **some), replace(decomposition, **own)


def of_tokens(capture: Capture, tokens: slice) -> Capture:
    """Of some tokens alone, as views; attention on position 0, a prompt's, stays as it is."""
    last = _there(
        capture, "prompt", "position", "token_id", "gram", "normed", "visible", "null", "heads"
    )
    return replace(
        capture,
        **{name: value[..., tokens] for name, value in last.items()},
        top_value=capture.top_value[:, tokens],
        top_index=capture.top_index[:, tokens],
        token_text=None if capture.token_text is None else capture.token_text[tokens],
    )


def _there(record: Any, *names: str) -> dict[str, Any]:
    """Those arrays of a record that it has."""
    return {name: getattr(record, name) for name in names if getattr(record, name) is not None}


def decompose_each(
    captures: Mapping[str, Capture], *, split: Split, massive_ratio: float
) -> Mapping[str, Decomposition]:
    """`decompose` of several models' captures, each when it is asked for."""
    return Held(
        {
            key: lambda key=key: decompose(captures[key], split=split, massive_ratio=massive_ratio)
            for key in captures
        }
    )


def cosines(capture: Capture) -> dict[str, Float64[np.ndarray, "layer token"]]:
    """cos(x, a), cos(x, m) and cos(x, y): erasing shows as a negative cosine.

    Args:
        capture: from `capture`.

    Under attention, mlp and block, [layer, token] each; NaN for a component that writes nothing.

    Examples:
        >>> sorted(gainlens.cosines(captured))
        ['attention', 'block', 'mlp']
    """
    xx, xa, xm = (capture.column(name) for name in ("xx", "xa", "xm"))
    with np.errstate(invalid="ignore", divide="ignore"):  # a component that writes nothing: NaN
        return {
            "attention": xa / np.sqrt(xx * capture.column("aa")),
            "mlp": xm / np.sqrt(xx * capture.column("mm")),
            "block": (xx + xa + xm) / np.sqrt(xx * capture.column("yy")),
        }


def _group_sum(values: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Sum over the tokens of each prompt: [layer, token] -> [layer, prompt]."""
    return np.add.reduceat(values, np.flatnonzero(np.diff(prompt, prepend=-1)), axis=1)


def _reducer(
    log_gain: np.ndarray, prompt: np.ndarray, mask: np.ndarray, reduction: Reduction
) -> Callable[[np.ndarray], np.ndarray]:
    """The mean over those tokens of the class that count: [layer, token] -> [layer, prompt].

    All of them for geomean, the last for last_token, and for median the one or two in the middle of
    a block's `log_gain`.  NaN where a prompt has no token of the class.
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
) -> Int64[np.ndarray, "two layer prompt"]:
    """The tokens in the middle of each prompt's log gains; twice the same for an odd number."""
    middle = np.empty((2, len(log_gain), len(starts)), np.int64)
    for place, (start, count) in enumerate(zip(starts, counts, strict=True)):
        tokens = chosen[start : start + count]
        order = np.argsort(log_gain[:, tokens], axis=1, kind="stable")
        middle[0, :, place] = tokens[order[:, (count - 1) // 2]]
        middle[1, :, place] = tokens[order[:, count // 2]]
    return middle


def reduce_norms(
    norm_in: Float64[np.ndarray, "layer token"],
    norm_out: Float64[np.ndarray, "layer token"],
    prompt: Int64[np.ndarray, " token"],
    mask: Bool[np.ndarray, " token"],
    reduction: Reduction,
) -> Float64[np.ndarray, "layer prompt"]:
    """One log gain a prompt from norms before and after, over the masked tokens; nats.

    NaN where a prompt has no such token.  The median is taken on log gains: for an even number of
    tokens it is the geometric mean of the two middle gains.
    """
    if reduction in ("frobenius", "ratio_of_means"):
        power = 2 if reduction == "frobenius" else 1
        sums = [_group_sum(norm**power * mask, prompt) for norm in (norm_in, norm_out)]
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where the class is empty: NaN
            return (np.log(sums[1]) - np.log(sums[0])) / power
    log_gain = np.log(norm_out / norm_in)
    return _reducer(log_gain, prompt, mask, reduction)(log_gain)


def reduce_gains(
    capture: Capture,
    decomposition: Decomposition,
    selection: ClassSelection = "ordinary",
    reduction: Reduction = "geomean",
) -> PromptGains:
    """One log gain a prompt and block, with its parts: [layer, prompt], nats.

    Args:
        capture: from `capture`.
        decomposition: of that capture, from `decompose`.
        selection: the tokens that count: bos, massive, ordinary or all.
        reduction: how they become one number: geomean, median, ratio_of_means, frobenius or
            last_token.

    Examples:
        >>> gainlens.reduce_gains(captured, tokens, "ordinary", "geomean").log_gain.shape
        (8, 2)

    NaN where a prompt has no token of the class.  Under every reduction attention + mlp +
    remainder is the log gain: `median` and `last_token` take the parts of the tokens that they
    pick, `frobenius` splits the prompt's tokens as one long vector, `ratio_of_means` splits the
    change of the summed norms.  ValueError for a class or a reduction that is none.
    """
    own: dict[Split, Parts] = {decomposition.split: (decomposition.attention, decomposition.mlp)}
    return reduce_splits(capture, decomposition, own, selection, reduction)[decomposition.split]


def reduce_splits(
    capture: Capture,
    decomposition: Decomposition,
    parts: Mapping[Split, Parts],
    selection: ClassSelection,
    reduction: Reduction,
) -> dict[Split, PromptGains]:
    """`reduce_gains` under several splits, the tokens that count found once.

    parts: each split's own, from `split_log_gain`.
    """
    check_one_of("selection", selection, CLASS_SELECTIONS)
    check_one_of("reduction", reduction, REDUCTIONS)
    prompt, mask = capture.prompt, decomposition.tokens_of(selection)
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
            selection=selection,
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
    """Parts of the log of a ratio of sums over tokens.

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
                found[split] = _ordered_split(split, *logs)
                continue
            sizes = (np.sqrt(capture.column("xx")) + np.sqrt(capture.column("yy"))) ** (2 - power)
            weight = power * log_mean(x, y)
            attention, mlp = (total(write / sizes) / weight for write in _writes_onto_sum(capture))
            found[split] = attention, mlp
    return found
