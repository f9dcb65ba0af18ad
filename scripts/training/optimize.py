"""AdamW, clipping and the learning-rate schedule, one of each per replica."""

from typing import NamedTuple

import torch
from torch import Tensor

from training.ensemble import Weights

BETAS = (0.9, 0.95)
EPS = 1e-8
WEIGHT_DECAY = 0.1
CLIP = 1.0
DECAY_SHARE = 0.2
NOT_DECAYED = ("norm_final", "norm_attention", "norm_mlp")


class Moments(NamedTuple):
    """AdamW's running means, shaped as the weights."""

    first: Weights
    second: Weights


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Warm-up, constant, linear decay over the last fifth.

    Constant in between so that checkpoints compared at equal loss, which lie at different steps,
    mostly were reached at the same learning rate.
    """
    rising = min(1.0, (step + 1) / warm_up)
    falling = min(1.0, (steps - step) / (DECAY_SHARE * steps))
    return peak * rising * falling


def no_moments(weights: Weights) -> Moments:
    return Moments(
        Weights(*(torch.zeros_like(w) for w in weights)),
        Weights(*(torch.zeros_like(w) for w in weights)),
    )


def along(per_replica: Tensor, like: Tensor) -> Tensor:
    return per_replica.view(-1, *(1,) * (like.ndim - 1))


def clip_(gradients: list[Tensor]) -> Tensor:
    """Scale each replica's gradient to a norm of at most CLIP; the norms before, [replica]."""
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients])
    norms = squares.sum(0).sqrt()
    factor = (CLIP / (norms + 1e-6)).clamp(max=1.0)  # 1e-6 as in torch's clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(along(factor, gradient))
    return norms


@torch.no_grad()
def adamw_(
    weights: Weights, gradients: list[Tensor], moments: Moments, rates: Tensor, step: int
) -> None:
    """One step in place, with a learning rate per replica; `step` counts from 0.

    Loshchilov & Hutter 2019, arXiv 1711.05101; matrices and embeddings decay, norms do not.
    """
    correction = [1 - beta ** (step + 1) for beta in BETAS]
    each = zip(Weights._fields, weights, gradients, moments.first, moments.second, strict=True)
    for name, weight, gradient, first, second in each:
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = along(rates, weight)
        if name not in NOT_DECAYED:
            weight.mul_(1 - rate * WEIGHT_DECAY)
        change = (first / correction[0]) / ((second / correction[1]).sqrt() + EPS)
        weight.sub_(rate * change)
