"""Hold a checked model: the module, its named sites, its tokenizer and its checkpoint."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gainlens.models.decoders import AttentionOut
from gainlens.models.memory import Run
from gainlens.records.inputs import Checkpoint

Kind = Literal["hooked", "bridge", "native"]
Reader = Callable[[Tensor], None]
Writer = Callable[[Tensor], Tensor]

BLOCK_SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
_BLOCK_NAME = re.compile(r"blocks\.(\d+)\.(.+)")
_ONLY_TRANSFORMER_LENS = re.compile(
    r"hook_(resid_mid|attn_in|mlp_in|[qkv]_input)|ln[12]\.hook_(scale|normalized)"
    r"|attn\.hook_([qkvz]|rot_[qk]|attn_scores|pattern|result)|mlp\.hook_(pre|pre_linear|post)"
)
"""Sites of a block that both of TransformerLens' front ends have and the native back end lacks
(hook_z only if attention's output projection is not found)."""


@dataclass(frozen=True)
class Site:
    """Name one activation that can be read and written."""

    name: str
    """TransformerLens' hook name, e.g. blocks.3.hook_mlp_out"""
    module: nn.Module
    side: Literal["input", "output"]
    heads: int | None = None
    """number of heads that the module passes side by side; readers and writers see them apart,
    [batch, position, head, d_head]"""
    copied: bool = False
    """the model goes on to add to this tensor in place, so a reader is given a copy"""
    within: nn.Module | None = None
    """its block, if the module may return [batch * position, d_model]: readers and writers see it
    in the shape of the stream that enters the block"""


def _always_alike(length: int) -> Hashable:
    return None


@dataclass(frozen=True)
class ModelSites:
    """Hold what a capture needs to know of a model, whatever its kind."""

    kind: Kind
    sites: dict[str, Site]
    """by TransformerLens' hook name; ln_final is the whole norm, because hook_normalized is before
    the norm's weight on some back ends and after it on others"""
    num_blocks: int
    num_heads: int
    d_model: int
    embedding: nn.Module
    """called with the token ids of every forward pass"""
    blocks: tuple[nn.Module, ...]
    """called in turn, the stream first"""
    final_norm: nn.Module
    unembed: nn.Module
    device: torch.device
    run: Run
    """token ids [batch, position] -> a forward pass without logits; raises ValueError for a prompt
    that the model cannot hold"""
    logits: Run
    """token ids [batch, position] -> the model's own logits [batch, position, d_vocab]"""
    attention_out: Callable[[int], AttentionOut]
    """a block's W_O, b_O and post-norm"""
    alike: Callable[[int], Hashable] = _always_alike
    """prompt length in tokens -> a key; prompts of one key may be padded to one length (RoPE that
    depends on the length makes keys differ)"""

    def site(self, name: str) -> Site:
        """Return a site by name; raise ValueError, with the nearest names, if there is none."""
        if name in self.sites:
            return self.sites[name]
        near = get_close_matches(name, self.sites, n=3, cutoff=0.3)
        hint = f"the nearest are {', '.join(near)}"
        match = _BLOCK_NAME.fullmatch(name)
        if match and int(match[1]) >= self.num_blocks:
            hint = f"its blocks are 0 to {self.num_blocks - 1}"
        elif match and _ONLY_TRANSFORMER_LENS.fullmatch(match[2]):
            hint = f"hooked and bridge models have it (--backend hooked or bridge); {hint}"
        raise ValueError(f"this {self.kind} model has no site {name!r}; {hint}")


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the checks, with all that is known of it; from `load` or `wrap`."""

    model: Any
    """HookedTransformer, TransformerBridge or Hugging Face causal LM"""
    tokenizer: Any
    """Hugging Face's; None if `wrap` was given none: then prompts are token ids"""
    checkpoint: Checkpoint
    sites: ModelSites
    hf_model: Any = None
    """the Hugging Face model of the very same tensors, which is faster than a front end and gives
    the same numbers; None if it would be a second copy of the weights"""


AnyModel = LoadedModel | nn.Module
"""What every function that takes a model accepts."""


def module_of(model: AnyModel) -> Any:
    """Return the model itself of a LoadedModel; a bare model is returned as it is."""
    return model.model if isinstance(model, LoadedModel) else model
