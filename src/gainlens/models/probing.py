"""Find what a block adds to the stream by what it adds, not by name."""

from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.models.checks import check_additivity
from gainlens.models.decoders import base_of, first_tensor, tensor_of
from gainlens.models.hooks import scoped
from gainlens.models.loaded import ModelSites
from gainlens.models.sites import native_sites, sites_of

_DEPTH = 2
"""Modules within modules of a block that are looked at."""


def additive_sites(model: Any, tokens: Tensor, dtype: str) -> tuple[ModelSites, float]:
    """Return a model's sites under which its blocks are additive, and how far they are not.

    The usual names come first.  If they fail on a Hugging Face model, its blocks are searched for
    two modules whose outputs are what the block adds: a post-norm of another name, an output that
    the block goes on to add to in place, or one that is flattened to [batch * position, d_model]
    (OPT, Llama 4).  Raises ValueError, of the usual names, if there are
    none.
    """
    try:
        sites = sites_of(model)
        return sites, check_additivity(model, sites, tokens, dtype)
    except ValueError:
        if not hasattr(model, "base_model") or hasattr(model, "cfg"):
            raise
        writers = _writers(model, tokens, dtype)
        if writers is None:
            raise
    sites = native_sites(model, writers)
    return sites, check_additivity(model, sites, tokens, dtype)


def _writers(model: Any, tokens: Tensor, dtype: str) -> tuple[str, str] | None:
    """Return the names, within a block, of the modules that attention and the MLP add."""
    base = base_of(model)
    blocks = next((list(part) for part in base.children() if isinstance(part, nn.ModuleList)), [])
    if not blocks:
        return None
    states: dict[str, Tensor] = {}
    block = blocks[-1]
    named = {
        name: module for name, module in block.named_modules() if name and name.count(".") < _DEPTH
    }

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        value: Any = tensor_of(output)
        if isinstance(value, Tensor):
            states[name] = value.detach().double().clone()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states["x"] = first_tensor(args, kwargs).detach().double().clone()

    hooks = [partial(block.register_forward_pre_hook, enter, with_kwargs=True)]
    hooks += [
        partial(module.register_forward_hook, partial(keep, name))
        for name, module in (named | {"y": block}).items()
    ]
    with torch.no_grad(), scoped(hooks):
        try:
            base(tokens, use_cache=False)
        except Exception:  # the check of the usual names says what is wrong
            return None
    if not {"x", "y"} <= states.keys():  # a block that does not map a stream to a stream
        return None
    x, y = states.pop("x"), states.pop("y")
    alike = {
        name: state.reshape(x.shape)
        for name, state in states.items()
        if state.numel() == x.numel() and state.shape[-1] == x.shape[-1]
    }
    for (first, a), (second, m) in combinations(alike.items(), 2):
        size = sum(part.norm(dim=-1) for part in (x, a, m, y))
        if float(((x + a + m - y).norm(dim=-1) / size).max()) <= 2 * UNIT_ROUNDOFF[dtype]:
            return (second, first) if _is_attention(second, first) else (first, second)
    return None


def _is_attention(name: str, other: str) -> bool:
    return "att" in name.lower() and "att" not in other.lower()
