"""The check at load: is every block additive, and are the logits Hugging Face's?"""

from typing import Any

import torch
from torch import Tensor, nn

from gainlens.sites import BLOCK_SITES, kind_of, reading, sites_of

UNIT_ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
_KL_LIMIT = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
"""Largest KL over tokens from Hugging Face's logits, nats.  DESIGN section 4; float16 lies between
by its unit roundoff."""


def check_additivity(model: nn.Module, tokens: Tensor, dtype: str) -> float:
    """Largest |x+a+m-y| / (|x|+|a|+|m|+|y|) over blocks and tokens; ValueError beyond the limit.

    Relative to the sum of norms, because where a block erases a massive token |y| alone is small.
    """
    sites = sites_of(model)
    worst = _Worst()
    readers = [
        (sites.site(f"blocks.{layer}.{name}"), worst.reader(layer, name))
        for layer in range(sites.num_layers)
        for name in BLOCK_SITES
    ]
    with torch.no_grad(), reading(readers):
        sites.run(tokens)
    limit = 2 * UNIT_ROUNDOFF[dtype]
    if worst.seen != sites.num_layers or not worst.value <= limit:
        raise ValueError(
            f"block {worst.layer} of this {type(model).__name__} is not additive: |x+a+m-y| is "
            f"{worst.value:.2g} of |x|+|a|+|m|+|y| where {dtype} allows {limit:.2g}, so what "
            "hook_attn_out and hook_mlp_out show is not what the block adds; no gain can be split"
        )
    return worst.value


class _Worst:
    """The least additive block of one forward pass."""

    def __init__(self) -> None:
        self.value, self.layer, self.seen = 0.0, 0, 0
        self._open: dict[str, Tensor] = {}

    def reader(self, layer: int, name: str) -> Any:
        def read(tensor: Tensor) -> None:
            self._open[name] = tensor.float()
            if name == BLOCK_SITES[-1]:
                self._close(layer)

        return read

    def _close(self, layer: int) -> None:
        x, a, m, y = (self._open[name] for name in BLOCK_SITES)
        size = sum(part.norm(dim=-1) for part in (x, a, m, y))
        error = float(((x + a + m - y).norm(dim=-1) / size).max())
        self.seen += 1
        if not error <= self.value:
            self.value, self.layer = error, layer
        self._open.clear()


def check_logits(model: Any, hf_model: Any, tokens: Tensor, dtype: str) -> float:
    """Largest KL(Hugging Face || model) over tokens, nats; ValueError beyond the dtype's limit."""
    with torch.no_grad():
        want = hf_model(tokens).logits.double().log_softmax(-1)
        got = model(tokens).double().log_softmax(-1)
    divergence = float((want.exp() * (want - got)).sum(-1).max())
    if not divergence <= _KL_LIMIT[dtype]:
        raise ValueError(
            f"the {kind_of(model)} model's logits differ from Hugging Face's by {divergence:.2g} "
            f"nats (KL; {dtype} allows {_KL_LIMIT[dtype]:.2g}): TransformerLens' conversion does "
            "not fit this checkpoint; try --backend native"
        )
    return max(divergence, 0.0)


def scale_control(model: nn.Module, tokens: Tensor, weight: Tensor, factor: float = 2.0) -> float:
    """Largest change of a logit, as a share of the largest |logit|, when the last stream is scaled.

    The final norm forgets its input's scale (up to its epsilon), so this is about 0: whatever is
    measured after it cannot show what the last block did to the norm.  weight: W_U [d_vocab,
    d_model]; tokens: [batch, position].
    """
    sites = sites_of(model)
    streams: list[Tensor] = []
    with torch.no_grad():
        with reading(
            [(sites.site(f"blocks.{sites.num_layers - 1}.{BLOCK_SITES[-1]}"), streams.append)]
        ):
            sites.run(tokens)
        plain, scaled = (
            sites.final_norm(streams[0] * scale).float() @ weight.float().T
            for scale in (1.0, factor)
        )
    return float((scaled - plain).abs().max() / plain.abs().max())
