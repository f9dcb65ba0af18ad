"""The check at load: is every block additive, and are the logits Hugging Face's?"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.models.hooks import reading
from gainlens.models.memory import ran_out
from gainlens.models.sites import BLOCK_SITES, ModelSites, kind_of, sites_of

_KL_LIMIT = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
"""Largest KL over tokens from Hugging Face's logits, nats.  DESIGN section 4; float16 lies between
by its unit roundoff."""


def check_additivity(model: nn.Module, tokens: Tensor, dtype: str) -> float:
    """Largest |x+a+m-y| / (|x|+|a|+|m|+|y|) over blocks and tokens; ValueError beyond the limit.

    Relative to the sum of norms, because where a block erases a massive token |y| alone is small.
    ValueError also where the model fails on the tokens, or a site stays silent.
    """
    sites = sites_of(model)
    worst = _Worst()
    readers = [
        (sites.site(f"blocks.{block}.{name}"), partial(worst.read, block, name))
        for block in range(sites.num_blocks)
        for name in BLOCK_SITES
    ]
    with torch.no_grad(), reading(readers):
        _run(model, sites, tokens)
    limit = 2 * UNIT_ROUNDOFF[dtype]
    silent = [site.name for site, _ in readers if site.name not in worst.fired]
    if silent:
        raise ValueError(
            f"no activation passed at {silent[0]} of this {_name(model, sites)}, so its blocks "
            f"cannot be taken apart; {_elsewhere(sites)}"
        )
    if worst.broken is not None:
        raise ValueError(
            f"{worst.broken} of this {_name(model, sites)} is not finite on a short prompt: "
            "float16 overflows beyond 65,504, so measure in bfloat16 or float32 (--dtype "
            "bfloat16); in those the weights themselves are broken"
        )
    if not worst.value <= limit:
        raise ValueError(
            f"block {worst.block} of this {_name(model, sites)} is not additive: |x+a+m-y| is "
            f"{worst.value:.2g} of |x|+|a|+|m|+|y| where {dtype} allows {limit:.2g}, so what "
            "hook_attn_out and hook_mlp_out show is not what the block adds, and no gain can be "
            f"split (some models scale what they add); {_elsewhere(sites)}"
        )
    return worst.value


def _run(model: nn.Module, sites: ModelSites, tokens: Tensor) -> None:
    try:
        sites.run(tokens)
    except Exception as error:  # whatever a front end's forward pass stumbles over
        if isinstance(error, ValueError) or ran_out(error):
            raise
        raise ValueError(
            f"this {_name(model, sites)} fails on a short prompt ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}); {_elsewhere(sites)}"
        ) from error


def _name(model: Any, sites: ModelSites) -> str:
    """The class, and what it is wrapped around."""
    inner = getattr(model, "original_model", None)
    return type(model).__name__ + (f" of a {type(inner).__name__}" if inner is not None else "")


def _elsewhere(sites: ModelSites) -> str:
    return f"try --backend {'bridge' if sites.kind == 'native' else 'native'}"


class _Worst:
    """The least additive block of one forward pass."""

    def __init__(self) -> None:
        self.value, self.block = 0.0, 0
        self.fired: set[str] = set()
        self.broken: str | None = None
        """the first site, in the order of computation, that is not finite"""
        self._open: dict[str, Tensor] = {}

    def read(self, block: int, name: str, tensor: Tensor) -> None:
        self._open[name] = tensor.float()
        self.fired.add(f"blocks.{block}.{name}")
        if self.broken is None and not bool(tensor.isfinite().all()):
            self.broken = f"blocks.{block}.{name}"
        if name == BLOCK_SITES[-1]:
            if len(self._open) == len(BLOCK_SITES):
                self._close(block)
            self._open.clear()

    def _close(self, block: int) -> None:
        y = self._open[BLOCK_SITES[-1]]
        x, a, m = (self._open[name].to(y.device) for name in BLOCK_SITES[:3])
        size = sum(part.norm(dim=-1) for part in (x, a, m, y))
        error = float(((x + a + m - y).norm(dim=-1) / size).max())
        if not error <= self.value:
            self.value, self.block = error, block


def logits_of(hf_model: Any, tokens: Tensor) -> Tensor:
    """Hugging Face's logits [batch, position, d_vocab], before a front end is put around it."""
    with torch.no_grad():
        return hf_model(tokens, use_cache=False).logits


def check_logits(model: nn.Module, wanted: Tensor, tokens: Tensor, dtype: str) -> float:
    """Largest KL(wanted || model) over tokens, nats; ValueError beyond the dtype's limit."""
    with torch.no_grad():
        want = wanted.double().log_softmax(-1)
        got = sites_of(model).logits(tokens).double().log_softmax(-1)
    divergence = float((want.exp() * (want - got)).sum(-1).max())
    if not divergence <= _KL_LIMIT[dtype]:
        raise ValueError(
            f"the {kind_of(model)} model's logits differ from Hugging Face's by {divergence:.2g} "
            f"nats (KL; {dtype} allows {_KL_LIMIT[dtype]:.2g}): TransformerLens' conversion does "
            "not fit this checkpoint; try --backend native"
        )
    return max(divergence, 0.0)
