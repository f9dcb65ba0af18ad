"""Held-out loss at several lengths, and the residual measurements by gainlens' own functions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gainlens.axes import GRAM_COLUMNS
from gainlens.gain import decompose, reduce_gains
from gainlens.gram import gram_columns, top_components
from gainlens.records import Capture
from training import ensemble, tokens
from training.ensemble import Shape, Weights


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
    """float32 weights with bfloat16's values: what is measured is what a checkpoint holds."""
    return Weights(*(tensor.bfloat16().float() for tensor in weights))


@torch.no_grad()
def held_out_loss(
    weights: Weights,
    windows: Tensor,
    length: int,
    thetas: Tensor,
    shape: Shape,
    compute: torch.dtype,
    step_tokens: int = 1 << 15,
) -> Tensor:
    """Mean cross-entropy [replica], nats per token, of windows [window, WINDOW + 1] cut into pieces
    of `length`, BOS first in each: the same targets at every length."""
    inputs, targets = tokens.sequences(windows, length)
    rotation = ensemble.rope(thetas, length, shape.d_head)
    parts = ensemble.blocks(weights, compute)
    replicas = len(thetas)
    total = torch.zeros(replicas, device=thetas.device)
    step = max(1, step_tokens // length)
    for start in range(0, len(inputs), step):
        piece = inputs[start : start + step].expand(replicas, -1, -1)
        wanted = targets[start : start + step].expand(replicas, -1, -1)
        x = ensemble.embed(weights, piece)
        for block in parts:
            x = ensemble.block_forward(x, block, rotation, shape)
        losses = ensemble.token_losses(x, weights, wanted, shape, compute)
        total += losses.flatten(1).sum(1)
    return total / inputs.numel()


def padded(prompts: tuple[list[int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [prompt, token] filled up at the end, which causal attention does not see, and the
    mask of real tokens."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = True
    return ids.to(device), mask.to(device)


@torch.no_grad()
def captures(
    weights: Weights, prompts: tuple[list[int], ...], thetas: Tensor, shape: Shape
) -> list[Capture]:
    """One gainlens Capture per replica, float32 arithmetic."""
    ids, mask = padded(prompts, thetas.device)
    batch = ids.expand(len(thetas), -1, -1)
    grams, values, indices = [], [], []
    for padded_streams in ensemble.streams(weights, batch, thetas, shape):
        x, a, m, y = (stream[:, mask] for stream in padded_streams)
        grams.append(gram_columns(x, a, m, y))
        value, index = top_components(y)
        values.append(value)
        indices.append(index)
        last = y
    normed = ensemble.rms_norm(last[:, None], weights.norm_final, shape.eps)[:, 0].norm(dim=-1)
    prompt, position = torch.nonzero(mask.cpu(), as_tuple=True)
    stacked = [torch.stack(parts, 1).cpu().numpy() for parts in (grams, values, indices)]
    return [
        Capture(
            prompt=prompt.numpy(),
            position=position.numpy(),
            token_id=ids[mask].cpu().numpy(),
            gram=np.moveaxis(stacked[0][replica].astype(np.float64), -1, 0),
            top_value=stacked[1][replica].astype(np.float64),
            top_index=stacked[2][replica],
            normed=normed[replica].double().cpu().numpy(),
        )
        for replica in range(len(thetas))
    ]


def residual(capture: Capture) -> Residual:
    """The last prompt is the notebook's sentence: it gives `notebook_last_gain` and no more."""
    assert capture.gram.shape[0] == len(GRAM_COLUMNS)
    parts = decompose(capture)
    sentence = capture.prompt == capture.num_prompts - 1
    gains = reduce_gains(capture, parts)
    others = slice(0, capture.num_prompts - 1)
    first = np.flatnonzero(parts.is_bos)[0]
    return Residual(
        log_gain=np.nanmean(gains.log_gain[:, others], axis=1),
        attention=np.nanmean(gains.attention[:, others], axis=1),
        mlp=np.nanmean(gains.mlp[:, others], axis=1),
        bos_log_gain=parts.log_gain[:, first],
        log_norm_out=np.log(parts.norm_out[:, parts.is_ordinary & ~sentence]).mean(axis=1),
        massive_tokens=int(parts.is_massive[~sentence].sum()),
        notebook_last_gain=float(
            capture.normed[sentence].mean() / parts.norm_in[-1, sentence].mean()
        ),
    )


def sigma_max(weights: Weights) -> Tensor:
    """Largest singular value of W_U, [replica]."""
    return torch.linalg.matrix_norm(weights.unembed.float(), ord=2)
