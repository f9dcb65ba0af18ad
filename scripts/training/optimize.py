"""AdamW, clipping and the learning-rate schedule; every replica has its own norm and rate."""

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
    """Return the rate of a step: warm-up, constant, linear decay over the last fifth.

    Constant in between so that checkpoints compared at equal loss, which lie at different steps,
    mostly were reached at the same learning rate.
    """
    rising = min(1.0, (step + 1) / warm_up)
    falling = min(1.0, (steps - step) / (DECAY_SHARE * steps))
    return peak * rising * falling


def schedule(steps: int, warm_up: int, steps_before: int = 0) -> Tensor:
    """Tabulate [step, number]: share of the peak rate, then AdamW's two bias corrections.

    A training that goes on from another one's end has `steps_before` updates in its moments.
    """
    rows = [
        (
            learning_rate(step, steps, 1.0, warm_up),
            *(1 - beta ** (steps_before + step + 1) for beta in BETAS),
        )
        for step in range(steps)
    ]
    return torch.tensor(rows, dtype=torch.float32)


def no_moments(weights: Weights) -> Moments:
    """Return the moments before the first step."""
    return Moments(
        Weights(*(torch.zeros_like(w) for w in weights)),
        Weights(*(torch.zeros_like(w) for w in weights)),
    )


def along(per_replica: Tensor, like: Tensor) -> Tensor:
    """Give [replica] as many axes as `like` has."""
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
def update_(
    weights: Weights, gradients: list[Tensor], moments: Moments, rates: Tensor, now: Tensor
) -> Tensor:
    """Clip and take one AdamW step in place; the gradients' norms before, [replica].

    rates: each replica's peak; now: this step's row of `schedule`. Loshchilov & Hutter 2019, arXiv
    1711.05101; matrices and embeddings decay, norms do not.
    """
    norms = clip_(gradients)
    share, correction_first, correction_second = now.unbind()
    rates = rates * share
    each = zip(Weights._fields, weights, gradients, moments.first, moments.second, strict=True)
    for name, weight, gradient, first, second in each:
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = along(rates, weight)
        if name not in NOT_DECAYED:
            weight.mul_(1 - rate * WEIGHT_DECAY)
        change = (first / correction_first) / ((second / correction_second).sqrt() + EPS)
        weight.sub_(rate * change)
    return norms
