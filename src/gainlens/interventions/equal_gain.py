"""Rescale the stream after each block, so that all blocks have one gain."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.hooks import writing
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import sites_of
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

_EQUAL: Final = 1e-3
"""Nats by which a block's log gain may miss the common one."""


@contextmanager
def rescaled(model: AnyModel, log_factors: Sequence[float]) -> Generator[None]:
    """Multiply what leaves each block by a factor; log_factors: one per block, nats."""
    sites = sites_of(model)

    def scale(factor: float, tensor: Tensor) -> Tensor:
        return tensor * factor

    writers = [
        (sites.site(f"blocks.{block}.hook_resid_post"), partial(scale, float(np.exp(log_factor))))
        for block, log_factor in enumerate(log_factors)
    ]
    with writing(writers):
        yield


def equalising(
    model: AnyModel,
    prompts: EncodedPrompts,
    plain: Decomposition,
    batch_tokens: int | None = None,
) -> Float64[np.ndarray, " block"]:
    """Return the log factors, nats, under which every block has the mean log gain of all blocks.

    Gains are those of ordinary tokens, mean over prompts.  A factor changes how large later writes
    are beside the stream, so the gains are measured again until all are equal.  A block's gain
    depends on earlier factors alone, so this takes at most as many passes as there are blocks.

    Raises ValueError if the gains do not become equal.
    """
    found = _gains(plain)
    target, log_factors = found.mean(), np.zeros(len(found))
    for _ in range(len(found) + 1):
        if np.abs(found - target).max() <= _EQUAL:
            return log_factors
        log_factors = log_factors + target - found
        with rescaled(model, log_factors.tolist()):
            captured = capture(model, prompts, batch_tokens=batch_tokens)
        found = _gains(replace(decompose(captured), is_massive=plain.is_massive))
    raise ValueError(
        "the blocks of this model cannot be rescaled to equal gain: it does not settle"
    )


def _gains(decomposition: Decomposition) -> Float64[np.ndarray, " block"]:
    return np.nanmean(reduce_gains(decomposition).log_gain, axis=1)
