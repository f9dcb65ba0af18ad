"""Compute every block's mean over prompts, with a band over blocks."""

import numpy as np

from gainlens.claims.intervals import simultaneous_band
from gainlens.core.spec import Rule
from gainlens.records.gains import BlockGain, PromptGains


def block_gains(gains: PromptGains, rule: Rule | None = None) -> tuple[BlockGain, ...]:
    """Return every block's mean over prompts (nats) with a simultaneous band (ratios).

    Args:
        gains: from `reduce_gains`.
        rule: confidence, resamples and seed of the band; the defaults if not given.

    A prompt counts if it is known in every block.

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
