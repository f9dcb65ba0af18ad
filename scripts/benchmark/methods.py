"""List the measured ways to read residual streams, each a function of a model and tokens.

No method computes logits: a gain needs none, and those of 131,072 tokens fit no device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.models.sites import kind_of
from gainlens.records.inputs import EncodedPrompts

_SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


@dataclass(frozen=True)
class Method:
    """Name one way and the back ends that have it."""

    name: str
    backends: tuple[str, ...]
    run: Callable[[Any, Tensor], object]
    """takes the model and token ids [1, position], returns what it keeps"""
    package: str | None = None
    """package needed beside gainlens' own dependencies"""

    @property
    def installed(self) -> bool:
        """Return whether the package that it needs is installed."""
        return self.package is None or find_spec(self.package) is not None


def _plain(model: Any, tokens: Tensor) -> None:
    """Run the model's own forward pass, without logits."""
    if kind_of(model) == "hooked":
        model(tokens, return_type=None)
    else:
        getattr(model, "original_model", model).base_model(tokens, use_cache=False)


def _notebook(model: Any, tokens: Tensor) -> list[float]:
    """Take mean norms of output_hidden_states=True, as the notebook does."""
    states = model.base_model(tokens, use_cache=False, output_hidden_states=True).hidden_states
    return [float(state.float().norm(dim=-1).mean()) for state in states]


def _nnsight(model: Any, tokens: Tensor) -> list[Tensor]:
    """Save the streams and writes of every block with nnsight."""
    from nnsight import NNsight

    traced: Any = NNsight(model.base_model)
    saved: Any = []
    with traced.trace(tokens, use_cache=False):
        saved = []
        for block in traced.layers:
            saved.append(block.input.save())
            saved.append(block.self_attn.output[0].save())
            saved.append(block.mlp.output.save())
            saved.append(block.output.save())
        saved.save()
    return list(saved)


def _cache_all(model: Any, tokens: Tensor) -> object:
    return model.run_with_cache(tokens, return_type=None)


def _cache_sites(model: Any, tokens: Tensor) -> object:
    """Cache the streams and writes of every block, and the final norm."""
    wanted = {f"blocks.{block}.{name}" for block in range(model.cfg.n_layers) for name in _SITES}
    wanted.add("ln_final.hook_normalized")
    return model.run_with_cache(tokens, return_type=None, names_filter=lambda name: name in wanted)


def _gainlens(model: Any, tokens: Tensor) -> object:
    ids = tokens[0].cpu().numpy()
    return capture(model, EncodedPrompts("bench", "", ("prompt",), (ids,), True, 0, ()))


_LENS = ("hooked", "bridge")
METHODS = (
    Method("plain", ("native", *_LENS), _plain),
    Method("gainlens", ("native", *_LENS), _gainlens),
    Method("notebook", ("native",), _notebook),
    Method("nnsight", ("native",), _nnsight, package="nnsight"),
    Method("run_with_cache, five sites", _LENS, _cache_sites),
    Method("run_with_cache, all", _LENS, _cache_all),
)


def tokens_of(length: int, vocabulary: int, device: str) -> Tensor:
    """Return token ids [1, length], the same for every method."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, vocabulary, (1, length), generator=generator).to(device)
