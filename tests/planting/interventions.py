"""Interventions whose effect on every prompt is chosen."""

from collections.abc import Mapping

import numpy as np

from gainlens.claims.behaviour import behaviour_of
from gainlens.claims.intervals import mean_interval
from gainlens.core.spec import Rule
from gainlens.records.gains import BlockGain
from gainlens.records.interventions import (
    AblatedModel,
    AblationEffect,
    Change,
    ControlEffect,
    Interventions,
    LastBlock,
    ThetaDose,
)

MLP, ATTENTION = "blocks.-1.hook_mlp_out", "blocks.-1.hook_attn_out"
RULE = Rule(resamples=400)


def last_block(log_gain: np.ndarray, loss: float = 2.4) -> LastBlock:
    interval = mean_interval(log_gain, resamples=RULE.resamples)
    losses = mean_interval(loss + 0.01 * log_gain, resamples=RULE.resamples)
    return LastBlock(interval, 0.7, losses, behaviour_of(interval, 2.0**-24))


def change(before: np.ndarray, after: np.ndarray, loss: float = 0.5) -> Change:
    return Change(
        last_block(before),
        last_block(after, 2.4 + loss),
        mean_interval(after - before, resamples=RULE.resamples),
        mean_interval(loss + 0.001 * before, resamples=RULE.resamples),
    )


def interventions(
    before: np.ndarray,
    sites: Mapping[str, float | np.ndarray],
    thetas: Mapping[float, float | np.ndarray],
    *,
    own: float = 1e4,
    ablated: float | None = None,
    notes: tuple[str, ...] = (),
    controls: bool = False,
) -> Interventions:
    """sites and thetas: what each adds to every prompt's log gain, nats."""
    blocks = (BlockGain(0, 0.1, 0.04, 0.06, 0.0, 1.105, 1.0, 1.2),)
    return Interventions(
        sweep=tuple(
            AblationEffect(site, "zero", change(before, before + shift), before + shift)
            for site, shift in sites.items()
        ),
        theta_dose=tuple(
            ThetaDose(theta, theta == own, change(before, before + shift, 0.1), before + shift)
            for theta, shift in thetas.items()
        ),
        notes=notes,
        ablated=None if ablated is None else AblatedModel(blocks, change(before, before + ablated)),
        controls=(
            ControlEffect("BOS dropped", "on 24 prompts", change(before, before)),
            ControlEffect("massive to mean", "no token is massive", None),
        )
        if controls
        else (),
    )
