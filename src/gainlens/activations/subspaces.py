"""Project writes onto a subspace of W_U."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

_SLICE_ELEMENTS = 1 << 22


def visible_share(
    write: Float[Tensor, "*batch token d_model"], basis: Float32[Tensor, "d_model rank"]
) -> Float32[Tensor, "*batch token"]:
    """Return the share of each token's squared norm that lies in the span of `basis`.

    A random direction has rank / d_model on average; the share is NaN if nothing is written.  Works
    in slices of tokens, so that no float32 copy of a long prompt's write is made.
    """
    basis = basis.to(write.device)
    flat = write.reshape(-1, write.shape[-1])
    shares: list[Tensor] = []
    for tokens in flat.split(max(1, _SLICE_ELEMENTS // flat.shape[1])):
        part = tokens.float()
        shares.append((part @ basis).square().sum(dim=-1) / part.square().sum(dim=-1))
    return torch.cat(shares).reshape(write.shape[:-1])
