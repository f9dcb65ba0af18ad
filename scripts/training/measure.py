"""What is measured of a replica along training, by gainlens' own functions.

The only module of the trainer that imports gainlens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gainlens.activations.gram import gram_columns, top_components
from gainlens.core.vocabulary import GRAM_COLUMNS
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.metrics.splits import cosines
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition
from training import ensemble
from training.ensemble import Shape, Stream, Weights

BINS = {"0": (0, 1), "1-3": (1, 4), "4-15": (4, 16), "16-63": (16, 64), "64-127": (64, 128)}
"""Positions, last one left out. Prompts end with the open bin, windows have more of them."""
PROMPT_BINS = BINS | {"128-": (128, 1 << 30)}
SINK_THRESHOLD = 0.3
"""A head sinks from this mean weight on position 0: Gu et al. 2024, arXiv 2410.10781."""


class Value(NamedTuple):
    """One number of one replica at one step."""

    measure: str
    value: float
    block: int = -1
    """from 0; -1 if the number is not of one block"""
    positions: str = ""
    """a bin of positions; empty if the number is of all"""
    length: int = 0
    """tokens per sequence of a held-out loss; 0 otherwise"""


@dataclass(frozen=True)
class Residual:
    """One replica's residual stream: mean over prompts of the per-prompt numbers, nats."""

    log_gain: np.ndarray
    """[block], geometric mean over ordinary tokens"""
    attention: np.ndarray
    mlp: np.ndarray
    bos_log_gain: np.ndarray
    """[block], position 0, the same in every prompt"""
    log_norm_out: np.ndarray
    """[block], log of |y|, mean over all ordinary tokens"""
    massive_tokens: int
    """tokens of all prompts, position 0 left out, that are massive at some block's input"""
    notebook_last_gain: float
    """mean |ln_final(y)| over mean |x| at the last block, on the notebook's sentence"""


def rounded(weights: Weights) -> Weights:
    """Round float32 weights to bfloat16's values: what is measured is what a checkpoint holds."""
    return Weights(*(tensor.bfloat16().float() for tensor in weights))


def padded(prompts: tuple[list[int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Fill prompts up at the end, which causal attention does not see: token ids [prompt, token],
    and the mask of real tokens."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = True
    return ids.to(device), mask.to(device)


def captures(
    weights: Weights, prompts: tuple[list[int], ...], thetas: Tensor, shape: Shape
) -> Iterator[Capture]:
    """Yield one gainlens Capture per replica, float32 arithmetic, with attention on position 0."""
    ids, mask = padded(prompts, thetas.device)
    for number in range(len(thetas)):
        own = slice(number, number + 1)
        yield capture(Weights(*(w[own] for w in weights)), ids, mask, thetas[own], shape)


@torch.no_grad()
def capture(
    weights: Weights, ids: Tensor, mask: Tensor, theta: Tensor, shape: Shape, sinks: bool = True
) -> Capture:
    """Measure one replica, [1, ...], on ids [prompt, token] of which `mask` marks the real ones."""
    gram, values, indices, sink = [], [], [], []
    last = None
    for stream in ensemble.streams(weights, ids[None], theta, shape):
        x, a, m, y = (part[0][mask] for part in (stream.x, stream.a, stream.m, stream.y))
        gram.append(gram_columns(x, a, m, y))
        value, index = top_components(y)
        values.append(value)
        indices.append(index)
        if sinks:
            sink.append(first_weight(stream, mask))
        last = y
    assert last is not None
    normed = (ensemble.normed(last, shape.eps) * weights.norm_final).norm(dim=-1)
    prompt, position = torch.nonzero(mask.cpu(), as_tuple=True)
    return Capture(
        prompt=prompt.numpy(),
        position=position.numpy(),
        token_id=ids[mask].cpu().numpy(),
        gram=np.moveaxis(torch.stack(gram).double().cpu().numpy(), -1, 0),
        top_value=torch.stack(values).double().cpu().numpy(),
        top_index=torch.stack(indices).cpu().numpy(),
        normed=normed.double().cpu().numpy(),
        sink=torch.stack(sink).double().cpu().numpy() if sinks else None,
    )


def first_weight(stream: Stream, mask: Tensor) -> Tensor:
    """Average the attention on position 0 over later queries: [head, prompt], NaN if none."""
    query, key = (part[0].transpose(1, 2) for part in (stream.query, stream.key))
    scores = query @ key.mT / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    on_first = scores.masked_fill(later, float("-inf")).softmax(-1)[..., 0]
    counted = mask.clone()
    counted[:, 0] = False
    total = (on_first * counted[:, None]).sum(-1)
    return (total / counted.sum(-1)[:, None]).T


def residual(captured: Capture, parts: Decomposition | None = None) -> Residual:
    """Average over the prompts; the last one is the notebook's sentence: it gives
    `notebook_last_gain` and no more."""
    assert captured.gram.shape[0] == len(GRAM_COLUMNS)
    parts = parts or decompose(captured)
    sentence = captured.prompt == captured.num_prompts - 1
    gains = reduce_gains(parts)
    others = slice(0, captured.num_prompts - 1)
    first = np.flatnonzero(parts.is_bos)[0]
    return Residual(
        log_gain=np.nanmean(gains.log_gain[:, others], axis=1),
        attention=np.nanmean(gains.attention[:, others], axis=1),
        mlp=np.nanmean(gains.mlp[:, others], axis=1),
        bos_log_gain=parts.log_gain[:, first],
        log_norm_out=np.log(parts.norm_out[:, parts.is_ordinary & ~sentence]).mean(axis=1),
        massive_tokens=int(parts.is_massive[~sentence].sum()),
        notebook_last_gain=float(
            captured.normed[sentence].mean() / parts.norm_in[-1, sentence].mean()
        ),
    )


def values(captured: Capture) -> Iterator[Value]:
    """Yield every number of one replica on the mixed prompts, the notebook's sentence last."""
    parts = decompose(captured)
    found = residual(captured, parts)
    yield Value("notebook_last_gain", found.notebook_last_gain)
    yield Value("massive_tokens", found.massive_tokens)
    sentence = captured.prompt == captured.num_prompts - 1
    ordinary = parts.is_ordinary & ~sentence
    first = int(np.flatnonzero(parts.is_bos)[0])
    with np.errstate(invalid="ignore"):
        angle = np.arccos(np.clip(cosines(captured)["block"], -1, 1)) / np.pi
    per_block = {
        "log_gain": found.log_gain,
        "attention": found.attention,
        "mlp": found.mlp,
        "log_norm_out": found.log_norm_out,
        "angle": prompt_means(angle, captured.prompt, ordinary),
        "bos_log_gain": parts.log_gain[:, first],
        "bos_attention": parts.attention[:, first],
        "bos_mlp": parts.mlp[:, first],
        "bos_angle": angle[:, first],
        "bos_log_norm_out": np.log(parts.norm_out[:, first]),
        "max_component": np.abs(captured.top_value[:, ~sentence, 0]).max(axis=1),
    }
    for name, numbers in per_block.items():
        yield from (Value(name, float(number), block) for block, number in enumerate(numbers))
    yield from binned(captured, parts, ordinary, PROMPT_BINS)
    yield from sink_values(captured)
    yield from first_token_life(captured, parts, first)


def prompt_means(numbers: np.ndarray, prompt: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Average [block, token] over each prompt's counted tokens, then over prompts: [block]."""
    count = np.bincount(prompt[counted])
    used = count > 0
    means = [np.bincount(prompt[counted], row[counted])[used] / count[used] for row in numbers]
    return np.mean(means, axis=1)


def binned(
    captured: Capture,
    parts: Decomposition,
    ordinary: np.ndarray,
    bins: dict[str, tuple[int, int]],
    prefix: str = "",
) -> Iterator[Value]:
    """Yield the last block's log gain and its parts by position: ordinary tokens, or position 0.

    Per prompt the mean of its tokens in a bin, then the mean over the prompts that have any.
    """
    numbers = np.stack([parts.log_gain[-1], parts.attention[-1], parts.mlp[-1]])
    block = len(parts.log_gain) - 1
    inside = captured.prompt < captured.num_prompts - (1 if not prefix else 0)
    for name, (low, high) in bins.items():
        of_class = parts.is_bos & inside if low == 0 else ordinary
        counted = of_class & (captured.position >= low) & (captured.position < high)
        if counted.any():
            means = prompt_means(numbers, captured.prompt, counted)
            for measure, mean in zip(("log_gain", "attention", "mlp"), means, strict=True):
                yield Value(prefix + measure, float(mean), block, name)


def sink_values(captured: Capture) -> Iterator[Value]:
    """Yield the attention weight on position 0 per block, mean over heads, and the sinking heads'
    share per block and of all."""
    assert captured.sink is not None
    per_head = np.nanmean(captured.sink[:, :, :-1], axis=2)
    sinking = per_head > SINK_THRESHOLD
    for block in range(len(per_head)):
        yield Value("sink", float(per_head[block].mean()), block)
        yield Value("sinking_heads", float(sinking[block].mean()), block)
    yield Value("sink", float(per_head.mean()))
    yield Value("sinking_heads", float(sinking.mean()))


def first_token_life(captured: Capture, parts: Decomposition, first: int) -> Iterator[Value]:
    """Yield how massive position 0 gets, which block writes it and which erases it; NaN if none."""
    lives = massive_lifecycle(parts, [""] * len(captured.prompt))
    life = next((life for life in lives if life.position == 0), None)
    written = None if life is None else life.written_by
    erased = None if life is None else life.erased_by
    yield Value("bos_written_by", float("nan") if written is None else written)
    yield Value("bos_erased_by", float("nan") if erased is None else erased)
    later = parts.norm_in[:, parts.is_ordinary]
    yield Value("bos_norm_ratio", float((parts.norm_in[:, first] / np.median(later, axis=1)).max()))


def long_bins(length: int) -> dict[str, tuple[int, int]]:
    """Return the bins of a window: BINS, then 128-511, then doubling up to its length."""
    edges = [128, *(edge for edge in (512, 1024, 2048, 4096, 8192, 16384) if edge < length), length]
    short = {name: limits for name, limits in BINS.items() if limits[0] < length}
    return short | {f"{low}-{high - 1}": (low, high) for low, high in pairwise(edges) if low < high}


def long_values(captured: Capture) -> Iterator[Value]:
    """Yield the last block's log gain by position on whole held-out windows."""
    parts = decompose(captured)
    length = int(captured.position.max()) + 1
    yield from binned(captured, parts, parts.is_ordinary, long_bins(length), "long_")


def sigma_max(weights: Weights) -> Tensor:
    """Return the largest singular value of W_U, [replica]."""
    unembed = weights.unembed.double()
    return torch.linalg.eigvalsh(unembed @ unembed.mT)[:, -1].sqrt()
