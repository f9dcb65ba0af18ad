"""Double the last stream and compare the logits: the final norm forgets scale."""

import torch
from torch import Tensor

from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import BLOCK_SITES, sites_of


def scale_control(model: AnyModel, tokens: Tensor, weight: Tensor) -> float:
    """Return the largest change of a logit, as a share of the largest, if the stream is doubled.

    The final norm forgets its input's scale (up to its epsilon), so this is about 0: whatever is
    measured after it cannot show what the last block did to the norm.  weight: W_U [d_vocab,
    d_model]; tokens: [batch, position].
    """
    sites = sites_of(model)
    streams: list[Tensor] = []
    with torch.no_grad():
        with reading(
            [(sites.site(f"blocks.{sites.num_blocks - 1}.{BLOCK_SITES[-1]}"), streams.append)]
        ):
            sites.run(tokens.to(sites.device))
        plain, scaled = (
            sites.final_norm(streams[0] * scale).to(weight.device).float() @ weight.float().T
            for scale in (1.0, 2.0)
        )
    return float((scaled - plain).abs().max() / plain.abs().max())
